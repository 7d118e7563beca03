"""A proposal's crop beside the same piece of the error map, as small pictures inside a plot."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from gsal_fo.pictures import cut, inline

SIDE = 120  # pixels of a crop's longer side
COLUMNS = 5
GAP = 0.06  # of a cell


def as_rgb(file: Image.Image) -> Image.Image:
    """Eight bits a channel: 16-bit and float images are stretched between their extremes."""
    if file.mode.startswith(("I", "F")):
        values = np.asarray(file, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)).convert("RGB")
    return file.convert("RGB")


def colored(gray: np.ndarray) -> Image.Image:
    """A gray map (h, w) uint8 in Plotly's Inferno colors: black is usual, yellow is where the model struggles most."""
    from plotly.colors import sequential

    anchors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in sequential.Inferno], dtype=np.float64)
    at = np.linspace(0, 255, len(anchors))
    table = np.stack([np.interp(np.arange(256), at, anchors[:, c]) for c in range(3)], axis=1)
    return Image.fromarray(table[gray].astype(np.uint8))


def pair(image: Image.Image, heat: Image.Image | None, box: Sequence[float]) -> dict[str, str | None]:
    """The crop of a box ``xywh_rel`` and of the map, as data URLs."""
    return {"crop": inline(cut(image, box), SIDE), "map": inline(cut(heat, box), SIDE) if heat is not None else None}


def figure(
    pairs: Sequence[dict[str, str | None]], captions: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces and layout of a sheet: crops in rows of five, each above its map and its caption."""
    rows = -(-len(pairs) // COLUMNS)
    images, notes = [], []
    for k, (found, caption) in enumerate(zip(pairs, captions, strict=True)):
        x, y = k % COLUMNS, k // COLUMNS
        for place, name in enumerate(("crop", "map")):
            if source := found[name]:
                images.append(
                    {
                        "source": source,
                        "xref": "x",
                        "yref": "y",
                        "x": x + GAP / 2,
                        "y": y * 2.6 + place,
                        "sizex": 1 - GAP,
                        "sizey": 1 - GAP,
                        "xanchor": "left",
                        "yanchor": "top",
                        "sizing": "contain",
                    }
                )
        notes.append(
            {
                "x": x + 0.5,
                "y": y * 2.6 + (2.0 if found["map"] else 1.0),
                "text": caption,
                "showarrow": False,
                "yanchor": "top",
                "align": "center",
            }
        )
    layout = {
        "height": rows * 400 + 10,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "images": images,
        "annotations": notes,
        "xaxis": {"visible": False, "range": [0, COLUMNS], "fixedrange": True},
        "yaxis": {"visible": False, "range": [rows * 2.6, 0], "fixedrange": True},
    }
    return [
        {"type": "scatter", "x": [0], "y": [0], "mode": "markers", "marker": {"opacity": 0}, "hoverinfo": "skip"}
    ], layout
