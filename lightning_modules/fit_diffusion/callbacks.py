"""What watches a fit: the loss on held-out images, which decides when it ends and which weights are kept."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from lightning_modules.fit_diffusion.trainer import HeldOut


class Guard(pl.Callback):
    """Looks at the held-out images every ``check`` steps, keeps the average weights that did best at the guard's noise
    level, and ends the fit after ``patience`` looks without a better one.

    Attributes:
        curve: one row per look: step, train (mean training loss since the look before) and the loss by noise level.
        best: the weights kept, by name; ``best_step`` their step.
        ended: whether the guard ended the fit.
    """

    def __init__(self, held_out: HeldOut, *, check: int, patience: int, steps: int) -> None:
        self.held_out, self.check, self.patience, self.steps = held_out, check, patience, steps
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_step, self.ended = 0, False
        self._sum, self._count = 0.0, 0

    def on_fit_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """A fit that the guard had ended before it was killed ends at once."""
        trainer.should_stop = trainer.should_stop or self.ended

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *args: Any) -> None:
        """Count; look where it is time."""
        self._sum, self._count = self._sum + float(outputs["loss"]), self._count + 1
        if trainer.global_step % self.check == 0 or trainer.global_step == self.steps:
            self.look(trainer.global_step, module)
            if self.ended:
                trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        """A fit that its time ended is looked at once more."""
        if not self.curve or self.curve[-1]["step"] != trainer.global_step:
            self.look(trainer.global_step, module)

    def look(self, step: int, module: Any) -> None:
        """One row of the curve; the weights where they are the best yet."""
        losses = self.held_out.losses(module)
        train = self._sum / max(1, self._count)
        self.curve.append({"step": step, "train": train, **{f"t={k:g}": v for k, v in losses.items()}})
        self._sum, self._count = 0.0, 0
        guard = f"t={self.held_out.guard:g}"
        if not self.best or self.curve[-1][guard] < min(row[guard] for row in self.curve[:-1]):
            self.best = {k: v.detach().clone() for k, v in module.average.module.state_dict().items()}
            self.best_step = step
        self.ended = step - self.best_step >= self.patience * self.check

    @property
    def best_row(self) -> dict[str, float]:
        """The curve's row of the weights that were kept."""
        return next(row for row in self.curve if row["step"] == self.best_step)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        facts = {"curve": self.curve, "best": self.best, "best_step": self.best_step, "ended": self.ended}
        return {**facts, "sums": [self._sum, self._count]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.curve, self.best, self.best_step = state["curve"], state["best"], state["best_step"]
        self.ended = state["ended"]
        self._sum, self._count = state["sums"]
