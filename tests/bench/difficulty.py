"""How well diffusion difficulty finds what is worth labeling: AUROC on the real sets and the synthetic pool.

``python tests/bench/difficulty.py --work DIR neu_det deeppcb bccd synthetic`` fits and measures, and appends each
measurement to ``DIR/results.jsonl``; what is there is not measured again, so an interrupted run goes on.
``--report`` prints the tables of what was measured so far.

Images: ``--limit`` of each set, drawn by seed. No label is read by a fit. Per model, one pass of 32 shared draws per
noise level; K = 2, 4, 8, 16 are the first draws of it, and repeatability compares its disjoint halves. Questions asked
of each score: images with a rare class against the rest ("rare"), images with any defect against images without, where
a set has such ("clean"), ground-truth boxes against boxes of the same sizes that touch none, in the same images
("box"), and rare ones of them ("rare box"). Difficulty within textures and sizes: ``gsal_fo.correction``.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gsal_fo.diffusion import (  # noqa: E402
    denoise,
    per_sample_noise,
    reconstruction_maps,
    reduce_map,
    region_statistics,
    shared_noise,
)
from gsal_fo.normalize import z_score, z_score_by_group  # noqa: E402

SHARED = ROOT.parent / "shared"
WEIGHTS = f"mobilenet_v2:{SHARED / 'weights' / 'mobilenet_v2_imagenet_fp16.safetensors'}"
LABELS = {"neu_det": "labels_lt.json", "deeppcb": "labels.json", "bccd": "labels.json"}
RARE = {"neu_det": ("pitted_surface", "crazing"), "deeppcb": ("mouse_bite", "spur"), "bccd": ("Platelets",)}
LEVELS = (0.05, 0.2, 0.4, 0.5, 0.7, 0.9)
DRAWS = 32
BOOTSTRAP = 500


@dataclass(frozen=True)
class Item:
    """An image (3, S, S) uint8, its boxes (n, 4) ``xywh_rel`` and their labels, and background boxes of those sizes."""

    image: torch.Tensor
    boxes: np.ndarray
    labels: tuple[str, ...]
    background: np.ndarray


@dataclass(frozen=True)
class Model:
    """A denoiser to measure: ``name`` in the tables; ``fit`` None is the embedded model, else settings of a fit."""

    name: str
    fit: dict[str, Any] | None


def mobilenet(name: str, **more: Any) -> Model:
    return Model(name, {"encoder": WEIGHTS, "size": "small", "steps": 700, **more})


NEAR, FINE = ("features.6", "features.13"), ("features.3", "features.6")
MODELS = {
    "neu_det": [
        mobilenet("MobileNetV2 8+16, 16x16"),
        mobilenet("MobileNetV2 4+8, 32x32", stages=FINE, stride=8, steps=350),
        mobilenet("MobileNetV2 16, 16x16", stages=("features.13",)),
        mobilenet("MobileNetV2 8+16, 16x16, tiny", size="tiny"),
        mobilenet("MobileNetV2 8+16, whitened", whiten=1.0),
        Model("embedded CLIP tower 8+16", {"encoder": "embedded", "size": "small", "steps": 700}),
        Model("pixels 64x64", {"space": "pixels", "input_size": 64, "size": "small", "steps": 350}),
        Model("embedded", None),
    ],
    "deeppcb": [
        mobilenet("MobileNetV2 4+8, 512 px, 64x64", stages=FINE, stride=8, input_size=512, size="tiny", steps=350),
        mobilenet("MobileNetV2 8+16, 512 px, 32x32", input_size=512, steps=350),
        mobilenet("MobileNetV2 8+16, 256 px, 16x16"),
        Model("embedded", None),
    ],
    "bccd": [
        mobilenet("MobileNetV2 8+16, 16x16"),
        mobilenet("MobileNetV2 4+8, 32x32", stages=FINE, stride=8, steps=350),
        Model("embedded", None),
    ],
    "synthetic": [
        Model("embedded", None),
        mobilenet("MobileNetV2 8+16, 16x16"),
        mobilenet("MobileNetV2 4+8, 32x32", stages=FINE, stride=8, steps=350),
        Model("pixels 64x64", {"space": "pixels", "input_size": 64, "size": "small", "steps": 350}),
    ],
}


def items(name: str, size: int, limit: int, seed: int) -> list[Item]:
    """Images of a set with their truth, drawn and padded with background boxes by the seed."""
    from gsal_fo.boxes import iou, xywh_px_to_xywh_rel
    from lightning_modules.data import read_image, resized

    found: list[tuple[np.ndarray, np.ndarray, list[str]]] = []
    if name == "synthetic":
        from gsal_fo.synthetic import RARE as HARD
        from gsal_fo.synthetic import plan, render_planned

        for index, wanted in enumerate([*plan(limit, seed), *[([HARD[i % 2]], []) for i in range(limit // 6)]]):
            slice_ = render_planned(31_000_000 + seed, index, wanted)
            height, width = slice_.image.shape[:2]
            boxes = xywh_px_to_xywh_rel(np.asarray(slice_.boxes).reshape(-1, 4), width, height)
            found.append((np.repeat(slice_.image[..., None], 3, 2), boxes, list(slice_.labels)))
    else:
        folder = SHARED / "datasets" / name
        coco = json.loads((folder / LABELS[name]).read_text(encoding="utf-8"))
        classes = {c["id"]: c["name"] for c in coco["categories"]}
        marks: dict[int, list[Any]] = {}
        for a in coco["annotations"]:
            marks.setdefault(a["image_id"], []).append(a)
        rows = np.random.default_rng(seed).permutation(len(coco["images"]))[:limit]
        for entry in (coco["images"][r] for r in sorted(rows)):
            own = marks.get(entry["id"], [])
            drawn = np.array([a["bbox"] for a in own], dtype=np.float64).reshape(-1, 4)
            rel = xywh_px_to_xywh_rel(drawn, entry["width"], entry["height"])
            pixels, _ = read_image(folder / "images" / entry["file_name"])
            found.append((pixels, rel, [classes[a["category_id"]] for a in own]))
    sizes = np.concatenate([boxes[:, 2:] for _, boxes, _ in found])
    out = []
    rng = np.random.default_rng([seed, 1])
    for pixels, boxes, labels in found:
        wanted = boxes[:, 2:] if len(boxes) else sizes[rng.integers(len(sizes), size=3)]
        clear = []
        for side in wanted:
            for _ in range(30):
                box = np.concatenate([rng.random(2) * (1 - side), side])
                if not len(boxes) or iou(box[None], boxes).max() == 0:
                    clear.append(box)
                    break
        labeled = tuple(labels)
        out.append(Item(resized(pixels, size), boxes, labeled, np.array(clear).reshape(-1, 4)))
    return out


def load(model: Model, name: str, work: Path, limit: int, seed: int) -> tuple[Any, float]:
    """The denoiser, fitted on the images of the set where it is one to fit; and the seconds that its fit took."""
    from lightning_modules.fit_diffusion import FitSettings, collect, fit, load_coder
    from lightning_modules.nets import load_denoiser

    if model.fit is None:
        return load_denoiser("embedded"), 0.0
    folder = work / "models" / f"{name}-{model.name}-{limit}-{seed}".replace(" ", "_").replace(",", "")
    if not (folder / "gsal.json").is_file():
        settings = FitSettings(**model.fit, minutes=60.0, seed=seed)
        coder = load_coder(settings)
        images = (item.image for item in items(name, settings.side, limit, seed))
        fit(collect(images, coder, settings), settings, coder, folder)
    about = json.loads((folder / "gsal.json").read_text(encoding="utf-8"))
    return load_denoiser(str(folder)), float(about["fit"]["seconds"])


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    from lightning_modules.fit_diffusion import auroc as area

    return area(positive, negative)


def interval(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the AUROC; both sides drawn anew."""
    rng = np.random.default_rng(0)
    values = [auroc(rng.choice(positive, len(positive)), rng.choice(negative, len(negative))) for _ in range(BOOTSTRAP)]
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


