"""The worker: fits on the images of a run folder, every row of its manifest; labels are not read."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsal_fo.config import from_dict
from gsal_fo.fit_settings import FitSettings
from gsal_fo.images import ImageError
from gsal_fo.run_folder.shards import ShardError
from lightning_modules import worker
from lightning_modules.data import resized
from lightning_modules.fit_diffusion.fitting import fit
from lightning_modules.fit_diffusion.latents import HELD_OUT, LatentFile, Latents, collect
from lightning_modules.fit_diffusion.order import FILE as ORDER
from lightning_modules.fit_diffusion.order import Source, sources
from lightning_modules.fit_diffusion.spaces import Coder, load_coder
from lightning_modules.progress import Reporter


def fit_run(run: Path, config: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Fit on the images of a run folder. ``config.json``: {"kind": "fit", "out": folder, "config": FitSettings}.

    Latents and checkpoints lie in the run folder until the model is written; started again, it goes on from them. On a
    CPU the weights are set by the images' content and the settings, to the bit, where steps or epochs end the fit and
    not its minutes (docs/repeatability.md).
    """
    out = Path(config["out"])
    if (out / "gsal.json").is_file():
        reporter.note(f"{out} holds a fitted model already; nothing to do")
        return {"out": str(out)}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ShardError(f"{out} holds other files; give a new or empty folder")
    settings = from_dict(FitSettings, config["config"])
    coder = load_coder(settings)
    if coder is not None and torch.cuda.is_available():
        coder.to("cuda")
    images = sources(run, settings, reporter) if worker.rank() == 0 else []
    per_epoch = max(1, round((1 - 1 / HELD_OUT) * len(images)) // settings.batch)
    total = len(images) + (settings.epochs * per_epoch if settings.epochs else settings.steps)
    reporter.progress("fit", 0, total)
    started = time.monotonic()
    latents = _latents(run, images, coder, settings, reporter, total)
    (run / "checkpoints").mkdir(exist_ok=True)
    facts = fit(
        latents,
        settings,
        coder,
        out,
        checkpoint=run / "checkpoints" / "last.ckpt",
        on_step=lambda step, steps: reporter.progress("fit", min(len(images) + step, total - 1), total),
    )
    reporter.progress("fit", total, total)
    reporter.stage("fit", time.monotonic() - started)
    if worker.rank() == 0:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        shutil.rmtree(run / "latents", ignore_errors=True)
        (run / ORDER).unlink(missing_ok=True)
    done = facts["fit"]
    keys = ("images", "steps", "best_step", "ended_by", "held_out_loss")
    return {"out": str(out), **{k: done[k] for k in keys}}


def _latents(
    run: Path, images: list[Source], coder: Coder, settings: FitSettings, reporter: Reporter, total: int
) -> Latents:
    """The pool's latents, computed by the first process; the others wait for its file."""
    folder = run / "latents"
    if worker.rank() != 0:
        while not ((run / ORDER).is_file() and LatentFile.is_complete(folder)):
            time.sleep(0.2)  # torchrun ends us should the first process fail
        return LatentFile(folder, read_only=True).finish()
    seen = LatentFile(folder).seen

    def read() -> Iterator[Tensor | None]:
        for done, image in enumerate(images[seen:], seen + 1):
            reporter.progress("fit", done, total)
            try:
                yield resized(image.read(), settings.side)
            except ImageError as error:
                reporter.failed(image.id, error.reason)
                yield None

    return collect(read(), coder, settings, folder)
