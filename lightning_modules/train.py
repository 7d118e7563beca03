"""Worker: trains a detector on a run folder's labeled images. ``python -m lightning_modules.train --run-dir DIR``."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from gsal_fo.config import TrainConfig, from_dict, to_dict
from gsal_fo.run_folder.shards import ShardError, read_manifest, table_rows
from lightning_modules import passes, worker
from lightning_modules.callbacks import Ticker, WholeCheckpoint
from lightning_modules.data import is_labeled
from lightning_modules.detectors.faster_rcnn import build, save
from lightning_modules.detectors.training import DetectorTrainer
from lightning_modules.environment import environment
from lightning_modules.labeled import Labeled, LabeledImages, content_digest, read_labeled
from lightning_modules.progress import Reporter

SMALL_SIZES = (192, 416)  # the small detector's short side follows the images' within these bounds, in pixels


def small_size(images: Sequence[Labeled]) -> int:
    """Short side for the small detector: the median of the images', a multiple of 32 within its bounds."""
    middle = float(np.median([image.short_side for image in images]))
    return int(np.clip(round(middle / 32) * 32, *SMALL_SIZES))


def train(run: Path, run_config: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Train on the manifest's labeled rows and write the checkpoint folder ``run_config["out"]``.

    On a CPU the weights are set by the images' content, their labels and the settings, to the bit: neither by order,
    ids or names, nor by threads and processes, nor by interruptions (docs/repeatability.md).
    """
    config = from_dict(TrainConfig, run_config["config"])
    out = Path(run_config["out"])
    if (out / "detector.json").is_file():
        reporter.note(f"{out} holds a trained detector already; nothing to do")
        return {"out": str(out)}
    rows = [row for row in table_rows(read_manifest(run)) if is_labeled(row)]
    images = read_labeled(rows, reporter.failed)
    classes = sorted({name for image in images for name in image.labels})
    if not classes:
        raise ShardError(
            "no readable labeled image has a box, so there is nothing to train on; label some images first"
        )
    pl.seed_everything(config.seed, verbose=False)
    size = config.size or (small_size(images) if config.arch == "small" else None)
    with passes.Crew() as crew:
        model = build(config.arch, classes=len(classes), backbone=config.backbone, size=size)
        batches = LabeledImages(images, classes, seed=config.seed, batch=config.batch_size)
        module = DetectorTrainer(model, config, batches, crew)
        last = run / "checkpoints" / "last.ckpt"
        last.parent.mkdir(exist_ok=True)
        started = time.monotonic()
        trainer = worker.trainer(
            max_steps=config.steps,
            max_epochs=-1,
            gradient_clip_val=10.0,
            num_sanity_val_steps=0,
            enable_checkpointing=True,
            callbacks=[
                Ticker(lambda step: reporter.progress("train", step, config.steps)),
                WholeCheckpoint(last, config.checkpoint_s),
            ],
            strategy=passes.strategy(),
        )
        ticks: DataLoader = DataLoader(range(config.steps), batch_size=None)  # type: ignore[arg-type]
        trainer.fit(module, ticks, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
        seconds = time.monotonic() - started
    reporter.stage("train", seconds)
    loss = float(np.mean(module.losses)) if module.losses else float("nan")
    if trainer.is_global_zero:
        facts = {
            **to_dict(config),
            "size": size,
            "classes": classes,
            "images": len(images),
            "boxes": sum(len(image.labels) for image in images),
            "content": content_digest(images),
            "environment": environment(threads=crew.threads, to_the_bit=True),
            "final_loss": loss,
            "seconds": seconds,
        }
        save(model, out, facts)
        shutil.rmtree(last.parent, ignore_errors=True)
    return {"out": str(out), "classes": classes, "images": len(images), "final_loss": loss}


if __name__ == "__main__":
    sys.exit(worker.main("train", train, module="lightning_modules.train"))
