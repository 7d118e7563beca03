"""What the panels share: doors to the operators, the run picker, what to do next, notices in the place of traces."""

import functools

from fiftyone.operators import types

from gsal_fo.fo import runs

URI = "@gsal/active-learning/"
NEXT = {  # key, label, icon, operator
    "score": ("Score", "science", "gsal_score"),
    "select": ("Select", "checklist", "gsal_select"),
    "export": ("Export", "file_download", "gsal_export"),
    "ingest": ("Ingest", "file_upload", "gsal_ingest"),
}


def said(method):
    """A panel event in which what a person can mend becomes a notice, not a stack trace."""

    @functools.wraps(method)
    def event(self, ctx):
        try:
            return method(self, ctx)
        except ValueError as error:
            ctx.ops.notify(str(error), variant="error")

    return event


class Doors:
    """Buttons that open the operators' forms; the panel reads anew when one is done."""

    def doors(self, panel, *names):
        stack = panel.h_stack("doors", gap=1, align_y="center")
        for name in names:
            label, icon, _ = NEXT[name]
            stack.btn(
                f"open_{name}",
                label=label,
                icon=icon,
                variant="outlined",
                on_click=getattr(self, f"open_{name}"),
                title=f"Open the form: GSAL {label.lower()}",
            )

    def open_score(self, ctx):
        self._open(ctx, "score")

    def open_select(self, ctx):
        self._open(ctx, "select")

    def open_export(self, ctx):
        self._open(ctx, "export")

    def open_ingest(self, ctx):
        self._open(ctx, "ingest")

    def _open(self, ctx, name):
        ctx.prompt(URI + NEXT[name][2], on_success=self.refresh)

    def refresh(self, ctx):
        """Read the dataset as it is now."""
        raise NotImplementedError


def page(panel):
    """The whole panel, from top to bottom."""
    view = types.GridView(orientation="vertical", height=100, width=100, gap=1, padding=1)
    return types.Property(panel, view=view)


def run_picker(panel, keys, on_change):
    """A choice of scoring, where there are several."""
    if len(keys) > 1:
        panel.enum("run", keys, label="Scoring", view=types.DropdownView(), default=keys[-1], on_change=on_change)


def chosen_run(ctx, name="run"):
    """The picked scoring while it exists, else None: the latest."""
    key = ctx.panel.get_state(name)
    return key if key in runs.score_keys(ctx.dataset) else None
