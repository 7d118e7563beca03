"""The panels' plots as plain Plotly dictionaries, readable on the App's dark and light backgrounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.pages.graph_page import TITLES, positions

RARE, COMMON, QUIET = "#f08c5a", "#499cef", "rgba(140,140,150,0.35)"
SETS = {"labeled": "#9aa0aa", "pool": "#499cef", "picks": "#f08c5a"}
LINES = ("#f08c5a", "#499cef", "#6fbf73", "#c792ea", "#e5c453", "#4fc1c9", "#e57fa4", "#a1887f")
ROW_PX = 30  # height that a node with its label needs
SMALLEST, LARGEST = 10, 34  # pixels of a node
CHAR_PX, NUMBER = 6.6, 4  # width of a letter beside a node, and the letters that a count and its space need
EDGE_PX = 50  # shortest line between a family and a label
FONT = {"size": 12, "color": "#9a9ca3"}  # reads on white as on the App's dark gray
# Above the plot, in as many rows as it needs. The App's own default is none.
LEGEND: dict[str, Any] = {
    "showlegend": True,
    "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
}
PLAIN = {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": FONT}


def concept_graph(graph: ConceptGraph, rows: Sequence[Mapping[str, Any]], chosen: str | None) -> list[dict[str, Any]]:
    """The three-level graph: a node's area is its share of the pool's images, its color how much of it is labeled.

    ``rows``: those of ``gsal_fo.fo.coverage``. Color runs within a level from none labeled to its most labeled node:
    levels differ by their sums. Rare nodes have a ring and a bold name.

    Always three traces, the lines, those at the chosen node, and the nodes, and the nodes always in one order: the App
    redraws a plot trace by trace and dot by dot, and a click names a dot by its place.
    """
    rows = sorted(rows, key=lambda r: str(r["node"]))
    place = {v: (_columns(graph)[graph.level(v)], y) for v, (_, y) in positions(graph).items()}
    lines: dict[bool, tuple[list[float | None], list[float | None]]] = {False: ([None], [None]), True: ([None], [None])}
    for a, b in sorted(graph.graph.edges):
        for axis, values in enumerate(lines[chosen in (a, b)]):
            values += [place[a][axis], place[b][axis], None]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "lines of the chosen" if near else "lines",
            "x": x,
            "y": y,
            "hoverinfo": "skip",
            "line": {"color": COMMON if near else QUIET, "width": 2 if near else 1},
        }
        for near, (x, y) in lines.items()
    ]
    top = max((r["pool"] for r in rows), default=0) or 1
    most = {level: max(r["labeled"] for r in rows if r["level"] == level) or 1 for level in {r["level"] for r in rows}}
    nodes = [r["node"] for r in rows]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "concepts",
            "ids": nodes,
            "x": [place[v][0] for v in nodes],
            "y": [place[v][1] for v in nodes],
            "text": [_name(r, r["node"] == chosen) for r in rows],
            "textposition": ["middle left" if r["level"] == "coarse" else "middle right" for r in rows],
            "textfont": {"color": [RARE if r["rare"] else "#b5b8bf" for r in rows], "size": 12},
            "hovertext": [_hover(r) for r in rows],
            "hovertemplate": "%{hovertext}<extra></extra>",
            "cliponaxis": False,
            "marker": {
                "size": [SMALLEST + (LARGEST - SMALLEST) * float(np.sqrt(r["pool"] / top)) for r in rows],
                "color": [r["labeled"] / most[r["level"]] for r in rows],
                "cmin": 0,
                "cmax": 1,
                "colorscale": [[0, "#3b2f4a"], [0.15, "#5b4b8a"], [0.5, "#3f87b5"], [1, "#7ee0a8"]],
                "opacity": 1,
                "line": {
                    "width": [4 if r["node"] == chosen else 3 if r["rare"] else 1 for r in rows],
                    "color": ["#ffffff" if r["node"] == chosen else RARE if r["rare"] else "#8d9099" for r in rows],
                },
            },
        }
    )
    return traces


def graph_layout(graph: ConceptGraph) -> dict[str, Any]:
    """Layout for ``concept_graph``; positions depend on the graph alone, so nothing moves from round to round."""
    deepest, columns = max(y for _, y in positions(graph).values()), _columns(graph)
    titles = [
        {
            "x": x,
            "y": -0.9,
            "text": f"<b>{TITLES[level]}</b>",
            "showarrow": False,
            "xanchor": {"coarse": "right", "fine": "left", "abstract": "left"}[level],
        }
        for level, x in columns.items()
        if level != "abstract" or graph.abstract
    ]
    return {
        **PLAIN,
        "height": int(90 + ROW_PX * (deepest + 1.5)),
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "showlegend": False,
        "hovermode": "closest",
        "annotations": titles,
        "xaxis": {"visible": False, "range": _ends(graph), "fixedrange": True},
        "yaxis": {"visible": False, "range": [deepest + 0.8, -1.4], "fixedrange": True},
        "uirevision": "graph",
    }


def _columns(graph: ConceptGraph) -> dict[str, float]:
    """Level -> x, in pixels of the narrowest panel that shows every name whole; a wider one stretches it."""
    labels = LARGEST + EDGE_PX
    return {"coarse": 0.0, "fine": labels, "abstract": labels + _text_px(graph.fine) + LARGEST / 2}


def _ends(graph: ConceptGraph) -> list[float]:
    """Left and right end of x: families have their names on the left, attributes on the right."""
    return [-_text_px(graph.coarse), _columns(graph)["abstract"] + _text_px([*graph.abstract, TITLES["abstract"]])]


def _text_px(names: Sequence[str]) -> float:
    """From the middle of a node to the end of the longest name and its count."""
    return LARGEST / 2 + CHAR_PX * (max(map(len, names)) + NUMBER)


def rounds(history: Sequence[tuple[str, Mapping[str, int]]], nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Labeled instances of ``nodes`` over the rounds: ``history`` is (name of the moment, counts) in order."""
    moments = [name for name, _ in history]
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": node,
            "x": moments,
            "y": [counts.get(node) for _, counts in history],
            "line": {"color": LINES[i % len(LINES)], "width": 2},
            "hovertemplate": "%{y} labeled<extra>%{fullData.name}</extra>",
        }
        for i, node in enumerate(nodes)
    ]