@torch.inference_mode()
def predictions(denoiser: Any, z: torch.Tensor, share: float, draws: int, noise: str) -> torch.Tensor:
    """Clean predictions (B, K, C, h, w) of latents, as the scorer makes them."""
    t = min(int(share * len(denoiser.alphas_cumprod)), len(denoiser.alphas_cumprod) - 1)
    eps = (
        shared_noise(draws, z.shape[1:], seed=0)
        if noise == "shared"
        else per_sample_noise([str(i) for i in range(len(z))], draws, z.shape[1:], seed=0)
    )
    return denoise(z, eps, t=t, steps=1, alpha_bar=denoiser.alphas_cumprod, predict_x0=denoiser.predict_x0)


@torch.inference_mode()
def statistic_maps(
    denoiser: Any, latents: torch.Tensor, share: float, wanted: dict[str, slice], noise: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """E and V maps (N, h, w) by name, for each named part of the draws."""
    draws = max(s.stop for s in wanted.values())
    out: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in wanted}
    for start in range(0, len(latents), 4):
        z = latents[start : start + 4]
        z_hat = predictions(denoiser, z, share, draws, noise)
        for name, part in wanted.items():
            out[name].append(reconstruction_maps(z, z_hat[:, part]))
    return {
        name: (torch.cat([e for e, _ in pairs]).numpy(), torch.cat([v for _, v in pairs]).numpy())
        for name, pairs in out.items()
    }


