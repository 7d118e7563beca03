"""Panel: how much of each concept has been labeled, and which images look like it."""

import fiftyone.operators as foo
from fiftyone.operators import types

import gsal_fo.fo as gfo

RARE, COMMON = "#e8743b", "#499cef"
HELP = """Labeled instances per concept. A concept is **rare** when its count is at or below its level's threshold.
Click a dot or bar, or a row's button, to see the images whose proposals look like the concept, best first."""


class ConceptCoverage(foo.Panel):
    """Coverage per concept node as bars and a table; a click sets the App's view."""

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
        self._read(ctx)

    def refresh(self, ctx):
        self._read(ctx)

    def on_bar(self, ctx):
        """A click on a bar."""
        self._show(ctx, ctx.params.get("id") or ctx.params.get("y"))

    def on_row(self, ctx):
        """A click on a row's button: the event names the row's place only."""
        rows = ctx.panel.state.nodes or []
        place = ctx.params.get("row", -1)
        if 0 <= place < len(rows):
            self._show(ctx, rows[place]["node"])

    def everything(self, ctx):
        """Back to the whole dataset."""
        ctx.panel.state.node = None
        ctx.ops.clear_view()

    def render(self, ctx):
        panel = types.Object()
        if ctx.panel.state.problem:
            panel.view("problem", types.Notice(label=ctx.panel.state.problem))
        else:
            panel.md(ctx.panel.state.scoring or "", name="scoring")
            if ctx.panel.state.node:
                panel.md(f"Showing images that look like **{ctx.panel.state.node}**", name="shown")
            buttons = panel.h_stack("buttons", gap=1)
            buttons.btn("refresh", label="Refresh", on_click=self.refresh)
            buttons.btn("everything", label="Show all images", on_click=self.everything)
            panel.plot("bars", on_click=self.on_bar, layout=_layout(ctx), config={"displayModeBar": False})
            table = types.TableView()
            for name, label in (
                ("node", "Concept"),
                ("level", "Level"),
                ("labeled", "Labeled"),
                ("threshold", "Rare at <="),
                ("state", "State"),
                ("pool", "In the pool"),
                ("picked", "Picked"),
            ):
                table.add_column(name, label=label)
            table.add_row_action("show", self.on_row, label="Show images", icon="visibility")
            panel.list("rows", types.Object(), view=table)
        return types.Property(panel, view=types.GridView(orientation="vertical", height=100, width=100, gap=1))

    def _read(self, ctx):
        """Count anew: the labels of now, the pool of now."""
        ctx.panel.state.node = None
        try:
            rows = gfo.coverage(ctx.dataset)
            ctx.panel.state.scoring = gfo.scoring_line(ctx.dataset)
        except ValueError as error:
            ctx.panel.state.problem, ctx.panel.state.nodes = str(error), []
            return
        ctx.panel.state.problem = None
        ctx.panel.state.nodes = [{"node": r["node"], "level": r["level"]} for r in rows]
        ctx.panel.state.top = max(r["labeled"] for r in rows)
        ctx.panel.data.rows = [{**r, "state": "rare" if r["rare"] else ""} for r in rows]
        ctx.panel.data.bars = _traces(rows)

    def _show(self, ctx, node):
        if node:
            ctx.panel.state.node = node
            ctx.ops.set_view(view=gfo.node_view(ctx.dataset, str(node)))


def _traces(rows):
    """Bars of what is labeled, and a dot at each one's end: what has no label yet has no bar to click."""
    traces = []
    for name, color, some in (
        ("rare", RARE, [r for r in rows if r["rare"]]),
        ("not rare", COMMON, [r for r in rows if not r["rare"]]),
    ):
        nodes = [r["node"] for r in some]
        both = {"y": nodes, "x": [r["labeled"] for r in some], "ids": nodes, "legendgroup": name}
        hover = [f"{r['labeled']} labeled, {r['pool']} images in the pool, {r['picked']} picked" for r in some]
        marker = {"color": color}
        traces.append(
            {"type": "bar", "orientation": "h", "marker": marker, "showlegend": False, "hoverinfo": "skip", **both}
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": name,
                "marker": {**marker, "size": 12},
                "text": [f"  {r['labeled']} labeled, {r['pool']} in the pool" for r in some],
                "textposition": "middle right",
                "cliponaxis": False,
                "customdata": hover,
                "hovertemplate": "%{y}: %{customdata}<extra></extra>",
                **both,
            }
        )
    return traces


def _layout(ctx):
    rows = ctx.panel.state.nodes or []
    nodes = [r["node"] for r in rows]
    top = max(1, ctx.panel.state.top or 0)
    return {
        "height": f"{120 + 24 * len(nodes)}px",
        "margin": {"l": 150, "r": 180, "t": 30, "b": 40},
        "xaxis": {"title": {"text": "labeled instances"}, "range": [-top / 30, top * 1.03], "dtick": -(-top // 8)},
        "yaxis": {
            "autorange": "reversed",
            "automargin": True,
            "categoryorder": "array",
            "categoryarray": nodes,
            "tickvals": nodes,
            "ticktext": [f"{r['level']}: {r['node']}" for r in rows],
        },
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }


PANELS = (ConceptCoverage,)
