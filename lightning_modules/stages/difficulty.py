"""Diffusion scorer: batching, caching and devices around ``gsal_fo.diffusion``."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from gsal_fo.config import DiffusionConfig, digest
from gsal_fo.diffusion import (
    denoise,
    per_sample_noise,
    reconstruction_maps,
    reduce_map,
    region_statistics,
    shared_noise,
)
from gsal_fo.images import read_image
from lightning_modules.cache import StatisticsCache
from lightning_modules.data import crops, groups, resized, to_float
from lightning_modules.nets import Denoiser

BOX_GRID = 1024  # crops are cut at this many steps per side, so that a cached crop is exactly the crop that was scored
LITERAL = {
    "t": 0.4,
    "reduce": "mean",
    "regions": "crops",
    "crop_size": 256,
    "screen": 1.0,
}  # METHOD.md's defaults, for any other folder


def resolve(config: DiffusionConfig, denoiser: Denoiser) -> dict[str, Any]:
    """The settings that scores depend on, None replaced by the model's own default or else the paper's.

    Raises ValueError for a screen where nothing is cropped.
    """
    chosen = {k: getattr(config, k) for k in LITERAL}
    chosen = {k: v if v is not None else denoiser.defaults.get(k, LITERAL[k]) for k, v in chosen.items()}
    if chosen["regions"] == "maps":
        if config.screen is not None and config.screen < 1:
            raise ValueError(
                f'screen={config.screen:g} saves nothing with regions="maps", this model\'s default, which scores no '
                'crops; set screen to 1 or regions to "crops"'
            )
        chosen["screen"] = 1.0
    return {**chosen, "draws": config.draws, "noise": config.noise, "steps": config.steps, "seed": config.seed}


def scorer_digest(settings: dict[str, Any], denoiser: Denoiser, *, pad: float) -> str:
    """Digest of all that scores depend on besides the images."""
    return digest(settings, denoiser.digest, pad)


def statistics_digest(settings: dict[str, Any], denoiser: Denoiser, *, pad: float) -> str:
    """Digest of all that the statistics of one image or crop depend on besides its pixels: not which are computed."""
    return digest({k: v for k, v in settings.items() if k not in ("regions", "screen")}, denoiser.digest, pad)


def quantized(boxes: np.ndarray) -> np.ndarray:
    """Relative boxes (N, 4) moved to the grid of crops, each at least one step wide and high."""
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    low = np.clip(np.round(b[:, :2] * BOX_GRID), 0, BOX_GRID - 1)
    high = np.clip(np.round((b[:, :2] + b[:, 2:]) * BOX_GRID), low + 1, BOX_GRID)
    return (np.concatenate([low, high - low], axis=1) / BOX_GRID).astype(np.float32)


@dataclass
class DifficultyLoader:
    """Loads what the scorer needs of one row: cached statistics where they are known, tensors where they are not."""

    size: int | None  # of the whole image; None: it is not wanted, only its crops are
    crop_size: int | None  # None: no crop is cut
    pad: float
    per_sample: bool
    cache: StatisticsCache | None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        pixels, content = read_image(row["filepath"])
        boxes = quantized(row["boxes"])
        salt = f":{hashlib.sha256(row['id'].encode()).hexdigest()[:16]}" if self.per_sample else ""
        image_key = f"{content}{salt}"
        crop_keys = [] if self.crop_size is None else [f"{image_key}:{_name(box)}" for box in boxes]
        wanted = [*([] if self.size is None else [image_key]), *crop_keys]
        known = self.cache.get(wanted) if self.cache else {}
        trouble = dict(self.cache.trouble) if self.cache else {}
        missing = [i for i, key in enumerate(crop_keys) if key not in known]
        out: dict[str, Any] = {"quantized": boxes, "image_key": image_key, "crop_keys": crop_keys, "known": known}
        out["cache_trouble"] = trouble
        if self.size is not None and image_key not in known:
            out["image"] = resized(pixels, self.size)
        if missing and self.crop_size is not None:
            out["crops"] = crops(pixels, boxes[missing], pad=self.pad, size=self.crop_size)
            out["crop_rows"] = missing
        return out


def _name(box: np.ndarray) -> str:
    return "-".join(str(round(float(v) * BOX_GRID)) for v in box)


class DiffusionScorer(pl.LightningModule):
    """Image and proposal statistics E, V of Eq. 5, 6 and 8. The denoiser is frozen; all K draws share one call.

    ``gives``: "all" as the settings say; "images" and proposals pooled from their maps; or "crops" alone.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        settings: dict[str, Any],
        *,
        batch_size: int,
        cache: StatisticsCache | None = None,
        gives: str = "all",
    ) -> None:
        super().__init__()
        self.denoiser, self.settings = denoiser.eval().requires_grad_(False), settings
        self.batch_size, self.cache, self.gives = batch_size, cache, gives
        self.scored = 0  # images and crops that went through the model: what a cache saves
        self.elements = 0  # latent elements that the denoiser was evaluated on: its work, whatever the machine
        self._noise: dict[tuple[int, ...], Tensor] = {}

    def maps(self, x: Tensor, keys: list[str]) -> Tensor:
        """E and V maps of images or crops (B, 3, H, W) in [0, 1]: (B, 2, h, w) float32."""
        s = self.settings
        z = self.denoiser.latent(x).float()
        shape = tuple(z.shape[1:])
        if s["noise"] == "shared":
            if shape not in self._noise:
                self._noise[shape] = shared_noise(s["draws"], shape, seed=s["seed"]).to(z)
            noise = self._noise[shape]
        else:
            noise = per_sample_noise(keys, s["draws"], shape, seed=s["seed"]).to(z)
        alpha_bar = self.denoiser.alphas_cumprod.to(z)
        t = min(len(alpha_bar) - 1, round(s["t"] * len(alpha_bar)))
        z_hat = denoise(z, noise, t=t, steps=s["steps"], alpha_bar=alpha_bar, predict_x0=self.denoiser.predict_x0)
        self.scored += len(x)
        self.elements += z_hat.numel() * s["steps"]
        return torch.stack(reconstruction_maps(z, z_hat.float()), 1)

    def predict_step(self, batch: list[dict[str, Any]], batch_idx: int) -> list[dict[str, Any]]:
        """Rows with ``error`` pass through; the others get image and proposal statistics and the error map."""
        good = [row for row in batch if not row.get("error")]
        fresh: dict[str, np.ndarray] = {}
        images = ((row["image_key"], row["image"]) for row in good if "image" in row)
        for keys, x in groups(images, self.batch_size):
            for key, m in zip(keys, self.maps(to_float(x.to(self.device)), keys).cpu().numpy(), strict=True):
                fresh[key] = np.concatenate([m.shape[1:], m.ravel()])
        cut = (
            (row["crop_keys"][i], crop)
            for row in good
            if "crops" in row
            for i, crop in zip(row["crop_rows"], row["crops"], strict=True)
        )
        for keys, x in groups(cut, self.batch_size):
            maps = self.maps(to_float(x.to(self.device)), keys)
            values = torch.stack([reduce_map(maps[:, i], self.settings["reduce"]) for i in (0, 1)], 1).cpu().numpy()
            fresh |= dict(zip(keys, values, strict=True))
        if self.cache:
            for row in good:
                self.cache.trouble |= row["cache_trouble"]
            self.cache.put(fresh)
        return [self._row(row, fresh) for row in batch]

    def _row(self, row: dict[str, Any], fresh: dict[str, np.ndarray]) -> dict[str, Any]:
        if row.get("error"):
            return {"id": row["id"], "error": row["error"]}
        how, values = self.settings["reduce"], {**row["known"], **fresh}
        regions: list[np.ndarray] = []
        if self.gives != "images" and self.settings["regions"] == "crops":
            pairs = np.array([values[key] for key in row["crop_keys"]], dtype=np.float32).reshape(-1, 2)
            regions = [pairs[:, 0], pairs[:, 1]]
            if self.gives == "crops":
                return {"id": row["id"], "proposal_error": regions[0], "proposal_variance": regions[1]}
        flat = values[row["image_key"]]
        height, width = int(flat[0]), int(flat[1])
        maps = flat[2:].astype(np.float32).reshape(2, height, width)
        error, variance = (float(v) for v in reduce_map(torch.from_numpy(maps), how))
        regions = regions or [region_statistics(m, row["quantized"], how) for m in maps]
        return {
            "id": row["id"],
            "image_error": error,
            "image_variance": variance,
            "proposal_error": regions[0],
            "proposal_variance": regions[1],
            "screened": True,
            "map": np.clip(maps[0].ravel(), None, np.finfo(np.float16).max).astype(np.float16),
            "map_width": width,
        }
