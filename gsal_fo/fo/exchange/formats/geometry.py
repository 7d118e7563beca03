"""Outlines and masks of label files: enclosing boxes, turned boxes, ellipses, run lengths."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gsal_fo.fo.exchange.formats.texts import Odd, number, short

Ring = list[list[float]]
PIXELS = 1 << 28  # of a mask's image: 16,000 x 16,000, one byte each while it is read
STEPS = 72  # corners of an ellipse's outline


def enclosing(rings: Sequence[Ring]) -> list[float]:
    """The smallest upright [x, y, width, height] around all points."""
    xs, ys = ([p[k] for ring in rings for p in ring] for k in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def pairs(values: Sequence[Any]) -> Ring:
    """x, y, x, y, ... as points.

    Raises:
        Odd: fewer than three points, an odd count, or something that is no number.
    """
    if len(values) < 6 or len(values) % 2:
        raise Odd(f"an outline of {len(values)} numbers; three points or more are x, y, x, y, ...")
    flat = [number(v) for v in values]
    return [[flat[k], flat[k + 1]] for k in range(0, len(flat), 2)]


def turned(box: Sequence[float], degrees: float, pivot: tuple[float, float] | None = None) -> Ring:
    """The four corners of ``box`` turned clockwise (y points down) around ``pivot``, None: its center.

    Sides must be in one unit (pixels): shares of an image that is no square would be sheared.
    """
    x, y, w, h = box
    px, py = pivot or (x + w / 2, y + h / 2)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h))
    return [[px + (a - px) * c - (b - py) * s, py + (a - px) * s + (b - py) * c] for a, b in corners]


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float) -> tuple[list[float], Ring]:
    """The exact enclosing box and the outline of an ellipse turned clockwise around its center."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    width, height = 2 * math.hypot(rx * c, ry * s), 2 * math.hypot(rx * s, ry * c)
    angles = np.arange(STEPS) * 2 * math.pi / STEPS
    u, v = rx * np.cos(angles), ry * np.sin(angles)
    ring = np.stack([cx + u * c - v * s, cy + u * s + v * c], axis=1).tolist()
    return [cx - width / 2, cy - height / 2, width, height], ring


def coco_runs(counts: Any) -> list[int]:
    """Run lengths of a COCO mask, from a list or from its compressed text.

    Source: rleFrString of the COCO API (cocoapi/common/maskApi.c): 5 bits and a sign per letter, differences from the
    third run on.
    """
    if isinstance(counts, list):
        return [_run(v) for v in counts]
    if not isinstance(counts, str):
        raise Odd(f"a mask whose counts are {short(counts)}")
    runs: list[int] = []
    at = 0
    while at < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(counts) or not 0 <= (code := ord(counts[at]) - 48) < 64 or shift > 60:
                raise Odd("a mask whose compressed counts are broken")
            value |= (code & 31) << shift
            more = bool(code & 32)
            at, shift = at + 1, shift + 5
            if not more and code & 16:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            raise Odd("a mask whose compressed counts are broken")
    return runs


def _run(value: Any) -> int:
    length = number(value, "a mask's run of")
    if length < 0 or length != int(length):
        raise Odd(f"a mask's run of {short(value)} pixels")
    return int(length)


def from_runs(runs: Sequence[Any], width: int, height: int, *, by_column: bool = False) -> np.ndarray:
    """Mask (height, width) bool from alternating runs, the first of background.

    Raises:
        Odd: too large, or the runs do not fill it.
    """
    lengths = [_run(v) for v in runs]
    if width < 1 or height < 1 or width * height > PIXELS:
        raise Odd(f"a mask of {width} x {height} pixels")
    if sum(lengths) != width * height:
        raise Odd(f"a mask whose runs cover {sum(lengths)} of {width} x {height} pixels")
    values = np.arange(len(lengths)) % 2 == 1
    flat = np.repeat(values, lengths)
    return flat.reshape(width, height).T if by_column else flat.reshape(height, width)


def cut_out(mask: np.ndarray) -> tuple[list[float], np.ndarray]:
    """The enclosing box of a mask's pixels, and the mask inside of it; raises Odd where it has none."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        raise Odd("a mask without any pixel")
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return [float(left), float(top), float(right - left), float(bottom - top)], mask[top:bottom, left:right]


def brush_runs(packed: Sequence[Any], width: int, height: int) -> np.ndarray:
    """Mask (height, width) bool of Label Studio's brush: a packed RGBA picture whose alpha is the mask.

    Source: the format of @thi.ng/rle-pack, as Label Studio's own converter reads it: 32 bits of count, 5 of word size,
    four sizes of 4 bits, then runs (a flag, which size, the length - 1, one word) and copies.
    """
    if width < 1 or height < 1 or width * height > PIXELS // 4:
        raise Odd(f"a mask of {width} x {height} pixels")
    try:
        data = bytes(packed)
    except (TypeError, ValueError):
        raise Odd("a brush whose rle is no list of bytes") from None
    bits = _Bits(data)
    count, word = bits.take(32), bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    if count != 4 * width * height:
        raise Odd(f"a brush of {count} values for an image of {width} x {height} pixels")
    out = np.zeros(count, dtype=np.uint8)
    at = 0
    while at < count:
        run = bits.take(1)
        end = min(at + 1 + bits.take(sizes[bits.take(2)]), count)
        if run:
            out[at:end] = bits.take(word) & 255
        else:
            for k in range(at, end):
                out[k] = bits.take(word) & 255
        at = end
    return out.reshape(height, width, 4)[..., 3] > 0


class _Bits:
    """Bits of bytes, first bit first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> int:
        """The next ``count`` bits as a number; raises Odd at the end."""
        end = self.at + count
        if end > 8 * len(self.data):
            raise Odd("a brush whose rle ends early")
        first, last = self.at // 8, -(-end // 8)
        value = int.from_bytes(self.data[first:last]) >> (8 * last - end)
        self.at = end
        return value & ((1 << count) - 1)


def window(mask: np.ndarray, box: Sequence[float]) -> np.ndarray | None:
    """The part of an image's mask inside of a pixel box; None where no pixel of it is there."""
    height, width = mask.shape
    x, y, w, h = box
    left, top = max(0, min(round(x), width)), max(0, min(round(y), height))
    part = mask[top : max(top + 1, round(y + h)), left : max(left + 1, round(x + w))]
    return part if part.any() else None