def rounds_layout() -> dict[str, Any]:
    """Layout for ``rounds``."""
    grid = {"gridcolor": "rgba(140,140,150,0.2)", "zeroline": False}
    return {
        **PLAIN,
        "height": 300,
        "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
        **LEGEND,
        "xaxis": {**grid, "type": "category"},
        "yaxis": {**grid, "title": {"text": "labeled instances"}, "rangemode": "tozero"},
    }


def shares(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Bars of ``preview.mix``: what share of the boxes each concept has among the labeled, the pool and the picks."""
    names = [r["node"] for r in rows]
    return [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": names,
            "x": [r[name] for r in rows],
            "marker": {"color": color},
            "hovertemplate": "%{x:.0%} of the boxes<extra>" + name + "</extra>",
        }
        for name, color in reversed(SETS.items())  # Plotly stacks groups from below
    ]


def shares_layout(count: int) -> dict[str, Any]:
    """Layout for ``shares`` of ``count`` concepts."""
    return {
        **PLAIN,
        "height": 90 + 40 * max(count, 1),
        "margin": {"l": 10, "r": 20, "t": 10, "b": 30},
        "barmode": "group",
        "bargap": 0.3,
        "xaxis": {"tickformat": ".0%", "gridcolor": "rgba(140,140,150,0.2)", "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        **LEGEND,
        "legend": {**LEGEND["legend"], "traceorder": "reversed"},
    }


def _name(row: Mapping[str, Any], chosen: bool) -> str:
    text = f"{_plain(row['node'])}  {row['labeled']}"
    return f"<b>{text}</b>" if row["rare"] or chosen else text


def _hover(row: Mapping[str, Any]) -> str:
    rare = f"rare: at or below {row['threshold']}" if row["rare"] else f"not rare: above {row['threshold']}"
    return (
        f"<b>{_plain(row['node'])}</b> ({row['level']})<br>{row['labeled']} labeled instances, {rare}"
        f"<br>{row['pool']} images of the pool look like it, {row['picked']} picked"
    )


def _plain(text: str) -> str:
    """A label as text: Plotly reads tags in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def waterfall(terms: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """A score as it adds up from ``terms.terms``: right is harder or rarer than the pool's mean."""
    total = sum(value for _, value in terms)
    names, values = [name for name, _ in terms], [value for _, value in terms]
    return [
        {
            "type": "waterfall",
            "orientation": "h",
            "y": [*names, "<b>score</b>"],
            "x": [*values, total],
            "measure": ["relative"] * len(terms) + ["total"],
            "text": [f"{v:+.2f}" for v in (*values, total)],
            "textposition": "outside",
            "cliponaxis": False,
            "connector": {"line": {"color": QUIET}},
            "increasing": {"marker": {"color": RARE}},
            "decreasing": {"marker": {"color": COMMON}},
            "totals": {"marker": {"color": "#9aa0aa"}},
            "hoverinfo": "skip",
        }
    ]


def waterfall_layout(terms: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Layout for ``waterfall``: room for the numbers on both sides, and 0 always in sight."""
    ends = np.cumsum([0.0, *(value for _, value in terms)])
    low, high = float(ends.min()), float(ends.max())
    room = 0.2 * max(high - low, 0.5)
    return {
        **PLAIN,
        "height": 70 + 34 * (len(terms) + 1),
        "margin": {"l": 10, "r": 20, "t": 10, "b": 30},
        "showlegend": False,
        "xaxis": {
            "range": [low - room, high + room],
            "zeroline": True,
            "zerolinecolor": "#9aa0aa",
            "gridcolor": "rgba(140,140,150,0.2)",
            "title": {"text": "standard deviations"},
        },
        "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
    }
