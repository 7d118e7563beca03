"""A scoring run in progress: each stage streams over the rows that it wants and has not done, all ranks together."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from gsal_fo.config import ScoreConfig
from gsal_fo.run_folder import shards, tables
from gsal_fo.run_folder.shards import ShardError
from lightning_modules import worker
from lightning_modules.data import Loader, RowChunks, chunk_loader, is_labeled
from lightning_modules.progress import Reporter
from lightning_modules.writer import ShardWriter

CHUNK = 16  # rows decoded together: enough to fill batches of crops, few enough that a kill costs little


class Run:
    """One scoring run in progress: its folder, its settings, and what each stage took."""

    def __init__(self, folder: Path, config: ScoreConfig, reporter: Reporter) -> None:
        self.folder, self.config, self.reporter = folder, config, reporter
        self.timings: dict[str, float] = {}
        self.manifest = folder / "manifest.parquet"
        if not self.manifest.is_file():
            raise ShardError(f"{self.manifest} is missing: {folder} is not a GSAL run folder")

    def predict(
        self,
        stage: str,
        name: str,
        module: pl.LightningModule,
        load: Loader,
        files: list[Path],
        *,
        digest: str,
        wanted: Callable[[dict[str, Any]], bool],
    ) -> None:
        """Run one stage over the rows that are wanted and not done, all ranks together."""
        started = time.monotonic()
        done = shards.done_ids(self.folder, name, digest=digest)
        undone = Undone(done, wanted)
        data = RowChunks(files, size=CHUNK, load=load, wanted=undone, rank=worker.rank(), world=worker.world())
        rows = [0, *itertools.accumulate(stop - start for _, start, stop in data.spans)]
        total = sum(tables.rows(path) for path in files)

        def passed(chunks: int) -> None:  # other ranks are taken to be as far as this one
            self.reporter.progress(stage, min(rows[chunks] * worker.world(), total), total)

        writer = ShardWriter(self.folder, name, digest=digest, rank=worker.rank(), on_chunk=passed)
        trainer = worker.trainer(precision=self.config.precision, callbacks=[writer])
        self.reporter.progress(stage, 0, total)
        # A small pool has fewer chunks than there are processes: those without one wait for the others.
        module.allow_zero_length_dataloader_with_multiple_devices = True
        trainer.predict(module, chunk_loader(data, workers=self.config.workers), return_predictions=False)
        barrier(trainer)
        self.reporter.progress(stage, total, total)
        self.timings[stage] = time.monotonic() - started
        self.reporter.stage(stage, self.timings[stage])

    def report_failures(self) -> int:
        """Tell each image that has no result, once, with its first reason; returns their number."""
        bad: dict[str, str] = {}
        for stage in ("proposals", "difficulty", "concepts"):
            table = shards.read_stage(self.folder, stage, columns=["id", "error"])
            for sample_id, reason in zip(table["id"].to_pylist(), table["error"].to_pylist(), strict=True):
                if reason:
                    bad.setdefault(sample_id, reason)
        for sample_id, reason in sorted(bad.items()):
            self.reporter.failed(sample_id, reason)
        return len(bad)


class Undone:
    """Row filter: wanted and without a result yet. A class, not a closure, so that a loader process can receive it."""

    def __init__(self, done: set[str], wanted: Callable[[dict[str, Any]], bool]) -> None:
        self.done, self.wanted = done, wanted

    def __call__(self, row: dict[str, Any]) -> bool:
        return row["id"] not in self.done and self.wanted(row)


def is_pool(row: dict[str, Any]) -> bool:
    """Whether a manifest row is of the pool."""
    return not is_labeled(row)


def is_good(row: dict[str, Any]) -> bool:
    """Whether a proposals row has proposals; a failed image is not decoded again."""
    return not row["error"]


def barrier(trainer: pl.Trainer) -> None:
    """Wait until every rank has written its parts."""
    if worker.world() > 1:
        trainer.strategy.barrier()


def everyone() -> None:
    """Wait for all ranks, between stages."""
    if worker.world() > 1:
        torch.distributed.barrier()


def summed(*counts: int) -> list[int]:
    """Each count summed over all ranks; every rank calls this and gets the sums."""
    total = torch.tensor(counts, dtype=torch.int64, device="cuda" if torch.cuda.is_available() else "cpu")
    if worker.world() > 1:
        torch.distributed.all_reduce(total)
    return total.tolist()
