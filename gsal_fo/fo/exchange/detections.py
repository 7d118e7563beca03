"""Shapes of label files as FiftyOne's detections: upright, cut at the image's edges, with all that a tool wrote.

A detection gets the box, the shape's attributes under the tool's own names (those of a Detection's own fields only
where the value is one; else with "_" behind), ``polygons`` (rings of [x, y] in shares of the image) where an outline
was drawn, and ``mask``: the mask that was painted, or the outline filled.
"""

import math
from collections import Counter
from typing import Any

import bson
import fiftyone as fo
import numpy as np
from PIL import Image, ImageDraw

from gsal_fo.fo.exchange.formats import Shape
from gsal_fo.fo.exchange.formats.geometry import Ring, enclosing
from gsal_fo.fo.exchange.formats.texts import Odd, short, whole
from gsal_fo.fo.exchange.frames import UPRIGHT, Frame, Size

THIN = 1e-6  # of the image's side: no image has a million pixels a side
FINE = 0.01  # pixels
SIDE = 1024  # most pixels a side of a filled outline: enough to see it
# A document of the database holds 16 MB, with all else of the image. Below these counts no image comes near it.
DOCUMENT, POINTS, PIXELS = 10_000_000, 50_000, 50_000_000
EDGE = 0.01  # of the image's side
DEEP = 8  # lists in lists of an attribute
NATIVE: dict[str, type] = {"confidence": float, "index": int, "tags": list}
OWN = frozenset(fo.Detection().field_names) | {"_cls", "_id", "polygons", "attributes"}


def detection(shape: Shape, frame: Frame, dropped: Counter[str]) -> fo.Detection:
    """The detection of a shape.

    Args:
        shape: as its file has it.
        frame: what its numbers are measured in.
        dropped: receives what a detection cannot hold.

    Raises:
        Odd: its box lies outside of the image, or has no area that the image resolves.
    """
    box = [float(v) / side for v, side in zip(shape.box, frame.size * 2, strict=True)]
    if reason := unusable(box, frame.pixels):
        raise Odd(f'"{short(shape.label)}": box {short([round(v, 6) for v in shape.box])} {reason}')
    rings = [[[x / frame.size[0], y / frame.size[1]] for x, y in ring] for ring in shape.polygons or []]
    mask = shape.mask
    if frame.turn != UPRIGHT:
        box, mask = _turned_box(box, frame.turn), _turned_mask(mask, frame)
        rings = [_turned(ring, frame.turn) for ring in rings]
    box = _cut(box)
    if mask is None and rings:
        mask = _filled(rings, box, frame)
    more: dict[str, Any] = _attributes(shape, frame, dropped)
    if mask is not None:
        more["mask"] = np.ascontiguousarray(mask)
    if rings:
        more["polygons"] = [[[round(x, 7), round(y, 7)] for x, y in ring] for ring in rings]
    out: fo.Detection = fo.Detection(label=shape.label, bounding_box=box, **more)
    return out


def reaches_out(shape: Shape, frame: Frame) -> bool:
    """Whether more of a box than rounding explains lies over the edge, where `detection` cuts it."""
    x, y, w, h = (v / side for v, side in zip(shape.box, frame.size * 2, strict=True))
    return min(x, y) < -EDGE or max(x + w, y + h) > 1 + EDGE


def fit(detections: list[fo.Detection], dropped: Counter[str]) -> None:
    """Make an image's detections fit into a document of the database: first without outlines, whose masks stay, then
    with masks of fewer pixels."""
    drawn = [d for d in detections if d.has_field("polygons")]
    masks = [d for d in detections if d.mask is not None]
    if sum(len(r) for d in drawn for r in d["polygons"]) <= POINTS and sum(d.mask.size for d in masks) <= PIXELS:
        return
    if _bytes(detections) > DOCUMENT and drawn:
        for d in drawn:
            d.clear_field("polygons")
        dropped["outlines, of which only the masks fit into the database"] += len(drawn)
    while masks and _bytes(detections) > DOCUMENT:
        for d in masks:
            d.mask = np.ascontiguousarray(d.mask[::2, ::2])
        dropped["details of masks too large for the database"] = len(masks)
        masks = [d for d in masks if max(d.mask.shape) > 1]


def _bytes(detections: list[fo.Detection]) -> int:
    return len(bson.encode(fo.Detections(detections=detections).to_dict()))


