"""Images of a set with their truth, and how well a score agrees with it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gsal_fo.boxes import iou, xywh_px_to_xywh_rel
from gsal_fo.diffusion import reduce_map, region_statistics
from gsal_fo.images import read_image
from lightning_modules.data import resized

SHARED = Path(__file__).resolve().parents[4] / "shared"
LABELS = {"neu_det": "labels_lt.json", "deeppcb": "labels.json", "bccd": "labels.json"}
# DeepPCB's classes are balanced: nothing is rare there, the question is defect against clean.
RARE = {"neu_det": ("pitted_surface", "crazing"), "deeppcb": (), "bccd": ("Platelets",)}
BOOTSTRAP = 500
MARGIN = 0.03  # of the side: how far around a defect a map still knows of it, for the control without defects


@dataclass(frozen=True)
class Item:
    """An image (3, S, S) uint8, its boxes (n, 4) ``xywh_rel`` and their labels, and background boxes of those sizes."""

    image: torch.Tensor
    boxes: np.ndarray
    labels: tuple[str, ...]
    background: np.ndarray


def items(name: str, size: int, limit: int, seed: int, *, judged: bool = True) -> list[Item]:
    """Images of a set, drawn and given background boxes by the seed.

    ``judged``: up to a third of them are images with a rare class, so that a handful does not decide an AUROC; without
    it, as a fit sees them, the set's own mixture.
    """
    found = _synthetic(limit, seed) if name == "synthetic" else _stored(name, limit, seed, judged)
    sizes = np.concatenate([boxes[:, 2:] for _, boxes, _ in found])
    rng = np.random.default_rng([seed, 1])
    out = []
    for pixels, boxes, labels in found:
        wanted = boxes[:, 2:] if len(boxes) else sizes[rng.integers(len(sizes), size=3)]
        clear = []
        for side in wanted:
            for _ in range(30):
                box = np.concatenate([rng.random(2) * (1 - side), side])
                if not len(boxes) or iou(box[None], boxes).max() == 0:
                    clear.append(box)
                    break
        out.append(Item(resized(pixels, size), boxes, tuple(labels), np.array(clear).reshape(-1, 4)))
    return out


Found = list[tuple[np.ndarray, np.ndarray, list[str]]]


def _synthetic(limit: int, seed: int) -> Found:
    """A demo's mixture, and a sixth more with one rare defect each, so that few do not decide."""
    from gsal_fo.synthetic.thin_film import RARE as HARD
    from gsal_fo.synthetic.thin_film import plan, render_planned

    found: Found = []
    for index, wanted in enumerate([*plan(limit, seed), *[([HARD[i % 2]], []) for i in range(limit // 6)]]):
        slice_ = render_planned(31_000_000 + seed, index, wanted)
        height, width = slice_.image.shape[:2]
        boxes = xywh_px_to_xywh_rel(np.asarray(slice_.boxes).reshape(-1, 4), width, height)
        found.append((np.repeat(slice_.image[..., None], 3, 2), boxes, list(slice_.labels)))
    return found


def _stored(name: str, limit: int, seed: int, judged: bool) -> Found:
    folder = SHARED / "datasets" / name
    coco = json.loads((folder / LABELS[name]).read_text(encoding="utf-8"))
    classes = {c["id"]: c["name"] for c in coco["categories"]}
    if missing := set(RARE[name]) - set(classes.values()):
        raise ValueError(f"{name} has no class {sorted(missing)}; it has {sorted(classes.values())}")
    marks: dict[int, list[dict]] = {}
    for a in coco["annotations"]:
        marks.setdefault(a["image_id"], []).append(a)
    rows = np.random.default_rng(seed).permutation(len(coco["images"]))
    if judged:
        rare = {a["image_id"] for a in coco["annotations"] if classes[a["category_id"]] in RARE[name]}
        is_rare = np.array([coco["images"][r]["id"] in rare for r in rows])
        first = rows[is_rare][: limit // 3]
        rows = np.concatenate([first, rows[~is_rare][: limit - len(first)]])
    rows = rows[:limit]
    found: Found = []
    for entry in (coco["images"][r] for r in sorted(rows)):
        own = marks.get(entry["id"], [])
        drawn = np.array([a["bbox"] for a in own], dtype=np.float64).reshape(-1, 4)
        pixels, _ = read_image(folder / "images" / entry["file_name"])
        if name == "deeppcb":  # its clean templates are stored without the gray fringes of the test images' JPEG
            pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
        rel = xywh_px_to_xywh_rel(drawn, entry["width"], entry["height"])
        found.append((pixels, rel, [classes[a["category_id"]] for a in own]))
    return found


class Judge:
    """The truth of a set, ready to be held against scores."""

    def __init__(self, name: str, pool: list[Item]) -> None:
        from gsal_fo.synthetic.thin_film import RARE as HARD

        rare = RARE.get(name, HARD)
        self.name, self.pool = name, pool
        self.rare = np.array([any(label in rare for label in i.labels) for i in pool])
        self.clean = np.array([not i.labels for i in pool])
        self.rare_box = np.array([label in rare for i in pool for label in i.labels])

    def boxes(self, maps: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
        """Statistics of the true boxes, and of the background boxes of the images with defects."""
        true = [region_statistics(m, i.boxes, how) for m, i in zip(maps, self.pool, strict=True)]
        other = [region_statistics(m, i.background, how) for m, i in self._with_defects(maps)]
        return np.concatenate(true), np.concatenate(other)

    def box_covariates(self, of: Callable[[Item, np.ndarray], np.ndarray]) -> np.ndarray:
        """A covariate of the true and then the background boxes, as ``boxes`` orders them."""
        true = [of(i, i.boxes) for i in self.pool]
        return np.concatenate([*true, *(of(i, i.background) for i in self.pool if i.labels)])

    def _with_defects(self, maps: np.ndarray) -> list[tuple[np.ndarray, Item]]:
        return [(m, i) for m, i in zip(maps, self.pool, strict=True) if i.labels]

    def of_images(self, score: np.ndarray) -> dict[str, list[float]]:
        out = {}
        if self.rare.any():
            out["rare"] = compare(score[self.rare], score[~self.rare])
        if self.clean.any():
            out["clean"] = compare(score[~self.clean], score[self.clean])
            if self.rare.any():
                out["rare/clean"] = compare(score[self.rare], score[self.clean])
        return out

    def of_boxes(self, true: np.ndarray, other: np.ndarray) -> dict[str, list[float]]:
        out = {"box": compare(true, other)}
        if self.rare_box.any():
            out["rare box"] = compare(true[self.rare_box], other)
        return out

    def control(self, maps: np.ndarray, how: str) -> dict[str, list[float]]:
        """Defective against clean with the defects cut out: 0.5 where nothing but defects tells them apart."""
        if not self.clean.any():
            return {}
        score = np.array([_outside(m, i.boxes, how) for m, i in zip(maps, self.pool, strict=True)])
        return {"control": compare(score[~self.clean], score[self.clean])}


def _outside(values: np.ndarray, boxes: np.ndarray, how: str) -> float:
    height, width = values.shape
    keep = np.ones(values.shape, dtype=bool)
    for x, y, w, h in boxes:
        x0, y0 = max(0, int((x - MARGIN) * width)), max(0, int((y - MARGIN) * height))
        x1, y1 = int(np.ceil((x + w + MARGIN) * width)), int(np.ceil((y + h + MARGIN) * height))
        keep[y0:y1, x0:x1] = False
    left = values[keep] if keep.any() else values
    return float(reduce_map(torch.from_numpy(left.reshape(1, 1, -1).copy()), how)[0])


def compare(positive: np.ndarray, negative: np.ndarray) -> list[float]:
    """AUROC and its 95 % bootstrap interval, both sides drawn anew."""
    n, m = len(positive), len(negative)
    # Share of pairs won; a draw of the bootstrap counts each value as often as it was drawn.
    wins = (positive[:, None] > negative[None]).astype(np.float32) + 0.5 * (positive[:, None] == negative[None])
    rng = np.random.default_rng(0)
    a = rng.multinomial(n, np.full(n, 1 / n), BOOTSTRAP).astype(np.float32)
    b = rng.multinomial(m, np.full(m, 1 / m), BOOTSTRAP).astype(np.float32)
    drawn = ((a @ wins) * b).sum(1) / (n * m)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return [round(float(v), 3) for v in (wins.mean(), low, high)]
