"""Synthetic thin-film CT slices with ground truth: layered film, scanner artefacts, defects, harmless textures.

Two of the six classes, ``RARE``, are faint and each in at most 2 % of a pool's images; the textures are conspicuous,
fairly common, and no defects: a ranking by difficulty alone falls for them. Lengths below are in pixels of a 256 px
slice and scale with ``size``.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

COMMON = {"void": 0.38, "inclusion": 0.30, "drill_hole": 0.18, "petal": 0.14}  # class -> share of the common defects
RARE = ("delamination", "hairline_crack")
CLASSES = tuple(sorted((*COMMON, *RARE)))
TEXTURES = ("fiducial_grid", "grain_band", "mottled_patch")
CLEAN_SHARE, TEXTURE_SHARE, RARE_SHARE = 0.48, 0.15, 0.0175  # shares of a pool's images
MAX_BOX = 0.0195  # of the image area, a little below the promised 2 %
AIR = 22.0
STACK = (168.0, 128.0, 156.0, 106.0, 142.0)  # gray of the film's layers, top to bottom; the last one is the substrate
THICKNESS = (34.0, 46.0, 40.0, 52.0)


class Slice(NamedTuple):
    """One slice: ``image`` uint8 (H, W), ``boxes`` (n, 4) ``xywh_px`` float64, and ``textures`` as (name, box)."""

    image: np.ndarray
    boxes: np.ndarray
    labels: list[str]
    textures: list[tuple[str, tuple[float, float, float, float]]]


@dataclass(frozen=True)
class SyntheticPool:
    """Where a pool was written, and how many images and boxes it has per class."""

    root: Path
    images: int
    image_counts: dict[str, int]
    box_counts: dict[str, int]
    clean: int

    @property
    def truth(self) -> Path:
        """COCO ground truth."""
        return self.root / "truth.json"

    @property
    def concepts(self) -> Path:
        """Concept graph file of the pool."""
        return self.root / "concepts.yaml"


class _Canvas:
    """A slice being drawn: gray levels ``g`` (H, W), layer ``edges`` (n, W) in px, unit ``s`` = size / 256."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size, self.s = rng, size, size / 256
        self.y, self.x = np.mgrid[0:size, 0:size].astype(np.float64)
        self.taken: list[tuple[float, float, float, float]] = []  # boxes x0 y0 x1 y1 already used
        self.edges = self._edges()
        gray = np.array((AIR, *STACK)) + np.r_[rng.normal(0, 1.5), rng.normal(0, 5, len(STACK))]
        self.g = np.full((size, size), gray[0])
        for edge, low, high in zip(self.edges, gray[:-1], gray[1:], strict=True):
            self.g += (high - low) / (1 + np.exp(-np.clip((self.y - edge) / (0.45 * self.s), -30, 30)))

    def _edges(self) -> np.ndarray:
        """Layer edges, top surface first: shared tilt and waves plus a little waviness of each one's own."""
        rng, s = self.rng, self.s
        x = np.arange(self.size) / self.size
        shared = rng.uniform(-14, 14) * (x - 0.5) + _waves(rng, x, amplitude=2.2, terms=3)
        top = rng.uniform(18, 46)
        depth = top + np.r_[0, np.cumsum(np.array(THICKNESS) * rng.uniform(0.8, 1.2, len(THICKNESS)))]
        own = np.stack([_waves(rng, x, amplitude=0.8, terms=3) for _ in depth])
        return (depth[:, None] + shared + own) * s

    def stain(self, mask: np.ndarray, toward: float, window: tuple[slice, slice]) -> None:
        """Move the gray levels in ``window`` toward a value by ``mask`` in [0, 1]."""
        self.g[window] += mask * (toward - self.g[window])

    def spot(
        self, half_w: float, half_h: float, *, low: int = 0, high: int | None = None
    ) -> tuple[float, float] | None:
        """A free center for an object of this half size between two edges (``high`` None: the image's bottom)."""
        for _ in range(60):
            x = self.rng.uniform(half_w + 3, self.size - half_w - 3)
            column = min(self.size - 1, int(x))
            top = self.edges[low][column] + half_h + 3 * self.s
            bottom = (self.size if high is None else self.edges[high][column]) - half_h - 3 * self.s
            if bottom <= top:
                continue
            y = self.rng.uniform(top, bottom)
            if self.free(x - half_w, y - half_h, x + half_w, y + half_h):
                return x, y
        return None

    def free(self, x0: float, y0: float, x1: float, y1: float, gap: float = 5.0) -> bool:
        """True when the box is inside the image and keeps its distance from everything drawn before."""
        inside = x0 >= 1 and y0 >= 1 and x1 <= self.size - 1 and y1 <= self.size - 1
        gap *= self.s
        return inside and all(x1 + gap < a or c + gap < x0 or y1 + gap < b or d + gap < y0 for a, b, c, d in self.taken)

    def window(self, x0: float, y0: float, x1: float, y1: float, margin: float = 3) -> tuple[slice, slice]:
        """Array slices around a box."""
        low_x, low_y = (max(0, int(np.floor(v - margin))) for v in (x0, y0))
        return slice(low_y, min(self.size, int(np.ceil(y1 + margin)))), slice(
            low_x, min(self.size, int(np.ceil(x1 + margin)))
        )

    def box_of(self, mask: np.ndarray, window: tuple[slice, slice]) -> tuple[float, float, float, float] | None:
        """Tight ``xywh_px`` box of a mask plus half a pixel; None when it would be too large or is empty."""
        rows, columns = np.flatnonzero((mask > 0.3).any(1)), np.flatnonzero((mask > 0.3).any(0))
        if not len(rows):
            return None
        x0, y0 = window[1].start + columns[0] - 0.5, window[0].start + rows[0] - 0.5
        x1, y1 = window[1].start + columns[-1] + 1.5, window[0].start + rows[-1] + 1.5
        x0, y0, x1, y1 = max(0.0, x0), max(0.0, y0), min(float(self.size), x1), min(float(self.size), y1)
        return (x0, y0, x1 - x0, y1 - y0) if (x1 - x0) * (y1 - y0) < MAX_BOX * self.size**2 else None


