"""A proposal's crop beside the same piece of the error map, as small pictures inside a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from gsal_fo.pages.pictures import cut, inline

SIDE = 120  # pixels of a crop's longer side
COLUMNS = 5
GAP = 0.06  # of a cell
CELL_PX = 150  # height of a cell with a square crop
CAPTION = 0.6  # of a cell: three lines
WIDEST = 1.4  # a column's width over the height of its cell, on a wide panel


def colored(gray: np.ndarray) -> Image.Image:
    """A gray map (h, w) uint8 in Plotly's Inferno colors: black is usual, yellow is where the model struggles most."""
    from plotly.colors import sequential

    anchors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in sequential.Inferno], dtype=np.float64)
    at = np.linspace(0, 255, len(anchors))
    table = np.stack([np.interp(np.arange(256), at, anchors[:, c]) for c in range(3)], axis=1)
    return Image.fromarray(table[gray].astype(np.uint8))


@dataclass(frozen=True)
class Pair:
    """Data URLs of a crop and of its piece of the map (None: there is no map); ``tall``: height over width."""

    crop: str
    map: str | None
    tall: float


def pair(image: Image.Image, heat: Image.Image | None, box: Sequence[float]) -> Pair:
    """The crop of a box ``xywh_rel`` and of the map."""
    crop = cut(image, box)
    return Pair(
        inline(crop, SIDE), inline(cut(heat, box), SIDE) if heat is not None else None, crop.height / crop.width
    )


def figure(pairs: Sequence[Pair], captions: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces and layout of a sheet: crops in rows of five, each above its map and its caption.

    A row is as high as its tallest crop needs, a square at most.
    """
    images, notes, top = [], [], 0.0
    for start in range(0, len(pairs), COLUMNS):
        row, said = pairs[start : start + COLUMNS], captions[start : start + COLUMNS]
        side = min(1.0, GAP + WIDEST * max(p.tall for p in row))
        below = top + side * (2 if any(p.map for p in row) else 1)
        for x, (found, caption) in enumerate(zip(row, said, strict=True)):
            for place, source in enumerate((found.crop, found.map)):
                if source:
                    images.append(
                        {
                            "source": source,
                            "xref": "x",
                            "yref": "y",
                            "x": x + GAP / 2,
                            "y": top + place * side,
                            "sizex": 1 - GAP,
                            "sizey": side - GAP,
                            "xanchor": "left",
                            "yanchor": "top",
                            "sizing": "contain",
                        }
                    )
            note = {"x": x + 0.5, "y": below, "text": caption, "showarrow": False, "yanchor": "top", "align": "center"}
            notes.append(note)
        top = below + CAPTION
    layout = {
        "height": round(top * CELL_PX) + 10,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "images": images,
        "annotations": notes,
        "xaxis": {"visible": False, "range": [0, COLUMNS], "fixedrange": True},
        "yaxis": {"visible": False, "range": [top, 0], "fixedrange": True},
    }
    return [
        {"type": "scatter", "x": [0], "y": [0], "mode": "markers", "marker": {"opacity": 0}, "hoverinfo": "skip"}
    ], layout
