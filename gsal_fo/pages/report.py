"""One self-contained page about a few rounds: what was found, coverage, and every picked image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from gsal_fo.images import ImageError, open_upright
from gsal_fo.pages import files
from gsal_fo.pages.graph_page import TITLES
from gsal_fo.pages.pictures import CROP, SIDE, cut, inline, rect

COLORS = {"gsal": "#2f5bea", "entropy": "#e8912d", "random": "#9aa3b2"}
NAMES = {"gsal": "GSAL", "entropy": "detector entropy", "random": "random (mean of draws)"}


@dataclass(frozen=True)
class PickedImage:
    """One card of the gallery: ``proposals`` and ``labels`` (truth, revealed after the pick) are (``xywh_rel`` box,
    text), ``decisive`` is a row of ``proposals``, ``rare`` tells whether one of ``labels`` is a rare class."""

    filepath: Path
    rank: int
    rationale: str
    proposals: Sequence[tuple[Sequence[float], str]]
    decisive: int
    labels: Sequence[tuple[Sequence[float], str]]
    rare: bool


@dataclass(frozen=True)
class RoundPage:
    """A round: its picks, and per pool image (difficulty, rarity, picked, holds a rare class) for the scatter plot."""

    number: int
    picks: Sequence[PickedImage]
    difficulty: np.ndarray
    rarity: np.ndarray
    picked: np.ndarray
    rare: np.ndarray


def write_report(
    path: Path, summary: Mapping[str, Any], rounds: Sequence[RoundPage], levels: Mapping[str, str]
) -> None:
    """Write the page to ``path``, as ``files.write_new``. ``summary``: the demo's summary.json; ``levels``: the level
    of each concept node."""
    sections = [
        _headline(summary),
        _section("Rare defects found", _found(summary), FOUND_NOTE),
        _section("Labels per concept, before and after", _coverage(summary, levels), COVERAGE_NOTE),
    ]
    for page in rounds:
        scatter = _section(f"Round {page.number}: where the picks stand", _scatter(page), SCATTER_NOTE)
        cards = "".join(_card(pick) for pick in page.picks)
        title = f'<h2>Round {page.number}: the picked images</h2><p class="note">{GALLERY_NOTE}</p>'
        sections += [scatter, f'{title}<div class="gallery">{cards}</div>']
    sections.append(_section("Seconds per stage", _seconds(summary), ""))
    body = "\n".join(sections)
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>GSAL demo</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head>
<body><main>{body}</main></body></html>
"""
    files.write_new(path, text)


FOUND_NOTE = (
    "Instances of the rare classes in the images picked so far, each strategy at the same budget and on its own way: "
    "entropy retrains on what entropy picked. The bar of random shows the 5 % to 95 % range of its draws."
)
COVERAGE_NOTE = "Labeled boxes per node of the concept graph; a family or an attribute sums its labels."
SCATTER_NOTE = (
    "Each dot is an unlabeled image: difficulty (diffusion) to the right, rarity (concepts) upward, both in standard "
    "deviations. Diamonds hold a rare defect, which the method could not know; filled dots were picked."
)
GALLERY_NOTE = (
    "Orange: the decisive proposal, its crop beside the reason. White: other proposals. "
    "Green, dashed: the true defects, which only the labeler saw."
)


def _headline(summary: Mapping[str, Any]) -> str:
    total, rare = summary["totals"], summary["rare"]
    found = total["rare_instances"]
    cards = [
        (f"{found['gsal']} of {rare['instances']}", "rare defects found by GSAL"),
        (f"{found['entropy']}", "by detector entropy"),
        (f"{found['random']:.1f}", f"by random, mean of {summary['random_draws']} draws"),
        (f"{total['rare_classes']['gsal']} of {len(rare['classes'])}", "rare classes seen"),
        (f"{total['labeled_images']}", f"images labeled of {summary['pool']['images']}"),
        (f"{summary['seconds']['total']:.0f} s", "from pool to results"),
    ]
    tiles = "".join(f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in cards)
    names = " and ".join(escape(c.replace("_", " ")) for c in rare["classes"])
    return (
        f"<header><h1>What to label next</h1><p>{summary['pool']['images']} synthetic CT slices of a layered film, "
        f"{summary['labeled']} of them labeled at the start. Two faint defects, {names}, are in at most 2 % of the "
        f"images each. Every round picks {summary['budget']} images, labeled from the ground truth.</p></header>"
        f'<div class="tiles">{tiles}</div>'
    )


def _section(title: str, figure: go.Figure, note: str) -> str:
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 50, "r": 20, "t": 10, "b": 40},
        legend={"orientation": "h", "y": 1.12},
    )
    plot = figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})
    return f'<section><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{plot}</section>'


def _found(summary: Mapping[str, Any]) -> go.Figure:
    figure = go.Figure()
    names = [f"after round {r['round']}" for r in summary["rounds"]]
    for strategy, color in COLORS.items():
        values = [r["rare_instances_so_far"][strategy] for r in summary["rounds"]]
        bar = go.Bar(name=NAMES[strategy], x=names, y=values, marker_color=color, text=[f"{v:.3g}" for v in values])
        bar.update(textposition="inside", insidetextanchor="start")
        if strategy == "random":
            low, high = zip(*(r["random_range"] for r in summary["rounds"]), strict=True)
            up, down = np.subtract(high, values), np.subtract(values, low)
            bar.error_y = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": "#4b5563"}
        figure.add_trace(bar)
    figure.update_layout(barmode="group", height=320, yaxis_title="rare instances")
    return figure


