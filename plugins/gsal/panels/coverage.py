"""Panel: the concept graph by coverage, and the pool's images that carry a node."""

import fiftyone.operators as foo
from fiftyone.operators import types

import gsal_fo.fo as gfo
from gsal_fo.fo import runs
from gsal_fo.fo.app import coverage as covering
from gsal_fo.fo.app import live
from gsal_fo.pages import plots

from ..shared import sentence
from .common import NEXT, Doors, Panel, button, chosen_run, page, put, run_picker

HELP = """Each dot is a concept: its **area** is the share of the pool's images that look like it, its **color** how
much of it has been labeled (dark: nothing yet), the number beside it the labeled instances. An orange ring marks a
**rare** concept: its count is at or below its level's threshold. Click a dot, or a row's button, and the grid shows
exactly the pool's images that carry it, best first."""
LINES = 8  # rarest labels in the plot of rounds
LEVELS = {"fine": "label", "coarse": "family", "abstract": "attribute"}  # the words of the graph above the table
COLUMNS = {
    "node": "Concept",
    "level": "Level",
    "labeled": "Labeled",
    "state": "Rare",  # with the threshold: one more column would be wider than half the App
    "pool": "Pool",
    "picked": "Picked",
}
# The App makes a table 650 pixels wide at least; beside the grid there are about 500.
CELL, BUTTON = {"px": 1, "fontSize": "0.875rem"}, {"p": 0}
NARROW = {"table": {"sx": {"minWidth": 0, "& .MuiTableCell-root": CELL, "& .MuiIconButton-root": BUTTON}}}
EMPTY = """### Not scored yet
**Score** ranks the unlabeled images by how hard and how rare they look. You need a concept graph (a shipped one, or a
YAML file with your labels, their families and attributes), and unlabeled images in this dataset."""


class ConceptCoverage(Doors, Panel):
    """Coverage per concept as a graph, a table and by round; a click sets the App's view."""

    @property
    def config(self):
        return foo.PanelConfig(
            name="gsal_concepts",
            label="Concept coverage",
            icon="account_tree",
            help_markdown=HELP,
            category=foo.Categories.CURATE,
        )

    def on_load(self, ctx):
        self._read(ctx)

    def on_change_dataset(self, ctx):
        ctx.panel.state.node = None
        self._read(ctx)

    def refresh(self, ctx):
        self._read(ctx)

    def on_run(self, ctx):
        """Another scoring was picked."""
        ctx.panel.state.run = ctx.params.get("value")
        ctx.panel.state.node = None
        self._read(ctx)

    def on_node(self, ctx):
        """A click on the graph; only nodes have an id."""
        if node := ctx.params.get("id"):
            self._show(ctx, node)

    def on_row(self, ctx):
        """A click on a row's button: the event names its place only, and rows may stand in another order by now."""
        shown = ctx.panel.state.order or [r["node"] for r in gfo.coverage(ctx.dataset, run_key=chosen_run(ctx))]
        if 0 <= (place := ctx.params.get("row", -1)) < len(shown):
            self._show(ctx, shown[place])

    def on_patches(self, ctx):
        """Images or their proposals."""
        ctx.panel.state.patches = bool(ctx.params.get("value"))
        if ctx.panel.state.node:
            self._show(ctx, ctx.panel.state.node)

    def everything(self, ctx):
        """Back to the whole dataset."""
        ctx.panel.state.node, ctx.panel.state.shown = None, None
        ctx.ops.clear_view()
        self._read(ctx)

    def render(self, ctx):
        panel, state = types.Object(), ctx.panel.state
        if state.problem:
            if state.unscored:
                panel.md(EMPTY, name="empty")
                self.doors(panel, "score")
            else:
                panel.view("problem", types.AlertView(label=state.problem, severity="warning"))
                panel.btn("refresh", label="Try again", icon="refresh", on_click=self.refresh, variant="outlined")
        else:
            top = self.doors(panel, *NEXT, rounds=bool(state.has_round))
            button(top, "refresh", label="Refresh", icon="refresh", on_click=self.refresh, variant="outlined")
            run_picker(panel, state.keys or [], self.on_run)
            panel.md(state.scoring or "", name="scoring")
            shown = panel.h_stack("showing", gap=2, align_y="center")
            shown.bool(
                "patches", label="Show proposals", default=False, view=types.SwitchView(), on_change=self.on_patches
            )
            shown.md(state.shown or "Click a concept to see the pool's images that carry it.", name="shown")
            if state.node:
                shown.btn("everything", label="Show all", icon="close", on_click=self.everything, variant="outlined")
            panel.plot("graph", on_click=self.on_node, layout=state.layout, config={"displayModeBar": False})
            table = types.TableView(componentsProps=NARROW, actions_label="Show")
            for name, label in COLUMNS.items():
                table.add_column(name, label=label)
            what = "Show the images that carry it"
            table.add_row_action("show", self.on_row, icon="visibility", tooltip=what)
            panel.list("rows", types.Object(), view=table)
            panel.md(f"**Labeled instances by round**, the {LINES} rarest labels", name="by_round")
            panel.plot("rounds", layout=plots.rounds_layout(), config={"displayModeBar": False})
        return page(panel)

    def _read(self, ctx):
        """Count anew: the labels of now, the pool of now."""
        state, key = ctx.panel.state, chosen_run(ctx)
        try:
            now = live.of(ctx.dataset, key)
            rows, graph, past = covering.rows(now), now.state.graph, covering.history(ctx.dataset, now)
            state.scoring = gfo.scoring_line(ctx.dataset, run_key=key)
        except Exception as error:
            state.problem, state.unscored = sentence(error), not runs.score_keys(ctx.dataset)
            return
        state.problem, state.keys = None, runs.score_keys(ctx.dataset)
        state.has_round = len(past) > 1
        state.layout = plots.graph_layout(graph)
        put(ctx, "graph", plots.concept_graph(graph, rows, state.node))
        put(ctx, "rows", [in_words(r) for r in rows])
        state.order = [r["node"] for r in rows]
        rarest = [r["node"] for r in rows if r["level"] == "fine"][:LINES]
        put(ctx, "rounds", plots.rounds(past, rarest))

    def _show(self, ctx, node):
        state, now = ctx.panel.state, live.of(ctx.dataset, chosen_run(ctx))
        patches = bool(state.get("showing.patches"))
        stages, count = covering.shown_node(ctx.dataset, node, now, patches=patches)
        what = "proposal" if patches else "image"
        state.node = node
        state.shown = f"**{node}**: {count} {what}{'' if count == 1 else 's'} of the pool"
        ctx.trigger("set_view", {"view": stages})
        put(ctx, "graph", plots.concept_graph(now.state.graph, covering.rows(now), node))


def in_words(row):
    """A row of the table."""
    rare = "yes" if row["rare"] else "no"
    return {**row, "level": LEVELS[row["level"]], "state": f"{rare}, <= {row['threshold']}"}
