"""Measurements of one denoiser on one set; each yields rows of ``results.jsonl``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from truth import Item, Judge, compare

from gsal_fo.acquisition.correction import local_contrast, residual
from gsal_fo.acquisition.normalize import z_score, z_score_by_group
from gsal_fo.diffusion import denoise, per_sample_noise, reconstruction_maps, reduce_map, shared_noise
from lightning_modules.data import crops, to_float

REDUCTIONS = ("mean", "max", "topk")
BANK = 4000  # cells
DEEP = 60  # images of the questions that need many draws or crops
Maps = dict[str, tuple[np.ndarray, np.ndarray]]


def step_of(denoiser: Any, share: float) -> int:
    total = len(denoiser.alphas_cumprod)
    return min(total - 1, round(share * total))


@torch.inference_mode()
def predictions(denoiser: Any, z: torch.Tensor, share: float, noise: torch.Tensor) -> torch.Tensor:
    """Clean predictions (B, K, C, h, w) of latents, as the scorer makes them."""
    t = step_of(denoiser, share)
    return denoise(z, noise, t=t, steps=1, alpha_bar=denoiser.alphas_cumprod, predict_x0=denoiser.predict_x0)


@torch.inference_mode()
def statistic_maps(denoiser: Any, latents: torch.Tensor, share: float, parts: dict[str, slice], noise: str) -> Maps:
    """E and V maps (N, h, w) by name, for each named part of the draws."""
    draws, shape = max(s.stop for s in parts.values()), latents.shape[1:]
    out: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in parts}
    shared = shared_noise(draws, shape, seed=0)
    for start in range(0, len(latents), 4):
        z = latents[start : start + 4]
        keys = [str(i) for i in range(start, start + len(z))]
        eps = shared if noise == "shared" else per_sample_noise(keys, draws, shape, seed=0)
        z_hat = predictions(denoiser, z, share, eps)
        for name, part in parts.items():
            out[name].append(reconstruction_maps(z, z_hat[:, part]))
    return {
        name: (torch.cat([e for e, _ in pairs]).numpy(), torch.cat([v for _, v in pairs]).numpy())
        for name, pairs in out.items()
    }


def reduced(maps: np.ndarray, how: str) -> np.ndarray:
    return reduce_map(torch.from_numpy(maps), how).numpy()


def mixed(error: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Eq. 7 with equal weights."""
    return z_score(error) + z_score(variance)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return round(float(spearmanr(a, b).statistic), 3)


