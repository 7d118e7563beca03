"""The labeled images that a detector learns from, in the order of their content, and which of them a step takes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsal_fo.boxes import xywh_rel_to_xyxy_px
from gsal_fo.images import ImageError, read_image
from lightning_modules.data import halved
from lightning_modules.detectors.given import SMALLEST_BOX_PX

BRIGHTNESS = 0.15


@dataclass(frozen=True)
class Labeled:
    """One image: ``digest`` of its file, ``boxes`` (n, 4) float32 ``xywh_rel`` with their ``labels``, sorted."""

    filepath: str
    digest: str
    short_side: int
    boxes: np.ndarray
    labels: tuple[str, ...]

    @property
    def content(self) -> tuple[str, bytes, tuple[str, ...]]:
        """What it is, wherever it lies and whatever it is called."""
        return self.digest, self.boxes.tobytes(), self.labels


@dataclass(frozen=True)
class Example:
    """An image (3, H, W) uint8 as a step sees it, its target in torchvision's form, and ``draws``, the generator of
    whatever else is drawn for it."""

    image: Tensor
    target: dict[str, Tensor]
    draws: torch.Generator


def read_labeled(rows: Sequence[dict[str, Any]], failed: Callable[[str, str], None]) -> list[Labeled]:
    """The manifest's labeled rows whose image can be decoded, in the order of their content: neither the order of the
    rows nor ids or paths decide it. The others go to ``failed`` with the reason."""
    out = []
    for row in rows:
        try:
            pixels, digest = read_image(row["filepath"])
        except ImageError as error:
            failed(row["id"], error.reason)
            continue
        boxes, names = np.asarray(row["boxes"], dtype=np.float32).reshape(-1, 4), list(row["labels"] or ())
        order = sorted(range(len(boxes)), key=lambda i: (names[i], boxes[i].tolist()))
        labels = tuple(names[i] for i in order)
        out.append(Labeled(row["filepath"], digest, min(pixels.shape[:2]), boxes[order], labels))
    return sorted(out, key=lambda image: image.content)


def content_digest(images: Sequence[Labeled]) -> str:
    """32 hex characters that stand for all that a training learns from."""
    return hashlib.blake2b(repr([image.content for image in images]).encode(), digest_size=16).hexdigest()


class LabeledImages:
    """Batches by step number: no loader's position and no generator's state decides them, so a training goes on exactly
    where it stopped. Images come in turns, each turn all of them in a new order; what is drawn for an image is set by
    (seed, turn, digest of its file)."""

    def __init__(self, images: Sequence[Labeled], classes: Sequence[str], *, seed: int, batch: int) -> None:
        self.images, self.seed, self.size = images, seed, batch
        self.number = {name: i + 1 for i, name in enumerate(classes)}

    def batch(self, step: int) -> list[tuple[int, int]]:
        """(image, turn) of each example of a step."""
        places = [divmod(step * self.size + i, len(self.images)) for i in range(self.size)]
        orders = {turn: np.random.default_rng((self.seed, turn)).permutation(len(self.images)) for turn, _ in places}
        return [(int(orders[turn][place]), turn) for turn, place in places]

    def load(self, index: int, turn: int) -> Example:
        """An image flipped and relit by chance."""
        found = self.images[index]
        pixels = halved(read_image(found.filepath)[0])
        height, width = pixels.shape[:2]
        boxes = xywh_rel_to_xyxy_px(found.boxes, width, height)
        boxes = np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)
        good = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_BOX_PX).all(1)
        labels = np.array([self.number[name] for name in found.labels], dtype=np.int64)
        rng = np.random.default_rng((self.seed, turn, int(found.digest, 16)))
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        gain, shift = 1 + rng.uniform(-BRIGHTNESS, BRIGHTNESS), 255 * rng.uniform(-BRIGHTNESS, BRIGHTNESS) / 2
        pixels = np.clip(pixels * np.float32(gain) + np.float32(shift), 0, 255).astype(np.uint8)
        target = {"boxes": torch.from_numpy(boxes[good]), "labels": torch.from_numpy(labels[good])}
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        return Example(image, target, torch.Generator().manual_seed(int(rng.integers(2**63))))
