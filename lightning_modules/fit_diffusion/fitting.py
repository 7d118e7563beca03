"""A fit from latents to a model folder."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from gsal_fo.fit_settings import SCORE_DEFAULTS, FitSettings
from lightning_modules import passes, worker
from lightning_modules.callbacks import Ticker, WholeCheckpoint
from lightning_modules.environment import environment
from lightning_modules.fit_diffusion.callbacks import Guard
from lightning_modules.fit_diffusion.folder import save
from lightning_modules.fit_diffusion.latents import Latents
from lightning_modules.fit_diffusion.spaces import Coder, facts_of
from lightning_modules.fit_diffusion.trainer import Batches, HeldOut, LatentTrainer
from lightning_modules.fit_diffusion.unet import build_scheduler, build_unet


def precision_of(settings: FitSettings) -> str:
    """Lightning's name for the precision: bf16 on a GPU that has it."""
    if settings.precision == "auto":
        return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if settings.precision == "bf16" else "32-true"


def fit(
    latents: Latents,
    settings: FitSettings,
    coder: Coder,
    out: Path,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit a denoiser to latents and write its folder ``out``, whole or not at all.

    Args:
        latents: of ``collect``.
        settings: constants.
        coder: of ``load_coder``: what the latents come from; goes into the folder.
        out: model folder; an older model is replaced, other files never are.
        checkpoint: file to save to while training, and to go on from where it exists.
        on_step: receives steps done and steps at most.
        about: more facts for the folder's ``gsal.json``.

    Returns what is in ``gsal.json``; on other processes than the first, too, but only that one writes.

    Raises:
        ValueError: a grid that the U-Net cannot take.
        ShardError: ``out`` cannot be written, or holds other files.
    """
    pl.seed_everything(settings.seed, verbose=False)
    scheduler, channels, cells = build_scheduler(settings), latents.z.shape[1], latents.z.shape[-1]
    unet = build_unet(settings, channels, cells)
    total_t = len(scheduler.alphas_cumprod)
    batches = Batches(latents, settings, total_t)
    steps = settings.epochs * batches.per_epoch if settings.epochs else settings.steps
    if batches.size < worker.world():
        raise ValueError(f"{worker.world()} processes cannot share batches of {batches.size}; start fewer")
    with passes.Crew() as crew:
        module = LatentTrainer(unet, scheduler, settings, batches, steps, crew)
        held_out = HeldOut(latents, settings, total_t)
        guard = Guard(held_out, check=settings.check, patience=settings.patience, steps=steps)
        callbacks: list[pl.Callback] = [guard, Ticker(lambda step: on_step(step, steps))]
        if checkpoint:
            callbacks.append(WholeCheckpoint(checkpoint, settings.checkpoint_s))
        timer = pl.callbacks.Timer(duration=timedelta(minutes=settings.minutes))
        trainer = worker.trainer(
            max_steps=steps,
            max_epochs=-1,
            gradient_clip_val=1.0,
            precision=precision_of(settings),
            callbacks=[*callbacks, timer],
            enable_checkpointing=checkpoint is not None,
            num_sanity_val_steps=0,
            strategy=passes.strategy(),
        )
        ticks: DataLoader = DataLoader(range(steps), batch_size=None)  # type: ignore[arg-type]
        resume = str(checkpoint) if checkpoint and checkpoint.is_file() else None
        trainer.fit(module.train(), ticks, ckpt_path=resume, weights_only=True)
    module.cpu()
    best = module.average.module.eval()
    best.load_state_dict(guard.best)
    row = guard.best_row
    losses = {k: round(v, 5) for k, v in row.items() if k.startswith("t=")}
    facts: dict[str, Any] = {
        **facts_of(coder, settings),
        "defaults": dict(SCORE_DEFAULTS[settings.space]),
        "fit": {
            "settings": asdict(settings),
            "images": len(latents.z),
            "held_out_images": len(latents.held_out),
            "steps": trainer.global_step,
            "best_step": guard.best_step,
            "ended_by": "guard" if guard.ended else "steps" if trainer.global_step >= steps else "minutes",
            "seconds": round(timer.time_elapsed("train"), 1),
            "held_out_loss": round(sum(losses.values()) / len(losses), 5),
            "held_out_loss_by_t": losses,
            "parameters": sum(p.numel() for p in unet.parameters()),
            "environment": environment(threads=crew.threads, to_the_bit=True),
        },
        **(about or {}),
    }
    if trainer.is_global_zero:
        save(best, scheduler, coder, latents, guard.curve, facts, out)
    return facts