Box = tuple[float, float, float, float]


def _waves(rng: np.random.Generator, x: np.ndarray, *, amplitude: float, terms: int) -> np.ndarray:
    """A smooth random curve over x in [0, 1]."""
    frequency, phase = rng.uniform(0.5, 5, terms), rng.uniform(0, 2 * np.pi, terms)
    height = rng.normal(0, amplitude, terms) / np.sqrt(frequency)
    return (height[:, None] * np.sin(2 * np.pi * frequency[:, None] * x + phase[:, None])).sum(0)


def _ramp(distance: np.ndarray, soft: float) -> np.ndarray:
    """1 inside (distance < 0), 0 outside, a ramp ``2 soft`` px wide between."""
    return np.clip(0.5 - distance / (2 * soft), 0, 1)


def _to_path(x: np.ndarray, y: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Distance from each pixel to a polyline (n, 2)."""
    out = np.full(x.shape, np.inf)
    for (ax, ay), (bx, by) in pairwise(path):
        dx, dy = bx - ax, by - ay
        t = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        out = np.minimum(out, np.hypot(x - ax - t * dx, y - ay - t * dy))
    return out


def _void(c: _Canvas) -> Box | None:
    rng, s = c.rng, c.s
    r = rng.uniform(3.2, 7.0) * s
    a, b = r * rng.uniform(0.85, 1.25), r * rng.uniform(0.85, 1.15)
    if (at := c.spot(a, b)) is None:
        return None
    w = c.window(at[0] - a, at[1] - b, at[0] + a, at[1] + b)
    angle = np.arctan2(c.y[w] - at[1], c.x[w] - at[0])
    bump = 1 + 0.06 * np.sin(3 * angle + rng.uniform(0, 6.3)) + 0.05 * np.sin(2 * angle + rng.uniform(0, 6.3))
    distance = (np.hypot((c.x[w] - at[0]) / a, (c.y[w] - at[1]) / b) - bump) * r
    mask = _ramp(distance, 0.9 * s)
    c.stain(mask * rng.uniform(0.36, 0.7), AIR, w)
    return c.box_of(mask, w)


def _inclusion(c: _Canvas) -> Box | None:
    rng, s = c.rng, c.s
    r = rng.uniform(3.0, 6.0) * s
    if (at := c.spot(1.6 * r, 1.6 * r)) is None:
        return None
    w = c.window(at[0] - 1.8 * r, at[1] - 1.8 * r, at[0] + 1.8 * r, at[1] + 1.8 * r)
    mask = np.zeros_like(c.x[w])
    for _ in range(rng.integers(2, 5)):  # a lump of grains
        dx, dy = rng.normal(0, 0.45 * r, 2).clip(-r, r)
        mask = np.maximum(
            mask, _ramp(np.hypot(c.x[w] - at[0] - dx, c.y[w] - at[1] - dy) - r * rng.uniform(0.35, 0.65), 1.0 * s)
        )
    c.g[w] += mask * rng.uniform(38, 72)
    return c.box_of(mask, w)


def _petal(c: _Canvas) -> Box | None:
    rng, s = c.rng, c.s
    r = rng.uniform(9, 15) * s
    if (at := c.spot(r, r, low=0, high=2)) is None:
        return None
    w = c.window(at[0] - r, at[1] - r, at[0] + r, at[1] + r)
    dx, dy = c.x[w] - at[0], c.y[w] - at[1]
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    leaves, phase, twist = int(rng.integers(4, 7)), rng.uniform(0, 6.3), rng.uniform(-0.09, 0.09) / s
    edge = r * (0.62 + 0.33 * np.cos(leaves * (angle + twist * radius) + phase))  # curled flaps around a center
    rim = np.exp(-(((radius - edge) / (1.3 * s)) ** 2))
    inside = _ramp(radius - edge, 1.0 * s)
    strength = rng.uniform(0.75, 1.15)
    c.g[w] += strength * (34 * rim - 20 * inside * (1 - rim))
    return c.box_of(np.maximum(rim, inside), w)


def _drill_hole(c: _Canvas) -> Box | None:
    rng, s = c.rng, c.s
    width, depth, lean = rng.uniform(1.3, 2.4) * s, rng.uniform(20, 44) * s, rng.uniform(-0.06, 0.06)
    for _ in range(40):
        x = rng.uniform(14 * s, c.size - 14 * s)
        y = c.edges[0][int(x)]
        if not c.free(x - 5 * s, y, x + 5 * s, y + depth):
            continue
        w = c.window(x - 6 * s, y - 1, x + 6 * s, y + depth)
        down = (c.y[w] - y) / depth
        half = width * (1.0 + 0.9 * np.exp(-np.clip(down, 0, 1) * 9))  # flared at the surface
        beside = np.abs(c.x[w] - x - lean * (c.y[w] - y)) - half
        mask = _ramp(np.maximum(beside, np.abs(down - 0.5) * depth - depth / 2), 0.8 * s)
        c.stain(mask * rng.uniform(0.45, 0.75), AIR, w)
        return c.box_of(mask, w)
    return None


def _hairline_crack(c: _Canvas) -> Box | None:
    """A jagged 1 to 2 px line with a branch, across the layers or slanted; long, yet its box stays below the limit."""
    rng, s = c.rng, c.s
    for _ in range(40):
        steep = rng.random() < 0.6
        length = rng.uniform(42, 66) * s
        slope = rng.uniform(-0.16, 0.16)
        along, across = (length, slope * length) if steep else (slope * length, length)  # dy, dx
        if (at := c.spot(abs(across) / 2 + 4 * s, abs(along) / 2 + 4 * s)) is None:
            continue
        n = int(rng.integers(9, 13))
        t = np.linspace(-0.5, 0.5, n)
        wander = np.cumsum(rng.normal(0, 1.1 * s, n))
        wander -= np.linspace(wander[0], wander[-1], n)
        path = np.stack([at[0] + t * across, at[1] + t * along], 1)
        path[:, 0 if steep else 1] += wander
        start, sign = int(rng.integers(n // 3, 2 * n // 3)), rng.choice([-1, 1])
        reach = rng.uniform(8, 14) * s
        ahead = path[min(start + 2, n - 1)] - path[start]
        side = np.array([-ahead[1], ahead[0]]) * sign
        way = ahead / np.linalg.norm(ahead) + 0.45 * side / max(np.linalg.norm(side), 1e-9)
        branch = (
            path[start] + np.outer([0, 0.5, 1], way * reach) + np.r_[np.zeros((1, 2)), rng.normal(0, 0.5 * s, (2, 2))]
        )
        low, high = np.minimum(path.min(0), branch.min(0)), np.maximum(path.max(0), branch.max(0))
        w = c.window(*low, *high)
        wide = rng.uniform(0.55, 0.85) * s
        distance = np.minimum(_to_path(c.x[w], c.y[w], path), _to_path(c.x[w], c.y[w], branch) + 0.2 * s)
        mask = _ramp(distance - wide, 0.6 * s)
        box = c.box_of(mask, w)
        if box is None or not c.free(box[0], box[1], box[0] + box[2], box[1] + box[3]):
            continue
        c.stain(mask * rng.uniform(0.30, 0.42), AIR, w)
        return box
    return None


def _delamination(c: _Canvas) -> Box | None:
    """A faint lens-shaped gap that follows one inner layer edge."""
    rng, s = c.rng, c.s
    for _ in range(40):
        length, thick = rng.uniform(34, 62) * s, rng.uniform(1.0, 1.7) * s
        x = rng.uniform(length / 2 + 3, c.size - length / 2 - 3)
        edge = c.edges[int(rng.integers(1, len(c.edges)))]
        t = (np.arange(c.size) + 0.0 - x) / (length / 2)
        part = edge[np.abs(t) <= 1]
        if part.max() > c.size - 6 * s or not c.free(
            x - length / 2, part.min() - 2 * s, x + length / 2, part.max() + 2 * s
        ):
            continue
        w = c.window(x - length / 2, part.min() - 3 * s, x + length / 2, part.max() + 3 * s)
        lens = np.sqrt(np.clip(1 - t[w[1]] ** 2, 0, None)) * thick
        mask = _ramp(np.abs(c.y[w] - edge[w[1]]) - lens, 0.6 * s) * (lens > 0.2 * s)
        if (box := c.box_of(mask, w)) is None:
            continue
        c.stain(mask * rng.uniform(0.34, 0.48), AIR, w)
        return box
    return None


def _smooth(field: np.ndarray, sigma: float) -> np.ndarray:
    """Separable Gaussian blur with reflected borders."""
    radius = max(1, int(np.ceil(2.5 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        wide = np.pad(field, pad, mode="reflect")
        n = field.shape[axis]
        field = sum(k * np.take(wide, range(i, i + n), axis=axis) for i, k in enumerate(kernel))
    return field


def _patch(c: _Canvas, w: float, h: float) -> tuple[tuple[slice, slice], np.ndarray, Box] | None:
    """A free rectangle in the film and a soft-edged elliptic mask over it."""
    if (at := c.spot(w / 2, h / 2)) is None:
        return None
    x0, y0 = at[0] - w / 2, at[1] - h / 2
    win = c.window(x0, y0, x0 + w, y0 + h, margin=0)
    round_ = ((np.abs(c.x[win] - at[0]) / (w / 2)) ** 4 + (np.abs(c.y[win] - at[1]) / (h / 2)) ** 4) ** 0.25
    return win, np.clip((1 - round_) / 0.15, 0, 1), (x0, y0, w, h)


def _mottled_patch(c: _Canvas) -> Box | None:
    size = c.rng.uniform(46, 84, 2) * c.s
    if (got := _patch(c, *size)) is None:
        return None
    win, mask, box = got
    noise = _smooth(c.rng.normal(0, 1, mask.shape), 1.7 * c.s)
    c.g[win] += mask * noise / noise.std() * c.rng.uniform(13, 19)
    return box


def _fiducial_grid(c: _Canvas) -> Box | None:
    pitch, n, m = c.rng.uniform(7, 10) * c.s, int(c.rng.integers(5, 9)), int(c.rng.integers(4, 7))
    if (got := _patch(c, n * pitch, m * pitch)) is None:
        return None
    win, _, box = got
    u, v = (c.x[win] - box[0]) / pitch % 1 - 0.5, (c.y[win] - box[1]) / pitch % 1 - 0.5
    c.g[win] += _ramp(np.hypot(u, v) * pitch - 1.5 * c.s, 0.9 * c.s) * c.rng.uniform(34, 52)
    return box


def _grain_band(c: _Canvas) -> Box | None:
    """Coarse grains all along one layer."""
    i = int(c.rng.integers(0, len(c.edges) - 1))
    top, bottom = c.edges[i], c.edges[i + 1]
    inside = np.clip((c.y - top) / (3 * c.s), 0, 1) * np.clip((bottom - c.y) / (3 * c.s), 0, 1)
    noise = _smooth(c.rng.normal(0, 1, c.g.shape), 2.3 * c.s)
    c.g += inside * np.tanh(1.4 * noise / noise.std()) * c.rng.uniform(10, 15)
    y0, y1 = float(top.min()), float(min(bottom.max(), c.size))
    return (0.0, y0, float(c.size), y1 - y0)


_DEFECTS: dict[str, Callable[[_Canvas], Box | None]] = {
    "void": _void,
    "inclusion": _inclusion,
    "petal": _petal,
    "drill_hole": _drill_hole,
    "hairline_crack": _hairline_crack,
    "delamination": _delamination,
}
_HARMLESS: dict[str, Callable[[_Canvas], Box | None]] = {
    "mottled_patch": _mottled_patch,
    "fiducial_grid": _fiducial_grid,
    "grain_band": _grain_band,
}


def _scan(c: _Canvas) -> np.ndarray:
    """What the scanner adds: blur, drift, rings, streaks, correlated and Poisson-like noise; returns uint8."""
    rng, s, size = c.rng, c.s, c.size
    g = _smooth(c.g, rng.uniform(0.5, 0.75) * s)
    u, v = c.x / size - 0.5, c.y / size - 0.5
    g *= 1 + rng.normal(0, 0.035) * u + rng.normal(0, 0.035) * v + rng.normal(0, 0.05) * (u * u + v * v)
    radius = np.hypot(c.x - size * rng.uniform(0.2, 0.8), c.y - size * rng.uniform(-0.2, 1.2)) / s
    rings = np.zeros(512)
    rings[rng.integers(4, 400, 7)] = rng.normal(0, 4.5, 7)
    g += np.interp(radius, np.arange(512), np.convolve(rings, [0.25, 0.5, 0.25], "same")) + rng.normal(0, 1)
    for _ in range(rng.integers(0, 4)):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4)
        across = (u * np.cos(angle) + v * np.sin(angle) - offset) * 256
        g += rng.normal(0, 4) * np.exp(-((across / 1.5) ** 2))
    white = rng.normal(0, 1, g.shape)
    shot = np.sqrt(np.clip(g, 4, None)) * rng.uniform(0.30, 0.42)
    grain = _smooth(rng.normal(0, 1, g.shape), 0.9 * s)
    g += shot * white + grain / grain.std() * rng.uniform(2.2, 3.2)
    return np.clip(np.rint(g), 0, 255).astype(np.uint8)


def render(
    rng: np.random.Generator, size: int = 256, *, want: Sequence[str] = (), textures: Sequence[str] = ()
) -> Slice:
    """Draw one slice.

    Args:
        rng: all randomness comes from it.
        size: side in pixels, at least 64.
        want: defect classes to draw, one instance per entry; one that finds no free place is left out.
        textures: harmless textures to draw, of ``TEXTURES``.

    Returns:
        The slice; each box is below 2 % of the image area.

    Raises:
        ValueError: for an unknown class or texture, or a size below 64.
    """
    if unknown := sorted((set(want) - set(_DEFECTS)) | (set(textures) - set(_HARMLESS))):
        raise ValueError(
            f"unknown defect or texture {unknown}; defects are {sorted(_DEFECTS)}, textures {sorted(_HARMLESS)}"
        )
    if size < 64:
        raise ValueError(f"size must be at least 64 pixels, got {size}")
    canvas = _Canvas(rng, size)
    drawn = []
    for name in sorted(textures):
        if (box := _HARMLESS[name](canvas)) is not None:
            drawn.append((name, box))
            if name != "grain_band":  # a defect can lie inside a band, and is then harder to see
                canvas.taken.append((box[0], box[1], box[0] + box[2], box[1] + box[3]))
    boxes, labels = [], []
    for name in sorted(want, key=lambda n: n not in RARE):  # rare ones first: they must find their place
        if (box := _DEFECTS[name](canvas)) is not None:
            boxes.append(box)
            labels.append(name)
            canvas.taken.append((box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return Slice(_scan(canvas), np.array(boxes, dtype=np.float64).reshape(-1, 4), labels, drawn)


def plan(images: int, seed: int) -> list[tuple[list[str], list[str]]]:
    """What each image of a pool is to show: (defects, textures) per image, in an order that reveals nothing."""
    rng = np.random.default_rng([seed, 0xF11])
    rare = min(max(round(RARE_SHARE * images), 1), int(0.02 * images))
    order = rng.permutation(images)
    out: list[tuple[list[str], list[str]]] = [([], []) for _ in range(images)]
    names, share = list(COMMON), list(COMMON.values())
    special = {int(order[i * rare + j]): name for i, name in enumerate(RARE) for j in range(rare)}
    dirty = max(images - round(CLEAN_SHARE * images) - len(special), 0)
    common = {int(i) for i in order[len(special) : len(special) + dirty]}
    for i, (defects, textures) in enumerate(out):
        if i in special:
            defects += [special[i]] * int(rng.choice([1, 2], p=[0.75, 0.25]))
        if i in common or (i in special and rng.random() < 0.4):
            defects += [
                str(n) for n in rng.choice(names, int(rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1])), p=share)
            ]
        if rng.random() < TEXTURE_SHARE:
            textures.append(str(rng.choice(TEXTURES)))
    return out


def render_planned(seed: int, index: int, wanted: tuple[Sequence[str], Sequence[str]], size: int = 256) -> Slice:
    """Image ``index`` of pool ``seed``, independent of all others."""
    for attempt in range(20):
        got = render(np.random.default_rng([seed, index, attempt]), size, want=wanted[0], textures=wanted[1])
        if set(got.labels) >= set(wanted[0]):  # a crowded slice may leave a class out: draw it anew
            break
    return got


def make_pool(out: Path, *, images: int = 480, size: int = 256, seed: int = 0) -> SyntheticPool:
    """Write a pool: ``out/images/*.png`` (8-bit gray), ``out/truth.json`` (COCO), ``out/concepts.yaml``.

    The same arguments give the same bytes. Each rare class is in exactly ``round(0.0175 images)`` images (at most
    2 %, none in a pool below 50 images); about 48 % of the images have no defect; about 15 % have a harmless texture,
    listed per image in ``truth.json`` under ``textures``. Raises ValueError for fewer than 1 image or a size below 64.
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    out = Path(out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    entries: list[dict] = []
    annotations: list[dict] = []
    number = {name: i + 1 for i, name in enumerate(CLASSES)}
    image_counts, box_counts = dict.fromkeys(CLASSES, 0), dict.fromkeys(CLASSES, 0)
    clean = 0
    for i, wanted in enumerate(plan(images, seed)):
        got = render_planned(seed, i, wanted, size)
        file_name = f"slice_{i:05d}.png"
        Image.fromarray(got.image).save(out / "images" / file_name)
        textures = [{"name": n, "bbox": [round(v, 2) for v in box]} for n, box in got.textures]
        entries.append({"id": i + 1, "file_name": file_name, "width": size, "height": size, "textures": textures})
        clean += not got.labels
        for name in set(got.labels):
            image_counts[name] += 1
        for box, name in zip(got.boxes.tolist(), got.labels, strict=True):
            box_counts[name] += 1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": number[name],
                    "bbox": [round(v, 2) for v in box],
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": 0,
                }
            )
    truth = {
        "info": {"description": "synthetic thin-film CT", "seed": seed},
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": number[n], "name": n} for n in CLASSES],
    }
    (out / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    graph = resources.files("gsal_fo").joinpath("graphs", "thin_film.yaml").read_text(encoding="utf-8")
    (out / "concepts.yaml").write_text(graph, encoding="utf-8")
    return SyntheticPool(out, images, image_counts, box_counts, clean)