def _coverage(summary: Mapping[str, Any], levels: Mapping[str, str]) -> go.Figure:
    order = {"fine": 0, "coarse": 1, "abstract": 2}
    nodes = sorted(levels, key=lambda n: (order[levels[n]], n))
    steps = [("at the start", summary["coverage"]["start"], "#c3cbd9")]
    shades = ("#88a2f5", COLORS["gsal"], "#1d3a9e")
    steps += [(f"after round {r['round']}", r["coverage"], shades[i % 3]) for i, r in enumerate(summary["rounds"])]
    axis = [[TITLES[levels[n]] for n in nodes], [n.replace("_", " ") for n in nodes]]
    bars = [go.Bar(name=name, x=axis, y=[counts[n] for n in nodes], marker_color=c) for name, counts, c in steps]
    return go.Figure(bars).update_layout(barmode="group", height=360, yaxis_title="labeled boxes")


def _scatter(page: RoundPage) -> go.Figure:
    figure = go.Figure()
    for rare, symbol, name in ((False, "circle", "other image"), (True, "diamond", "holds a rare defect")):
        for picked in (False, True):
            rows = (page.rare == rare) & (page.picked == picked)
            marker: dict[str, Any] = {
                "symbol": symbol,
                "size": 11 if rare else 7,
                "color": COLORS["gsal"] if picked else "#c3cbd9",
            }
            if rare:
                marker["line"] = {"width": 1.5, "color": "#b91c1c"}
            figure.add_trace(
                go.Scatter(
                    x=page.difficulty[rows],
                    y=page.rarity[rows],
                    mode="markers",
                    marker=marker,
                    name=name + (", picked" if picked else ""),
                )
            )
    return figure.update_layout(height=420, xaxis_title="difficulty (sd)", yaxis_title="rarity (sd)")


def _seconds(summary: Mapping[str, Any]) -> go.Figure:
    stages = {k: v for k, v in summary["seconds"].items() if k != "total"}
    bar = go.Bar(x=list(stages.values()), y=list(stages), orientation="h", marker_color=COLORS["gsal"])
    figure = go.Figure(bar).update_layout(height=60 + 26 * len(stages), xaxis_title="seconds")
    return figure.update_yaxes(autorange="reversed", automargin=True)


def _card(pick: PickedImage) -> str:
    try:
        image = open_upright(pick.filepath)
    except ImageError as error:
        return f"<article><p>{escape(str(error))}</p></article>"
    boxes = [rect(b, "decisive" if i == pick.decisive else "proposal", t) for i, (b, t) in enumerate(pick.proposals)]
    boxes += [rect(b, "truth", f"truth: {t}") for b, t in pick.labels]
    crop = ""
    if pick.proposals:
        crop = (
            f'<img class="crop" alt="decisive crop" src="{inline(cut(image, pick.proposals[pick.decisive][0]), CROP)}">'
        )
    labels = ", ".join(sorted({t.replace("_", " ") for _, t in pick.labels})) or "nothing"
    badge = '<i class="rare">rare</i>' if pick.rare else ""
    return (
        f'<article><div class="picture"><img alt="picked image {pick.rank}" src="{inline(image, SIDE)}">'
        f'<svg viewBox="0 0 1 1" preserveAspectRatio="none">{"".join(boxes)}</svg></div>'
        f"<p>{crop}{escape(pick.rationale)}</p><footer>the labeler saw: {escape(labels)} {badge}</footer></article>"
    )


STYLE = """
body{margin:0;background:#f5f7fb;color:#1f2937;font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:30px;margin:0 0 6px}h2{font-size:19px;margin:0 0 4px}
header p{max-width:780px;margin:0 0 20px;color:#4b5563}
.note{margin:0 0 6px;color:#6b7280;font-size:13.5px;max-width:860px}
section{background:#fff;border:1px solid #e5e9f2;border-radius:12px;padding:18px 20px;margin:0 0 20px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0 0 20px}
.tile{background:#fff;border:1px solid #e5e9f2;border-radius:12px;padding:14px 16px}
.tile b{display:block;font-size:25px;color:#2f5bea}.tile span{color:#6b7280;font-size:13px}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:14px;margin:10px 0 26px}
article{background:#fff;border:1px solid #e5e9f2;border-radius:12px;overflow:hidden;display:flex;flex-direction:column}
.picture{position:relative;line-height:0}.picture>img:first-child{width:100%}
.picture svg{position:absolute;inset:0;width:100%;height:100%}
.crop{float:right;margin:2px 0 4px 10px;max-width:84px;max-height:84px;border:2px solid #e8912d;border-radius:4px}
rect{fill:transparent;vector-effect:non-scaling-stroke;stroke-width:1px;stroke:#ffffff99}
rect.decisive{stroke:#e8912d;stroke-width:2.5px}rect.truth{stroke:#22c55e;stroke-width:1.5px;stroke-dasharray:4 3}
article p{margin:10px 12px 4px;font-size:13px}article footer{margin:auto 12px 10px;color:#6b7280;font-size:12.5px}
.rare{background:#fde8e8;color:#b91c1c;border-radius:6px;padding:1px 7px;font-style:normal;font-weight:600}
"""
