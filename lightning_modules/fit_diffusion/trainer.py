"""Training a U-Net on latents: every step is a function of (seed, step), so that an interrupted fit goes on exactly."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gsal_fo.fit_settings import FitSettings
from lightning_modules import worker
from lightning_modules.fit_diffusion.latents import Latents
from lightning_modules.fit_diffusion.unet import window_of
from lightning_modules.passes import Crew, PassTrainer

WARM_UP = 50  # steps
PASS = 8  # examples that go through the U-Net together on a CPU: a pass of a thread. By 16 a step costs 6 % more of one
# thread than whole, by 8 a quarter, by 4 a half (batches of 32); but a batch keeps only as many threads busy as it has
# passes
Example = tuple[Tensor, Tensor, Tensor]  # clean latents (B, C, w, w), diffusion steps (B,), noise


@dataclass(frozen=True)
class Draw:
    """What was drawn for B examples: rows of the latents, corners (B, 2) of windows, mirrored (B,), diffusion steps t
    (B,), noise (B, C, w, w)."""

    rows: np.ndarray
    corners: np.ndarray
    mirrored: np.ndarray
    t: np.ndarray
    noise: np.ndarray

    def part(self, own: slice) -> "Draw":
        """Some of the examples."""
        return Draw(self.rows[own], self.corners[own], self.mirrored[own], self.t[own], self.noise[own])


class Batches:
    """Training examples by step number: which images, windows, mirrors, diffusion steps and noise.

    No loader's position and no generator's state decides them, so a checkpoint needs neither. Each epoch is a new order
    of the images, cut into whole batches.
    """

    def __init__(self, latents: Latents, settings: FitSettings, diffusion_steps: int) -> None:
        self.latents, self.seed, self.diffusion_steps = latents, settings.seed, diffusion_steps
        self.window = window_of(settings, latents.z.shape[-1])
        self.size = min(settings.batch, len(latents.train))
        self.per_epoch = len(latents.train) // self.size

    def draw(self, step: int) -> Draw:
        """The whole batch of ``step``."""
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(self.latents.train)
        rng = np.random.default_rng([self.seed, 2, step])
        rows = order[place * self.size : (place + 1) * self.size]
        corners = rng.integers(0, self.latents.z.shape[-1] - self.window + 1, size=(self.size, 2))
        mirrored = rng.random(self.size) < 0.5
        # One diffusion step in each of B equal parts of [0, T): the loss of a batch varies less than with free draws.
        t = (np.arange(self.size) + rng.random(self.size)) * self.diffusion_steps / self.size
        noise = rng.standard_normal((self.size, self.latents.z.shape[1], self.window, self.window), dtype=np.float32)
        return Draw(rows, corners, mirrored, t.astype(np.int64), noise)

    def example(self, draw: Draw) -> Example:
        """The examples that were drawn."""
        z = cut(self.latents.read(draw.rows), draw.corners, self.window)
        z = torch.where(torch.from_numpy(draw.mirrored).view(-1, 1, 1, 1), z.flip(3), z)
        return z, torch.from_numpy(draw.t), torch.from_numpy(draw.noise)


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


class LatentTrainer(PassTrainer):
    """Mean squared error of the U-Net's prediction at random diffusion steps, and an average of its weights.

    Source: Ho et al. 2020 (arXiv:2006.11239) Algorithm 1; v-prediction by Salimans & Ho 2022 (arXiv:2202.00512).
    """

    def __init__(
        self, unet: nn.Module, scheduler: Any, settings: FitSettings, batches: Batches, steps: int, crew: Crew
    ) -> None:
        super().__init__(crew)
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

    @property
    def net(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    def passes(self, step: int) -> list[Draw]:
        """Some examples each; on GPUs the share of each process."""
        draw = self.batches.draw(step)
        return [draw.part(own) for own in shares(self.batches.size, self.crew)]

    def pass_loss(self, part: Draw, net: nn.Module) -> Tensor:
        """What the examples add to the batch's mean."""
        return self.errors(net, self.batches.example(part)).sum() / self.batches.size

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
        self.guard, self.T = settings.guard, diffusion_steps
        self.levels = sorted({*self.LEVELS, self.guard})

    @torch.no_grad()
    def losses(self, module: LatentTrainer) -> dict[float, float]:
        """Loss by noise level; over all processes, each having done its share."""
        unet, levels, images = module.average.module, len(self.levels), len(self.z)

        def term(work: tuple[int, slice]) -> Tensor:
            level, own = work
            z, noise = self.z[own], self.noise[own]
            t = torch.full((len(z),), min(int(self.levels[level] * self.T), self.T - 1))
            out = torch.zeros(levels, device=module.device)
            out[level] = module.errors(unet, (z, t, noise)).sum() / images
            return out

        work = [(level, own) for level in range(levels) for own in shares(images, module.crew)]
        return dict(zip(self.levels, module.crew.total(term, work, levels).tolist(), strict=True))


def shares(count: int, crew: Crew) -> list[slice]:
    """``count`` examples cut into passes; on GPUs into the processes' shares."""
    if crew.gpu:
        return [slice(rank, None, worker.world()) for rank in range(min(count, worker.world()))]
    return [slice(start, start + PASS) for start in range(0, count, PASS)]