def levels(judge: Judge, denoiser: Any, latents: torch.Tensor, shares: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """E, V and D at each noise level, for each reduction, with 4 shared draws."""
    for share in shares:
        maps = statistic_maps(denoiser, latents, share, {"4": slice(0, 4)}, "shared")["4"]
        for how in REDUCTIONS:
            error, variance = (reduced(m, how) for m in maps)
            (e_true, e_other), (v_true, v_other) = (judge.boxes(m, how) for m in maps)
            both = mixed(np.concatenate([e_true, e_other]), np.concatenate([v_true, v_other]))
            image = {"E": error, "V": variance, "D": mixed(error, variance)}
            box = {"E": (e_true, e_other), "V": (v_true, v_other), "D": tuple(np.split(both, [len(e_true)]))}
            for which, score in image.items():
                found = judge.of_images(score) | judge.of_boxes(*box[which])
                if which == "E":
                    found |= judge.control(maps[0], how)
                yield {"kind": "level", "t": share, "reduce": how, "score": which, **found}


def variants(judge: Judge, maps: np.ndarray, share: float, how: str) -> Iterator[dict[str, Any]]:
    """Other maps made of E, reduced as E is: inner cells alone, by position, by local contrast, by what is connected.

    ``maps``: E (N, h, w). None of them is an option of the product; the medians are over the images at hand.
    """
    from scipy.ndimage import label, uniform_filter

    usual = np.median(maps, axis=0)  # (h, w)
    contrast = contrast_maps(judge.pool, maps.shape[1:])
    high = float(np.quantile(maps, 0.95))

    def connected(values: np.ndarray) -> np.ndarray:
        """At each cell the sum of what its connected region has above the pool's 95 % quantile."""
        excess = np.maximum(values - high, 0)
        region, _ = label(excess > 0, np.ones((3, 3)))
        sums = np.bincount(region.ravel(), excess.ravel())
        return np.where(region > 0, sums[region], 0)

    inner = np.full_like(maps, maps.min())
    inner[:, 1:-1, 1:-1] = maps[:, 1:-1, 1:-1]
    made = {
        "E": maps,
        "without the outer ring": inner,
        "minus median of the position": maps - usual,
        "over median of the position": maps / (usual + 1e-12),
        "over local contrast": maps / (contrast + np.median(contrast[contrast > 0])),
        "mean of 3 x 3 cells": uniform_filter(maps, (0, 3, 3), mode="nearest"),
        "sum over connected cells": np.stack([connected(m) for m in maps]),
    }
    for name, values in made.items():
        values = values.astype(np.float32)
        found = judge.of_images(reduced(values, how)) | judge.of_boxes(*judge.boxes(values, how))
        yield {"kind": "variant", "of": name, "t": share, "reduce": how, **found, **judge.control(values, how)}


def cell_contrast(item: Item, shape: tuple[int, ...]) -> np.ndarray:
    """Local contrast of the picture under each cell (h, w)."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    boxes = np.stack([x / width, y / height, np.full(shape, 1 / width), np.full(shape, 1 / height)], -1).reshape(-1, 4)
    return contrast_of(item, boxes).reshape(shape)


def draws(judge: Judge, denoiser: Any, latents: torch.Tensor) -> Iterator[dict[str, Any]]:
    """At the model's own level: K, repeatability between disjoint halves of 32 draws, noise modes."""
    share, how = denoiser.defaults["t"], denoiser.defaults["reduce"]
    parts = {str(k): slice(0, k) for k in (2, 4, 8, 16)} | {f"{k}'": slice(16, 16 + k) for k in (2, 4, 8, 16)}
    for noise in ("shared", "per_sample"):
        maps = statistic_maps(denoiser, latents, share, parts, noise)
        values = {n: [reduced(m, how) for m in pair] for n, pair in maps.items()}
        for k in (2, 4, 8, 16):
            row: dict[str, Any] = {"kind": "draws", "t": share, "reduce": how, "noise": noise, "K": k}
            for i, which in enumerate("EV"):
                a, b = values[str(k)][i], values[f"{k}'"][i]
                found = judge.of_images(a) | judge.of_boxes(*judge.boxes(maps[str(k)][i], how))
                row[which] = {"repeats": spearman(a, b), **found}
            yield row


def corrections(judge: Judge, maps: np.ndarray, share: float, how: str) -> Iterator[dict[str, Any]]:
    """Pool against per-concept normalization (by the class of an image's first box), and against size and texture."""
    image, (true, other) = reduced(maps, how), judge.boxes(maps, how)
    names = sorted({label for i in judge.pool for label in i.labels})
    group = np.array([names.index(i.labels[0]) if i.labels else -1 for i in judge.pool])
    base = {"kind": "correction", "t": share, "reduce": how}
    yield {**base, "how": "pool", **judge.of_images(image), **judge.of_boxes(true, other)}
    yield {**base, "how": "concept", **judge.of_images(z_score_by_group(image, group, shrink=10.0))}
    whole = np.array([[0.0, 0.0, 1.0, 1.0]])
    contrast = np.concatenate([contrast_of(i, whole) for i in judge.pool])
    area = judge.box_covariates(lambda _, boxes: boxes[:, 2] * boxes[:, 3])
    local = judge.box_covariates(contrast_of)
    both = np.concatenate([true, other])
    follows = {"image contrast": spearman(image, contrast), "box area": spearman(both, area)}
    yield {**base, "how": "follows", **follows, "box contrast": spearman(both, local)}
    found = judge.of_images(residual(image, contrast))
    for name, covariates in {"size": (area,), "texture": (local,), "size and texture": (area, local)}.items():
        left = residual(both, *covariates)
        boxes = judge.of_boxes(left[: len(true)], left[len(true) :])
        yield {**base, "how": name, **({} if name == "size" else found), **boxes}


def contrast_of(item: Item, boxes: np.ndarray) -> np.ndarray:
    return local_contrast(item.image.numpy().mean(0) / 255, boxes)


@torch.inference_mode()
def nearest_patches(latents: torch.Tensor) -> np.ndarray:
    """The rival: distance (N, h, w) of each cell to the nearest cell of other images in a random bank of cells."""
    n, channels, height, width = latents.shape
    rows = torch.from_numpy(np.random.default_rng(0).choice(n * height * width, min(BANK, n * height * width), False))
    cells = latents.permute(0, 2, 3, 1).reshape(-1, channels)
    known, owner = cells[rows], rows // (height * width)
    out = []
    for i, own in enumerate(cells.view(n, -1, channels)):
        far = torch.cdist(own, known[owner != i])
        out.append(far.min(1).values.reshape(height, width))
    return torch.stack(out).numpy()


def rivals(judge: Judge, latents: torch.Tensor, *, bank: bool) -> Iterator[dict[str, Any]]:
    """What must be beaten: no model at all, the local contrast of the picture under each cell; and the patch bank."""
    maps = {"local contrast": contrast_maps(judge.pool, latents.shape[2:])}
    if bank:
        maps["patch bank"] = nearest_patches(latents)
    for name, values in maps.items():
        for how in REDUCTIONS:
            found = judge.of_images(reduced(values, how)) | judge.of_boxes(*judge.boxes(values, how))
            yield {"kind": "rival", "of": name, "reduce": how, **found, **judge.control(values, how)}


def contrast_maps(pool: list[Item], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([cell_contrast(i, shape) for i in pool]).astype(np.float32)


@torch.inference_mode()
def crops_against_maps(judge: Judge, denoiser: Any, whole: np.ndarray) -> Iterator[dict[str, Any]]:
    """``regions="crops"``: each box cut, resized to the model's crop size and scored by itself; ``whole``, the E maps
    of the images (N, h, w), on the same boxes.

    Three true and three background boxes a picture bound the cost.
    """
    share, how = denoiser.defaults["t"], denoiser.defaults["reduce"]
    size = min(denoiser.input_size, int(denoiser.defaults["crop_size"]))
    few = [Item(i.image, i.boxes[:3], i.labels[:3], i.background[:3]) for i in judge.pool]
    short = Judge(judge.name, few)
    yield {"kind": "regions", "regions": "maps", "t": share, "reduce": how, "box": compare(*short.boxes(whole, how))}
    sides = []
    for kind in ("boxes", "background"):
        values = []
        for item in few:
            boxes = getattr(item, kind)
            if not len(boxes) or not item.labels:
                continue
            cut = crops(item.image.permute(1, 2, 0).numpy(), boxes, pad=0.2, size=size)
            z = denoiser.latent(to_float(cut)).float()
            error, _ = reconstruction_maps(z, predictions(denoiser, z, share, shared_noise(4, z.shape[1:], seed=0)))
            values.append(reduce_map(error, how).numpy())
        sides.append(np.concatenate(values))
    yield {"kind": "regions", "regions": "crops", "t": share, "reduce": how, "box": compare(*sides)}
