"""Training a U-Net on latents: every step is a function of (seed, step), so that an interrupted fit goes on exactly."""

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gsal_fo.fit_settings import FitSettings
from lightning_modules import worker
from lightning_modules.fit_diffusion.latents import Latents
from lightning_modules.fit_diffusion.unet import window_of

WARM_UP = 50  # steps
Example = tuple[Tensor, Tensor, Tensor]  # clean latents (B, C, w, w), diffusion steps (B,), noise


class Batches:
    """Training examples by step number: which images, windows, mirrors, diffusion steps and noise.

    No loader's position and no generator's state decides them, so a checkpoint needs neither. Each epoch is a new order
    of the images, cut into whole batches. Of a batch a process takes every ``world``-th example.
    """

    def __init__(self, latents: Latents, settings: FitSettings, diffusion_steps: int) -> None:
        self.latents, self.seed, self.diffusion_steps = latents, settings.seed, diffusion_steps
        self.window = window_of(settings, latents.z.shape[-1])
        self.size = min(settings.batch, len(latents.train))
        self.per_epoch = len(latents.train) // self.size

    def __call__(self, step: int) -> Example:
        """This process's share of the batch of ``step``."""
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(self.latents.train)
        rng = np.random.default_rng([self.seed, 2, step])
        rows = order[place * self.size : (place + 1) * self.size]
        corners = rng.integers(0, self.latents.z.shape[-1] - self.window + 1, size=(self.size, 2))
        mirrored = rng.random(self.size) < 0.5
        # One diffusion step in each of B equal parts of [0, T): the loss of a batch varies less than with free draws.
        t = (np.arange(self.size) + rng.random(self.size)) * self.diffusion_steps / self.size
        noise = rng.standard_normal((self.size, self.latents.z.shape[1], self.window, self.window), dtype=np.float32)
        own = slice(worker.rank(), None, worker.world())
        z = cut(self.latents.read(rows[own]), corners[own], self.window)
        z = torch.where(torch.from_numpy(mirrored[own]).view(-1, 1, 1, 1), z.flip(3), z)
        return z, torch.from_numpy(t[own].astype(np.int64)), torch.from_numpy(noise[own])


def cut(z: Tensor, corners: np.ndarray, side: int) -> Tensor:
    """Windows (B, C, side, side) of maps (B, C, h, w) at ``corners`` (B, 2): top, left."""
    if side == z.shape[-1]:
        return z
    return torch.stack([m[:, a : a + side, b : b + side] for m, (a, b) in zip(z, corners.tolist(), strict=True)])


def warmed_average(decay: float) -> Any:
    """AveragedModel's update: an exponential average whose memory grows from the first steps to ``decay``, so that the
    random start is soon forgotten (the rule of diffusers' EMAModel)."""

    @torch.no_grad()
    def update(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + n) / (10 + n)))

    return update


class LatentTrainer(pl.LightningModule):
    """Mean squared error of the U-Net's prediction at random diffusion steps, and an average of its weights.

    Source: Ho et al. 2020 (arXiv:2006.11239) Algorithm 1; v-prediction by Salimans & Ho 2022 (arXiv:2202.00512).
    """

    def __init__(self, unet: nn.Module, scheduler: Any, settings: FitSettings, batches: Batches, steps: int) -> None:
        super().__init__()
        self.unet, self.scheduler, self.settings, self.batches, self.steps = unet, scheduler, settings, batches, steps
        self.average = AveragedModel(unet, multi_avg_fn=warmed_average(settings.ema)).requires_grad_(False)

    def errors(self, unet: nn.Module, example: Example) -> Tensor:
        """Squared error of the prediction (B,), mean over elements."""
        z, t, noise = (part.to(self.device) for part in example)
        noised = self.scheduler.add_noise(z, noise, t)
        kind = self.settings.prediction
        if kind == "v_prediction":
            target = self.scheduler.get_velocity(z, noise, t)
        else:
            target = noise if kind == "epsilon" else z
        return (unet(noised, t).sample - target).square().flatten(1).mean(1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The step's own batch; what the loader hands in is only a tick."""
        errors = self.errors(self.unet, self.batches(self.global_step))
        return (
            errors.sum() * worker.world() / self.batches.size
        )  # DDP's mean is then the whole batch's, shared evenly or not

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, then the average: before any callback looks at the weights or saves them."""
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.unet)

    def configure_optimizers(self) -> Any:
        """AdamW, warm-up, cosine."""
        optimizer = torch.optim.AdamW(self.unet.parameters(), lr=self.settings.lr, weight_decay=0.01)

        def share(step: int) -> float:
            return min((step + 1) / WARM_UP, 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps))) + 0.01)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class HeldOut:
    """The averaged model's loss on held-out images, at fixed windows and noise, by noise level."""

    LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
    MOST = 64  # images: more would cost more than they tell

    def __init__(self, latents: Latents, settings: FitSettings, diffusion_steps: int) -> None:
        rows = latents.held_out
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(self.MOST, len(rows))).astype(int))]
        rng = np.random.default_rng([settings.seed, 3])
        window = window_of(settings, latents.z.shape[-1])
        corners = rng.integers(0, latents.z.shape[-1] - window + 1, size=(len(rows), 2))
        self.z = cut(latents.read(rows), corners, window)
        self.noise = torch.from_numpy(rng.standard_normal(tuple(self.z.shape), dtype=np.float32))
        assert settings.guard is not None
        self.guard, self.T, self.batch = settings.guard, diffusion_steps, settings.batch
        self.levels = sorted({*self.LEVELS, self.guard})

    @torch.no_grad()
    def losses(self, module: LatentTrainer) -> dict[float, float]:
        """Loss by noise level; over all processes, each having done its share."""
        own = slice(worker.rank(), None, worker.world())
        z, noise = self.z[own], self.noise[own]
        out = torch.zeros(len(self.levels), dtype=torch.float64)
        for i, level in enumerate(self.levels):
            for start in range(0, len(z), self.batch):
                part = slice(start, start + self.batch)
                t = torch.full((len(z[part]),), min(int(level * self.T), self.T - 1))
                out[i] += module.errors(module.average.module, (z[part], t, noise[part])).double().sum().cpu()
        total = module.trainer.strategy.reduce(out.to(module.device), reduce_op="sum")
        return dict(zip(self.levels, (total.cpu() / len(self.z)).tolist(), strict=True))
