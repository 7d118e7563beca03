"""Crop embeddings: batching and devices around an image encoder (CLIP's image tower, or any other)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl

from gsal_fo.boxes import WHOLE_IMAGE
from gsal_fo.images import read_image
from lightning_modules.data import crops, groups, to_float
from lightning_modules.nets import Clip, Encoder


@dataclass
class CropLoader:
    """Cuts a row's boxes out of its image at the encoder's input size, and adds the whole image as the last crop."""

    size: int
    pad: float

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        pixels, _ = read_image(row["filepath"])
        boxes = np.concatenate([row["boxes"].reshape(-1, 4), WHOLE_IMAGE])
        return {"crops": crops(pixels, boxes, pad=self.pad, size=self.size)}


class CropEmbedder(pl.LightningModule):
    """One unit vector per box, one of the whole image. ``encoder`` has ``embed``: (B, 3, H, W) in [0, 1] to (B, D)."""

    def __init__(self, encoder: Encoder | Clip, *, batch_size: int) -> None:
        super().__init__()
        self.encoder, self.batch_size = encoder, batch_size

    def predict_step(self, batch: list[dict[str, Any]], batch_idx: int) -> list[dict[str, Any]]:
        """Crops of all rows of the chunk go through the encoder together."""
        cut = (
            ((r, i), crop) for r, row in enumerate(batch) if not row.get("error") for i, crop in enumerate(row["crops"])
        )
        vectors: dict[tuple[int, int], np.ndarray] = {}
        for keys, x in groups(cut, self.batch_size):
            embedded = self.encoder.embed(to_float(x.to(self.device))).float().cpu().numpy()
            vectors |= dict(zip(keys, embedded, strict=True))
        return [self._row(r, row, vectors) for r, row in enumerate(batch)]

    @staticmethod
    def _row(r: int, row: dict[str, Any], vectors: dict[tuple[int, int], np.ndarray]) -> dict[str, Any]:
        head = {"id": row["id"], "role": row.get("role") or "pool"}
        if row.get("error"):
            return {**head, "error": row["error"]}
        *mine, image = (vectors[r, i].astype(np.float16) for i in range(len(row["crops"])))
        flat = np.concatenate(mine) if mine else np.empty(0, np.float16)
        return {**head, "embeddings": flat, "image": image, "dim": len(image)}
