"""A concept graph as a picture: families left, labels in the middle, attributes right, colored by labeled instances."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.pages import files
from gsal_fo.user_files import read_json, words

COLUMN = {"coarse": 0.0, "fine": 1.0, "abstract": 2.0}
ROW_PX = 24  # height of a label
MOST_LABELS = 10**12  # of one label: beyond, a count is no count
TITLES = {"coarse": "families", "fine": "labels", "abstract": "attributes"}


def positions(graph: ConceptGraph) -> dict[str, tuple[float, float]]:
    """Node -> (x, y): one column per level, y in [0, fine nodes - 1] growing downwards, no two nodes in one place.

    Labels stand by family, then by name; families beside the middle of their labels; attributes spread evenly in the
    order of their labels' mean height, which keeps crossings few. The graph alone decides, so pictures can be compared.
    """
    fine = sorted(graph.fine, key=lambda f: (graph.coarse_of(f), f))
    height = {f: float(i) for i, f in enumerate(fine)}
    out = {f: (COLUMN["fine"], y) for f, y in height.items()}
    for family in graph.coarse:
        mean = float(np.mean([height[f] for f in fine if graph.coarse_of(f) == family]))
        out[family] = (COLUMN["coarse"], mean)
    carriers = {a: float(np.mean([height[f] for f in fine if a in graph.abstract_of(f)])) for a in graph.abstract}
    spread = np.linspace(0, max(len(fine) - 1, len(carriers) - 1, 0), max(len(carriers), 1)).tolist()
    for y, name in zip(spread, sorted(carriers, key=lambda a: (carriers[a], a)), strict=False):
        out[name] = (COLUMN["abstract"], y)
    return out


def figure(graph: ConceptGraph, counts: Mapping[str, int] | None = None) -> Any:
    """A Plotly figure; ``counts`` are labeled instances per label (coverage by color), None draws the graph alone."""
    import plotly.graph_objects as go

    place = positions(graph)
    coverage = graph.coverage(counts or {})
    lines: tuple[list[float | None], list[float | None]] = ([], [])
    for a, b in sorted(graph.graph.edges):
        for axis, values in enumerate(lines):
            values += [place[a][axis], place[b][axis], None]
    fig = go.Figure(go.Scatter(x=lines[0], y=lines[1], mode="lines", line={"color": "#e3e6ea"}, hoverinfo="skip"))
    nodes = sorted(place)
    color: Any = "#4c6ef5"
    if counts is not None:
        color = [float(np.log10(1 + coverage[v])) for v in nodes]
    ticks = [n for n in (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000) if n <= max(coverage.values(), default=0)]
    bar = {"title": "labeled", "tickvals": [float(np.log10(1 + n)) for n in ticks], "ticktext": [str(n) for n in ticks]}
    count_of = {v: f", {coverage[v]} labeled" if counts is not None else "" for v in nodes}
    fig.add_scatter(
        x=[place[v][0] for v in nodes],
        y=[place[v][1] for v in nodes],
        mode="markers+text",
        text=[v.replace("<", "&lt;") for v in nodes],
        ids=nodes,
        hovertext=[f"{v}{count_of[v]}".replace("<", "&lt;") for v in nodes],
        hoverinfo="text",
        textposition=["middle left" if place[v][0] == COLUMN["coarse"] else "middle right" for v in nodes],
        marker={
            "size": 13,
            "color": color,
            "colorscale": "Viridis",
            "showscale": counts is not None,
            "colorbar": bar,
            "line": {"width": 1, "color": "white"},
        },
    )
    deepest = max(y for _, y in place.values())
    for level, x in COLUMN.items():
        fig.add_annotation(x=x, y=-1, text=f"<b>{TITLES[level]}</b>", showarrow=False)
    fig.update_layout(
        title=graph.name.replace("<", "&lt;"),
        showlegend=False,
        plot_bgcolor="white",
        height=int(160 + ROW_PX * (deepest + 2)),
        xaxis={"visible": False, "range": [-0.6, 2.7]},
        yaxis={"visible": False, "range": [deepest + 1, -1.6]},
    )
    return fig


def write(graph: ConceptGraph, out: Path, counts: Mapping[str, int] | None = None, *, force: bool = False) -> Path:
    """Write the picture as one HTML file that needs no network; raises ValueError as ``files.write_new``."""
    text = figure(graph, counts).to_html(include_plotlyjs=True, full_html=True)
    return files.write_new(out, f"{text}\n", force=force)


def read_counts(path: Path) -> dict[str, int]:
    """Labeled instances per label from a COCO file, or from a JSON object {label: count}.

    Raises ValueError naming the file where it is neither.
    """
    expected = "expected a COCO file with categories and annotations, or an object {label: count}"
    values = read_json(path, "label counts")
    if isinstance(values, dict) and {"categories", "annotations"} <= set(values):
        try:
            names = {c["id"]: str(c["name"]) for c in values["categories"]}
            out = dict.fromkeys(names.values(), 0)
            for annotation in values["annotations"]:
                out[names[annotation["category_id"]]] += 1
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: {expected}; an entry lacks {words(error)} or is no object") from error
        return out
    if isinstance(values, dict) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MOST_LABELS for n in values.values()
    ):
        return values
    raise ValueError(f"{path}: {expected}; got {type(values).__name__} with other values")
