"""What watches a training: how many steps are done, and checkpoints that are whole or not there."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint


class Ticker(pl.Callback):
    """Tells how many steps are done."""

    def __init__(self, on_step: Callable[[int], None]) -> None:
        self.on_step = on_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """One more."""
        self.on_step(trainer.global_step)


class WholeCheckpoint(Checkpoint):
    """Saves every so many seconds, under another name first: a kill while writing leaves the last one as it was.

    Lightning runs checkpoint callbacks after all others, so what it saves has the guard's look in it.
    """

    def __init__(self, path: Path, every_s: float) -> None:
        self.path, self.every_s, self._last = path, every_s, time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save where it is time; rank 0's clock decides for all, since all take part in saving."""
        due = time.monotonic() - self._last >= self.every_s
        if trainer.world_size > 1:
            due = bool(trainer.strategy.broadcast(due))
        if due:
            temporary = self.path.with_suffix(".tmp")
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                os.replace(temporary, self.path)
            self._last = time.monotonic()
