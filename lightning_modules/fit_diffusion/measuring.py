"""How well a model's statistics separate defects, on synthetic slices whose truth is known."""

from typing import Any

import numpy as np
import torch

from gsal_fo.acquisition.normalize import z_score
from gsal_fo.diffusion import reduce_map, region_statistics
from gsal_fo.synthetic.thin_film import RARE
from lightning_modules.data import resized
from lightning_modules.fit_diffusion.sheets import error_maps
from lightning_modules.nets import Denoiser

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
REDUCTIONS = ("mean", "max", "topk")


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive exceeds a negative, ties counted half; NaN where one side is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    both = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # average rank of ties
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative)))


def measure(denoiser: Denoiser, slices: list[Any], seed: int = 0) -> list[dict[str, Any]]:
    """AUROC on slices with ground truth, one row per (t, reduce).

    ``*_image``: an image with a defect (with a rare one) against the images without; ``*_box``: a defect's box against
    boxes of the same sizes laid at random over images without defects; ``*_texture_image``: harmless textures against
    plain images (high is what difficulty alone falls for); ``*_rare_over_texture``: a rare defect against those. For
    E, V and D, the sum of their z-scores.
    """
    rng = np.random.default_rng([seed, 4])
    images = [resized(np.repeat(s.image[..., None], 3, 2), denoiser.input_size) for s in slices]
    clean = np.array([not s.labels for s in slices])
    rare = np.array([any(label in RARE for label in s.labels) for s in slices])
    textured = np.array([bool(s.textures) for s in slices])
    sizes = np.concatenate([s.boxes[:, 2:] for s in slices if s.labels]) / slices[0].image.shape[0]
    random_boxes = {}
    for i in np.flatnonzero(clean):
        size = sizes[rng.integers(len(sizes), size=4)]
        random_boxes[i] = np.concatenate([rng.uniform(0, 1, (4, 2)) * (1 - size), size], 1)
    out = []
    is_rare = np.array([label in RARE for s in slices for label in s.labels])
    for share in SHARES:
        maps = [m.numpy() for m in error_maps(denoiser, images, share)]
        for how in REDUCTIONS:
            row: dict[str, Any] = {"t": share, "reduce": how}
            image = [reduce_map(torch.from_numpy(m), how).numpy() for m in maps]
            inside, outside = [], []
            for m in maps:
                parts = [region_statistics(g, s.boxes / s.image.shape[0], how) for g, s in zip(m, slices, strict=True)]
                inside.append(np.concatenate(parts))
                outside.append(np.concatenate([region_statistics(m[i], b, how) for i, b in random_boxes.items()]))
            # D of Eq. 7 and 8 in the same breath: the two z-scores' sum, over all images and over all boxes.
            image.append(z_score(image[0]) + z_score(image[1]))
            both = [z_score(np.concatenate(pair)) for pair in zip(inside, outside, strict=True)]
            inside.append((both[0] + both[1])[: len(is_rare)])
            outside.append((both[0] + both[1])[len(is_rare) :])
            for name, v, box, other in zip("EVD", image, inside, outside, strict=True):
                row[f"{name}_defect_image"] = auroc(v[~clean], v[clean])
                row[f"{name}_rare_image"] = auroc(v[rare], v[clean])
                row[f"{name}_texture_image"] = auroc(v[clean & textured], v[clean & ~textured])
                row[f"{name}_rare_over_texture"] = auroc(v[rare], v[clean & textured])
                row[f"{name}_defect_box"] = auroc(box, other)
                row[f"{name}_rare_box"] = auroc(box[is_rare], other)
            out.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    return out
