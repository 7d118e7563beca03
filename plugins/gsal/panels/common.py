"""What the panels share: errors as notices, doors to the operators, the run picker, what to do next."""

import fiftyone.operators as foo
from fiftyone.operators import types

from gsal_fo.fo import runs

from ..shared import need_dataset, sentence, tell

URI = "@gsal/active-learning/"
NEXT = {  # key, label, icon, operator
    "score": ("Score", "science", "gsal_score"),
    "select": ("Select", "checklist", "gsal_select"),
    "export": ("Export", "file_download", "gsal_export"),
    "annotate": ("Annotate", "draw", "gsal_annotate"),
    "ingest": ("Ingest", "file_upload", "gsal_ingest"),
    "cancel": ("Cancel a round", "undo", "gsal_cancel"),
}
OF_A_ROUND = ("export", "annotate", "ingest", "cancel")


class Panel(foo.Panel):
    """A panel in which every error of an event is a notice, and one of the drawing a line in the panel's place."""

    def execute(self, ctx):
        """FiftyOne's only door to a panel: every event and the drawing after it come through here."""
        try:
            if ctx.params.get("__method__") not in (None, "on_startup", "on_unload"):
                need_dataset(ctx)
            return super().execute(ctx)
        except Exception as error:
            tell(ctx, error)
        try:
            need_dataset(ctx)
            drawn = self.render(ctx)
        except Exception as error:
            panel = types.Object()
            panel.view("problem", types.AlertView(label=sentence(error), severity="warning"))
            drawn = page(panel)
        ctx.ops.show_panel_output(drawn)
        return None


class Doors:
    """Buttons that open the operators' forms; the panel reads anew when one is done."""

    def doors(self, panel, *names, rounds=True):
        """``rounds``: whether there is a round, without which some of them have nothing to do."""
        stack = row(panel, "doors")
        for name in names:
            label, icon, _ = NEXT[name]
            idle = name in OF_A_ROUND and not rounds
            button(
                stack,
                f"open_{name}",
                label=label,
                icon=icon,
                variant="outlined",
                on_click=getattr(self, f"open_{name}"),
                disabled=idle,
                title="No round yet: select a batch first" if idle else f"Open the form: GSAL {label.lower()}",
            )
        return stack

    def open_score(self, ctx):
        self._open(ctx, "score")

    def open_select(self, ctx):
        self._open(ctx, "select")

    def open_export(self, ctx):
        self._open(ctx, "export")

    def open_annotate(self, ctx):
        self._open(ctx, "annotate")

    def open_cancel(self, ctx):
        self._open(ctx, "cancel")

    def open_ingest(self, ctx):
        self._open(ctx, "ingest")

    def _open(self, ctx, name):
        ctx.prompt(URI + NEXT[name][2], on_success=self.refresh)

    def refresh(self, ctx):
        """Read the dataset as it is now."""
        raise NotImplementedError


def put(ctx, name, value):
    """Give a plot or table its data.

    The App keeps a copy of it in the panel's state, and lays what comes over the copy, place by place: where the list
    had been longer, its end would stay on the screen. So the copy goes first. No state of ours may have such a name.
    """
    ctx.panel.set_state(name, None)
    ctx.panel.set_data(name, value)


def row(panel, name, align="center"):
    """A row that breaks where the panel is narrow; what is put into it says how wide it is."""
    return panel.grid(name, gap=1, align_y=align, orientation="wrap")


def button(panel, name, **what):
    """A button as wide as its label, in a ``row``."""
    panel.btn(name, componentsProps={"item": {"sx": {"width": "auto"}}}, **what)


def share(least=90):
    """``componentsProps`` of a field in a ``row``: at least so many pixels wide, and its share of what is left."""
    return {"item": {"sx": {"width": "auto", "flex": f"1 1 {least}px"}}}


def page(panel):
    """The whole panel, from top to bottom, away from the edges and as wide as there is room.

    Without the second line a wide table or plot would push all of the panel over its edge, and what is low would be
    spread over a high panel.
    """
    style = {"grid": {"sx": {"gridTemplateColumns": "minmax(0, 1fr)", "alignContent": "start"}}}
    room = {"orientation": "vertical", "height": 100, "width": 100, "gap": 1, "px": 2, "py": 1, "align_x": "stretch"}
    view = types.GridView(componentsProps=style, **room)
    return types.Property(panel, view=view)


def run_picker(panel, keys, on_change):
    """A choice of scoring, where there are several."""
    if len(keys) > 1:
        panel.enum("run", keys, label="Scoring", view=types.DropdownView(), default=keys[-1], on_change=on_change)


def chosen_run(ctx, name="run"):
    """The picked scoring while it exists, else None: the latest."""
    key = ctx.panel.get_state(name)
    return key if key in runs.score_keys(ctx.dataset) else None
