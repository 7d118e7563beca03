"""Worker: CLIP embeddings of some texts and crops, for the concept-graph builders. ``python -m lightning_modules.embed
--run-dir DIR``."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_modules import worker
from lightning_modules.data import RowChunks
from lightning_modules.nets import load_clip, load_encoder
from lightning_modules.progress import Reporter
from lightning_modules.stages.embeddings import CropEmbedder, CropLoader

BATCH = 64


def embed(folder: Path, config: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Write ``texts.npy`` (T, D) and ``crops.npy`` (C, D), NaN rows where an image cannot be read."""
    named, texts, rows = config.get("encoder"), config["texts"], []
    clip = load_clip(config["clip"], config["pretrained"]) if not named else None
    net = load_encoder(str(named)) if clip is None else clip
    if torch.cuda.is_available():
        net.cuda()
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            if clip is None:
                raise ValueError(f"the encoder {named} knows no texts; leave them out")
            rows.append(clip.encode_text(texts[start : start + BATCH]).cpu().numpy())
            reporter.progress("texts", min(start + BATCH, len(texts)), len(texts))
        loader = CropLoader(size=net.input_size, pad=config["pad"])
        chunks = RowChunks([folder / "manifest.parquet"], size=16, load=loader, wanted=_all)
        module = CropEmbedder(net, batch_size=BATCH).to(next(net.parameters()).device)
        crops: list[np.ndarray] = []
        for i in range(len(chunks)):
            for row in module.predict_step(chunks[i], i):
                if row.get("error"):
                    reporter.failed(row["id"], row["error"])
                crops.append(np.full(net.embed_dim, np.nan) if row.get("error") else row["embeddings"])
            reporter.progress("crops", i + 1, len(chunks))
    empty = np.empty((0, net.embed_dim), np.float32)
    np.save(folder / "texts.npy", np.concatenate([empty, *rows]).astype(np.float32))
    np.save(folder / "crops.npy", np.stack(crops).astype(np.float32) if crops else empty)
    return {"texts": len(texts), "crops": len(crops)}


def _all(row: dict[str, Any]) -> bool:
    return True


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(worker.main("embed", embed, module="lightning_modules.embed"))
