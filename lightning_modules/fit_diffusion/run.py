"""The worker: fits on the images of a run folder, every row of its manifest; labels are not read."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsal_fo.config import from_dict
from gsal_fo.fit_settings import FitSettings
from gsal_fo.images import ImageError, read_image
from gsal_fo.run_folder.shards import ShardError, read_manifest, table_rows
from lightning_modules import worker
from lightning_modules.data import resized
from lightning_modules.fit_diffusion.fitting import fit
from lightning_modules.fit_diffusion.latents import HELD_OUT, LatentFile, Latents, collect
from lightning_modules.fit_diffusion.spaces import Coder, load_coder
from lightning_modules.progress import Reporter

MOST = 20_000  # images; a fit sees no more examples than this in hours of CPU
DISK_BYTES = 8 * 2**30  # of latents: 8 000 images at 128 x 128 cells of 32 channels


def fit_run(run: Path, config: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Fit on the images of a run folder. ``config.json``: {"kind": "fit", "out": folder, "config": FitSettings}.

    Latents and checkpoints lie in the run folder until the model is written; started again, it goes on from them.
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
    paths = _paths(run, settings, reporter)
    per_epoch = max(1, round((1 - 1 / HELD_OUT) * len(paths)) // settings.batch)
    total = len(paths) + (settings.epochs * per_epoch if settings.epochs else settings.steps)
    reporter.progress("fit", 0, total)
    started = time.monotonic()
    latents = _latents(run / "latents", paths, coder, settings, reporter, total)
    (run / "checkpoints").mkdir(exist_ok=True)
    facts = fit(
        latents,
        settings,
        coder,
        out,
        checkpoint=run / "checkpoints" / "last.ckpt",
        on_step=lambda step, steps: reporter.progress("fit", min(len(paths) + step, total - 1), total),
    )
    reporter.progress("fit", total, total)
    reporter.stage("fit", time.monotonic() - started)
    if worker.rank() == 0:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        shutil.rmtree(run / "latents", ignore_errors=True)
    done = facts["fit"]
    keys = ("images", "steps", "best_step", "ended_by", "held_out_loss")
    return {"out": str(out), **{k: done[k] for k in keys}}


def _paths(run: Path, settings: FitSettings, reporter: Reporter) -> list[tuple[str, str]]:
    """Ids and files in an order set by the seed: the axes come from the first images, every tenth is held out."""
    rows = table_rows(read_manifest(run, ["id", "filepath"]))
    paths = [(row["id"], row["filepath"]) for row in rows]
    order = np.random.default_rng([settings.seed, 0]).permutation(len(paths))
    most = min(MOST, DISK_BYTES // image_bytes(settings))
    if len(paths) > most:
        reporter.note(f"fitting on {most} of {len(paths)} images, drawn by seed {settings.seed}")
    return [paths[i] for i in order[:most]]


def image_bytes(settings: FitSettings) -> int:
    """What an image's latents take on disk, about."""
    if settings.space == "features":
        return 2 * settings.components * (settings.side // settings.stride) ** 2
    return 2 * 3 * settings.side**2 if settings.space == "pixels" else 2 * settings.side**2


def _latents(
    folder: Path, paths: list[tuple[str, str]], coder: Coder, settings: FitSettings, reporter: Reporter, total: int
) -> Latents:
    """The pool's latents, computed by the first process; the others wait for its file."""
    if worker.rank() != 0:
        while not LatentFile.is_complete(folder):
            time.sleep(0.2)  # torchrun ends us should the first process fail
        return LatentFile(folder, read_only=True).finish()
    seen = LatentFile(folder).seen

    def read() -> Iterator[Tensor | None]:
        for done, (sample_id, path) in enumerate(paths[seen:], seen + 1):
            reporter.progress("fit", done, total)
            try:
                yield resized(read_image(path)[0], settings.side)
            except ImageError as error:
                reporter.failed(sample_id, error.reason)
                yield None

    return collect(read(), coder, settings, folder)
