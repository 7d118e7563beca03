"""Worker: trains a detector on a run folder's labeled images. ``python -m lightning_modules.train --run-dir DIR``."""

import shutil
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gsal_fo.boxes import xywh_rel_to_xyxy_px
from gsal_fo.config import TrainConfig, from_dict, to_dict
from gsal_fo.images import ImageError, read_image
from gsal_fo.run_folder.shards import ShardError, read_manifest, table_rows
from lightning_modules import worker
from lightning_modules.data import halved, is_labeled
from lightning_modules.detectors.faster_rcnn import SMALLEST_BOX_PX, DetectorTrainer, build, save
from lightning_modules.progress import Reporter

SMALL_SIZES = (192, 416)  # the small detector's short side follows the images' within these bounds, in pixels
BRIGHTNESS = 0.15


class LabeledImages(Dataset):
    """Labeled images with their boxes, flipped and relit by a generator that (seed, epoch, row) sets."""

    def __init__(self, rows: list[dict[str, Any]], classes: list[str], *, seed: int) -> None:
        self.rows, self.number = rows, {name: i + 1 for i, name in enumerate(classes)}
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        row = self.rows[index]
        pixels = halved(read_image(row["filepath"])[0])
        height, width = pixels.shape[:2]
        boxes = xywh_rel_to_xyxy_px(row["boxes"].reshape(-1, 4), width, height)
        boxes = np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)
        good = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_BOX_PX).all(1)
        labels = np.array([self.number[name] for name in row["labels"]], dtype=np.int64)
        rng = np.random.default_rng((self.seed, self.epoch, index))
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        gain, shift = 1 + rng.uniform(-BRIGHTNESS, BRIGHTNESS), 255 * rng.uniform(-BRIGHTNESS, BRIGHTNESS) / 2
        pixels = np.clip(pixels * np.float32(gain) + np.float32(shift), 0, 255).astype(np.uint8)
        target = {"boxes": torch.from_numpy(boxes[good]), "labels": torch.from_numpy(labels[good])}
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1), target


class Shuffle(Sampler[int]):
    """Each epoch a fresh order set by (seed, epoch), the same whenever the run was interrupted; ranks share it out."""

    def __init__(self, dataset: LabeledImages, *, seed: int, batch: int) -> None:
        self.dataset, self.seed, self.batch, self.epoch = dataset, seed, batch, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = self.dataset.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.dataset))
        # Wrapped to whole batches on every rank: DDP needs equal numbers of steps.
        order = np.resize(order, len(self) * worker.world())
        return iter(order[worker.rank() :: worker.world()].tolist())

    def __len__(self) -> int:
        whole = self.batch * worker.world()
        return -(-len(self.dataset) // whole) * self.batch


class Progress(pl.Callback):
    """Reports optimizer steps."""

    def __init__(self, reporter: Reporter, stage: str, total: int) -> None:
        self.reporter, self.stage, self.total = reporter, stage, total

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """One step more."""
        self.reporter.progress(self.stage, trainer.global_step, self.total)


def small_size(rows: list[dict[str, Any]]) -> int:
    """Short side for the small detector: the median of a few images', a multiple of 32 within its bounds."""
    sides = [min(read_image(row["filepath"])[0].shape[:2]) for row in rows[:16]]
    return int(np.clip(round(float(np.median(sides)) / 32) * 32, *SMALL_SIZES))


def readable(rows: list[dict[str, Any]], reporter: Reporter) -> list[dict[str, Any]]:
    """The rows whose image can be decoded; the others are reported."""
    good = []
    for row in rows:
        try:
            read_image(row["filepath"])
            good.append(row)
        except ImageError as error:
            reporter.failed(row["id"], error.reason)
    return good


def train(run: Path, run_config: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Train on the manifest's labeled rows and write the checkpoint folder ``run_config["out"]``."""
    config = from_dict(TrainConfig, run_config["config"])
    out = Path(run_config["out"])
    if (out / "detector.json").is_file():
        reporter.note(f"{out} holds a trained detector already; nothing to do")
        return {"out": str(out)}
    rows = [row for row in table_rows(read_manifest(run)) if is_labeled(row)]
    rows = readable(rows, reporter)
    classes = sorted({name for row in rows for name in row["labels"]})
    if not classes:
        raise ShardError(
            "no readable labeled image has a box, so there is nothing to train on; label some images first"
        )
    pl.seed_everything(config.seed, verbose=False)
    size = config.size or (small_size(rows) if config.arch == "small" else None)
    model = build(config.arch, classes=len(classes), backbone=config.backbone, size=size)
    data = LabeledImages(rows, classes, seed=config.seed)
    sampler = Shuffle(data, seed=config.seed, batch=config.batch_size)
    loader: DataLoader = DataLoader(
        data,
        batch_size=config.batch_size,
        sampler=sampler,
        collate_fn=lambda pairs: tuple(map(list, zip(*pairs, strict=True))),
    )
    module = DetectorTrainer(model, config)
    keep = ModelCheckpoint(run / "checkpoints", save_last=True, train_time_interval=timedelta(minutes=1))
    started = time.monotonic()
    trainer = worker.trainer(
        max_steps=config.steps,
        max_epochs=-1,
        gradient_clip_val=10.0,
        num_sanity_val_steps=0,
        enable_checkpointing=True,
        callbacks=[Progress(reporter, "train", config.steps), keep],
    )
    last = run / "checkpoints" / "last.ckpt"
    trainer.fit(module, loader, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    seconds = time.monotonic() - started
    reporter.stage("train", seconds)
    tail = float(np.mean(module.losses[-20:])) if module.losses else float("nan")
    if trainer.is_global_zero:
        facts = {
            **to_dict(config),
            "size": size,
            "classes": classes,
            "images": len(rows),
            "boxes": int(sum(len(row["labels"]) for row in rows)),
            "final_loss": tail,
            "seconds": seconds,
        }
        save(model, out, facts)
        shutil.rmtree(last.parent, ignore_errors=True)
    return {"out": str(out), "classes": classes, "images": len(rows), "final_loss": tail}


if __name__ == "__main__":
    sys.exit(worker.main("train", train, module="lightning_modules.train"))