class Judge:
    """The truth of a set, ready to be held against scores."""

    def __init__(self, name: str, pool: list[Item]) -> None:
        rare = RARE.get(name)
        if rare is None:
            from gsal_fo.synthetic import RARE as rare
        self.pool = pool
        self.rare = np.array([any(label in rare for label in i.labels) for i in pool])
        self.clean = np.array([not i.labels for i in pool])
        self.rare_box = np.array([label in rare for i in pool for label in i.labels])

    def boxes(self, maps: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
        """Statistics of the true boxes, and of the background boxes."""
        true = [region_statistics(m, i.boxes, how) for m, i in zip(maps, self.pool, strict=True)]
        other = [region_statistics(m, i.background, how) for m, i in zip(maps, self.pool, strict=True)]
        return np.concatenate(true), np.concatenate(other)

    def of_images(self, score: np.ndarray) -> dict[str, list[float]]:
        out = {"rare": self._pair(score[self.rare], score[~self.rare])}
        if self.clean.any():
            out["clean"] = self._pair(score[~self.clean], score[self.clean])
            out["rare/clean"] = self._pair(score[self.rare], score[self.clean])
        return out

    def of_boxes(self, true: np.ndarray, other: np.ndarray) -> dict[str, list[float]]:
        return {"box": self._pair(true, other), "rare box": self._pair(true[self.rare_box], other)}

    @staticmethod
    def _pair(positive: np.ndarray, negative: np.ndarray) -> list[float]:
        return [round(v, 3) for v in (auroc(positive, negative), *interval(positive, negative))]


def mixed(error: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Eq. 7 with equal weights."""
    return z_score(error) + z_score(variance)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return round(float(spearmanr(a, b).statistic), 3)


def measure(judge: Judge, denoiser: Any, latents: torch.Tensor, *, deep: bool) -> Iterator[dict[str, Any]]:
    """All measurements of one model on one set; ``deep``: draws, noise modes and normalization too."""
    best: tuple[float, float, str] = (-1.0, 0.0, "")
    for share in LEVELS:
        maps = statistic_maps(denoiser, latents, share, {"4": slice(0, 4)}, "shared")["4"]
        for how in ("mean", "max", "topk"):
            error, variance = (reduce_map(torch.from_numpy(m), how).numpy() for m in maps)
            (e_true, e_other), (v_true, v_other) = (judge.boxes(m, how) for m in maps)
            cut = len(e_true)
            both = mixed(np.concatenate([e_true, e_other]), np.concatenate([v_true, v_other]))
            image = {"E": error, "V": variance, "D": mixed(error, variance)}
            box = {"E": (e_true, e_other), "V": (v_true, v_other), "D": (both[:cut], both[cut:])}
            for which, score in image.items():
                found = judge.of_images(score) | judge.of_boxes(*box[which])
                yield {"kind": "level", "t": share, "reduce": how, "score": which, **found}
                if which == "E" and found["rare"][0] + found["box"][0] > best[0]:
                    best = (found["rare"][0] + found["box"][0], share, how)
    if deep:
        yield from _draws(judge, denoiser, latents, best[1], best[2])


def _draws(judge: Judge, denoiser: Any, latents: torch.Tensor, share: float, how: str) -> Iterator[dict[str, Any]]:
    """At the best level: K, repeatability, noise modes; normalization; what else difficulty follows."""
    parts = {str(k): slice(0, k) for k in (2, 4, 8, 16)} | {f"{k}'": slice(16, 16 + k) for k in (2, 4, 8, 16)}
    for noise in ("shared", "per_sample"):
        maps = statistic_maps(denoiser, latents, share, parts, noise)
        values = {n: [reduce_map(torch.from_numpy(m), how).numpy() for m in pair] for n, pair in maps.items()}
        for k in (2, 4, 8, 16):
            row = {"kind": "draws", "t": share, "reduce": how, "noise": noise, "K": k}
            for i, which in enumerate("EV"):
                a, b = values[str(k)][i], values[f"{k}'"][i]
                row[which] = {
                    "repeats": spearman(a, b),
                    **judge.of_images(a),
                    **judge.of_boxes(*judge.boxes(maps[str(k)][i], how)),
                }
            yield row
        if noise == "shared":
            yield from _corrections(judge, maps["4"][0], values["4"][0], share, how)


def _corrections(judge: Judge, maps: np.ndarray, image: np.ndarray, share: float, how: str) -> Iterator[dict[str, Any]]:
    """Pool against per-concept normalization (true families of the boxes), and against what difficulty follows."""
    true, other = judge.boxes(maps, how)
    names = sorted({label for i in judge.pool for label in i.labels})
    group = np.array([names.index(i.labels[0]) if i.labels else -1 for i in judge.pool])
    base = {"kind": "correction", "t": share, "reduce": how}
    yield {**base, "how": "pool", **judge.of_images(image), **judge.of_boxes(true, other)}
    yield {**base, "how": "concept", **judge.of_images(z_score_by_group(image, group, shrink=10.0))}
    area = np.concatenate(
        [(getattr(i, k)[:, 2] * getattr(i, k)[:, 3]) for k in ("boxes", "background") for i in judge.pool]
    )
    contrast = np.array([contrast_of(i.image) for i in judge.pool])
    local = np.concatenate(
        [contrast_of_boxes(i.image, getattr(i, k)) for k in ("boxes", "background") for i in judge.pool]
    )
    both = np.concatenate([true, other])
    yield {
        **base,
        "how": "follows",
        "image contrast": spearman(image, contrast),
        "box area": spearman(both, area),
        "box contrast": spearman(both, local),
    }
    left = residual(np.log(both + 1e-9), np.log(area + 1e-9), np.log(local + 1e-3))
    whole = residual(np.log(image + 1e-9), np.log(contrast + 1e-3))
    yield {
        **base,
        "how": "size and texture",
        **judge.of_images(whole),
        **judge.of_boxes(left[: len(true)], left[len(true) :]),
    }


def contrast_of(image: torch.Tensor) -> float:
    """Mean gradient of the gray image, in [0, 1] per pixel: how busy its texture is."""
    gray = image.float().mean(0) / 255
    return float(gray.diff(dim=0).abs().mean() + gray.diff(dim=1).abs().mean())


def contrast_of_boxes(image: torch.Tensor, boxes: np.ndarray) -> np.ndarray:
    """``contrast_of`` inside boxes (n, 4) ``xywh_rel``."""
    height, width = image.shape[1:]
    out = []
    for x, y, w, h in boxes:
        x0, y0 = min(int(x * width), width - 2), min(int(y * height), height - 2)
        x1, y1 = max(round((x + w) * width), x0 + 2), max(round((y + h) * height), y0 + 2)
        out.append(contrast_of(image[:, y0:y1, x0:x1]))
    return np.array(out)


def residual(values: np.ndarray, *followed: np.ndarray) -> np.ndarray:
    """What a straight line in the followed quantities does not explain."""
    design = np.stack([np.ones(len(values)), *followed], 1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


@torch.inference_mode()
def nearest_patches(latents: torch.Tensor, bank: int = 4000) -> np.ndarray:
    """The rival: distance (N, h, w) of each cell to the nearest cell of other images in a random bank of cells."""
    n, channels, height, width = latents.shape
    cells = latents.permute(0, 2, 3, 1).reshape(-1, channels)
    owner = torch.arange(n).repeat_interleave(height * width)
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(cells))[:bank])
    known, known_owner = cells[rows], owner[rows]
    out = []
    for i in range(n):
        far = torch.cdist(cells[owner == i], known[known_owner != i])
        out.append(far.min(1).values.reshape(height, width))
    return torch.stack(out).numpy()


def rival(judge: Judge, latents: torch.Tensor) -> Iterator[dict[str, Any]]:
    maps = nearest_patches(latents)
    for how in ("mean", "max", "topk"):
        score = reduce_map(torch.from_numpy(maps), how).numpy()
        yield {"kind": "patch bank", "reduce": how, **judge.of_images(score), **judge.of_boxes(*judge.boxes(maps, how))}


@torch.inference_mode()
def crops_against_maps(judge: Judge, denoiser: Any, share: float, how: str) -> Iterator[dict[str, Any]]:
    """``regions="crops"``: each box cut, resized to the model's input and scored by itself."""
    from lightning_modules.data import crops, to_float

    size = denoiser.input_size
    sides = []
    for kind in ("boxes", "background"):
        values = []
        for item in judge.pool:
            boxes = getattr(item, kind)[:4]  # four a picture bound the cost
            if not len(boxes):
                continue
            cut = crops(item.image.permute(1, 2, 0).numpy(), boxes, pad=0.2, size=size)
            z = denoiser.latent(to_float(cut)).float()
            error, _ = reconstruction_maps(z, predictions(denoiser, z, share, 4, "shared"))
            values.append(reduce_map(error, how).numpy())
        sides.append(np.concatenate(values))
    yield {"kind": "crops", "t": share, "reduce": how, "box": judge._pair(*sides)}


def run(name: str, model: Model, work: Path, limit: int, seed: int, *, deep: bool) -> Iterator[dict[str, Any]]:
    from lightning_modules.data import to_float

    started = time.monotonic()
    denoiser, seconds = load(model, name, work, limit, seed)
    pool = items(name, denoiser.input_size, limit, seed)
    judge = Judge(name, pool)
    with torch.inference_mode():
        latents = torch.cat(
            [
                denoiser.latent(to_float(torch.stack([i.image for i in pool[s : s + 16]])))
                for s in range(0, len(pool), 16)
            ]
        ).float()
    rows = list(measure(judge, denoiser, latents, deep=deep))
    yield from rows
    if denoiser.space == "features":
        yield from rival(judge, latents)
    if deep:
        best = max((r for r in rows if r["kind"] == "level" and r["score"] == "E"), key=lambda r: r["box"][0])
        yield from crops_against_maps(judge, denoiser, best["t"], best["reduce"])
    counts = {
        "images": len(pool),
        "rare": int(judge.rare.sum()),
        "clean": int(judge.clean.sum()),
        "boxes": len(judge.rare_box),
    }
    yield {"kind": "about", **counts, "fit seconds": seconds, "seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--work", type=Path, required=True, help="folder for fitted models and results.jsonl")
    parser.add_argument("--limit", type=int, default=300, help="images per set (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="models whose name holds this")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results = args.work / "results.jsonl"
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    done = {(r["set"], r["model"], r["limit"], r["seed"]) for r in known if r["kind"] == "about"}
    for name in args.sets:
        for place, model in enumerate(MODELS[name]):
            key = {"set": name, "model": model.name, "limit": args.limit, "seed": args.seed}
            if tuple(key.values()) in done or (args.only and args.only not in model.name):
                continue
            rows = list(run(name, model, args.work, args.limit, args.seed, deep=place == 0))
            with results.open("a") as stream:
                stream.writelines(json.dumps({**key, **row}) + "\n" for row in rows)
            print(json.dumps({**key, **rows[-1]}), flush=True)


if __name__ == "__main__":
    main()