def unusable(box: Any, pixels: Size | None = None) -> str | None:
    """Why a box in shares of an image cannot be a label, or None; ``pixels`` are the image's width and height."""
    if not isinstance(box, list | tuple) or len(box) != 4:
        return "is not [x, y, width, height]"
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in box):
        return "has values that are no finite numbers"
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return "has no area"
    if x >= 1 or y >= 1 or x + w <= 0 or y + h <= 0:
        return "lies outside the image"
    sides = _cut(list(box))[2:]
    if min(sides) < THIN or (pixels and min(v * side for v, side in zip(sides, pixels, strict=True)) < FINE):
        return "has no area in the image: it is thinner than any pixel"
    return None


def _cut(box: list[float]) -> list[float]:
    left, top, right, bottom = (min(1.0, max(0.0, v)) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return [left, top, right - left, bottom - top]


def _turned(ring: Ring, turn: int) -> Ring:
    """Points of the raw image, in shares, in the upright one."""
    ways = {
        2: lambda x, y: [1 - x, y],
        3: lambda x, y: [1 - x, 1 - y],
        4: lambda x, y: [x, 1 - y],
        5: lambda x, y: [y, x],
        6: lambda x, y: [1 - y, x],
        7: lambda x, y: [1 - y, 1 - x],
        8: lambda x, y: [y, 1 - x],
    }
    return [ways[turn](x, y) for x, y in ring]


def _turned_box(box: list[float], turn: int) -> list[float]:
    x, y, w, h = box
    return enclosing([_turned([[x, y], [x + w, y + h]], turn)])


def _turned_mask(mask: np.ndarray | None, frame: Frame) -> np.ndarray | None:
    if mask is None:
        return None
    ways = {
        2: lambda m: m[:, ::-1],
        3: lambda m: m[::-1, ::-1],
        4: lambda m: m[::-1],
        5: lambda m: m.T,
        6: lambda m: np.rot90(m, -1),
        7: lambda m: m[::-1, ::-1].T,
        8: lambda m: np.rot90(m),
    }
    turned: np.ndarray = ways[frame.turn](mask)
    return turned


def _turned_angle(degrees: float, turn: int) -> float:
    """A clockwise angle of the raw image in the upright one; mirrored images turn the other way."""
    more = {3: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(turn, 0)
    return (degrees + more if turn in (3, 6, 8) else -(degrees + more)) % 360


def _filled(rings: list[Ring], box: list[float], frame: Frame) -> np.ndarray:
    """The outlines filled, as a mask stretched over ``box``; at most SIDE pixels a side, as many as the image has where
    they are known."""
    size = frame.pixels or (float(SIDE), float(SIDE))
    if frame.turn in (5, 6, 7, 8):
        size = (size[1], size[0])
    width, height = (max(1, min(SIDE, round(share * side))) for share, side in zip(box[2:], size, strict=True))
    picture = Image.new("1", (width, height))
    draw = ImageDraw.Draw(picture)
    for ring in rings:
        # A pixel's number is its center: half a pixel less than its place.
        points = [((x - box[0]) / box[2] * width - 0.5, (y - box[1]) / box[3] * height - 0.5) for x, y in ring]
        draw.polygon(points, fill=1)
    return np.asarray(picture, dtype=bool)


def _attributes(shape: Shape, frame: Frame, dropped: Counter[str]) -> dict[str, Any]:
    """The attributes under names, and with values, that the database takes."""
    out: dict[str, Any] = {}
    for name, value in shape.attributes.items():
        try:
            kept = _plain(value)
        except Odd:
            dropped[f"attribute {short(name, 30)}, which is no plain value"] += 1
            continue
        if name == "rotation" and frame.turn != UPRIGHT and isinstance(kept, int | float):
            kept = _turned_angle(kept, frame.turn)
        key = _key(str(name), kept)
        while key in out:
            key += "_"
        out[key] = kept
    return out


def _key(name: str, value: Any) -> str:
    """A name that is no field of a Detection, unless the value is one, and that MongoDB takes."""
    native = name in NATIVE and isinstance(value, NATIVE[name]) and not isinstance(value, bool)
    if native and (not isinstance(value, list) or all(isinstance(v, str) for v in value)):
        return name
    key = "".join("_" if c in ".$" or not c.isprintable() else c for c in whole(name)).strip().lstrip("_")
    return f"{key}_" if key in OWN or not key else key


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as the database holds it: huge whole numbers as text.

    Raises:
        Odd: no plain value, or text that is none.
    """
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)
    if isinstance(value, str):
        text = whole(value)
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise Odd("text that is none")
        return text
    if depth < DEEP and isinstance(value, list):
        return [_plain(v, depth + 1) for v in value]
    if depth < DEEP and isinstance(value, dict):
        return {_key(str(k), None): _plain(v, depth + 1) for k, v in value.items()}
    raise Odd("no plain value")
