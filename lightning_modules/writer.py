"""Streams predicted rows into Parquet parts: memory holds one part, a kill loses at most one part's work."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter

from gsal_fo.run_folder.shards import write_part

PART_ROWS = int(os.environ.get("GSAL_PART_ROWS", "512"))  # smaller parts lose less to a kill and cost more files
PART_SECONDS = 10.0


class ShardWriter(BasePredictionWriter):
    """Writes what ``predict_step`` returns, a list of rows, as parts of one stage by this rank."""

    def __init__(self, run: Path, stage: str, *, digest: str, rank: int, on_chunk: Callable[[int], None]) -> None:
        super().__init__(write_interval="batch")
        self.run, self.stage, self.digest, self.rank, self.on_chunk = run, stage, digest, rank, on_chunk
        self._rows: list[dict[str, Any]] = []
        self._since = time.monotonic()

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the rows; write a part when it is large or old enough."""
        self._rows += prediction
        self.on_chunk(batch_idx + 1)
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._since >= PART_SECONDS:
            self._flush()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is left."""
        self._flush()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep finished rows when a person or an error stops the run."""
        self._flush()

    def _flush(self) -> None:
        if self._rows:
            write_part(self.run, self.stage, self._rows, digest=self.digest, rank=self.rank)
            self._rows = []
        self._since = time.monotonic()
