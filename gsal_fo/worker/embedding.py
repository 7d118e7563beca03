"""Text and crop embeddings in a worker process: for the concept-graph builders, and for labels that come later."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gsal_fo.run_folder import shards
from gsal_fo.worker.process import run_worker

WORKER = "lightning_modules.embed"
OnEvent = Callable[[dict[str, Any]], None]


def embed(
    texts: Sequence[str],
    crops: Sequence[tuple[str, Sequence[float]]] = (),
    *,
    clip: str = "embedded",
    pretrained: str | None = None,
    encoder: str | None = None,
    pad: float = 0.2,
    on_event: OnEvent | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Embed texts and crops with one CLIP model, or crops with another encoder.

    Args:
        texts: T texts.
        crops: C (image file, box ``xywh_rel``).
        clip, pretrained: as of `gsal score`.
        encoder: embeds the crops in place of the CLIP model's image tower; there must be no texts then.
        pad: share of the box's size around each crop.
        on_event: receives the worker's events.

    Returns:
        Unit rows (T, D) and (C, D) float32; a crop whose image cannot be read is NaN.

    Raises:
        WorkerError: the model cannot be loaded, or the worker was killed.
    """
    with tempfile.TemporaryDirectory(prefix="gsal-embed-") as place:
        folder = Path(place)
        name = str(Path(clip).expanduser().absolute()) if Path(clip).expanduser().is_dir() else clip
        config = {
            "kind": "embed",
            "clip": name,
            "pretrained": pretrained,
            "encoder": encoder,
            "texts": list(texts),
            "pad": pad,
        }
        shards.write_record(config, folder / shards.CONFIG)
        rows = {
            "id": [str(i) for i in range(len(crops))],
            "filepath": [str(path) for path, _ in crops],
            "role": ["pool"] * len(crops),
            "boxes": [[float(v) for v in box] for _, box in crops],
            "labels": [None] * len(crops),
            "scores": [None] * len(crops),
        }
        shards.write_manifest(pa.Table.from_pydict(rows, schema=shards.MANIFEST), folder / "manifest.parquet")
        for event in run_worker(WORKER, ["--run-dir", str(folder)]):
            if on_event and event["event"] not in ("done", "error"):
                on_event(event)
        return np.load(folder / "texts.npy"), np.load(folder / "crops.npy")
