"""Training a torchvision detector by passes (``lightning_modules.passes``): on a CPU an image is a pass."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from gsal_fo.config import TrainConfig
from lightning_modules import worker
from lightning_modules.data import to_float
from lightning_modules.labeled import LabeledImages
from lightning_modules.passes import Crew, PassTrainer

TAIL = 20  # steps over which the final loss is averaged

Part = list[tuple[int, int]]  # examples of a pass: (image, turn)


class DrawnSampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler of anchors and boxes, drawing from a generator per image instead of one for all: which
    image comes before another, and in which process, decides nothing. ``draws``: one generator per image to come."""

    draws: Sequence[torch.Generator] = ()

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the positive and of the negative ones chosen, per image."""
        chosen = [self._choose(matched, g) for matched, g in zip(matched_idxs, self.draws, strict=True)]
        return [positive for positive, _ in chosen], [negative for _, negative in chosen]

    def _choose(self, matched: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        positive, negative = torch.where(matched >= 1)[0], torch.where(matched == 0)[0]
        first = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
        masks = []
        for found, count in ((positive, first), (negative, self.batch_size_per_image - first)):
            mask = torch.zeros_like(matched, dtype=torch.uint8)
            order = torch.randperm(len(found), generator=generator).to(found.device)
            mask[found[order[:count]]] = 1
            masks.append(mask)
        return masks[0], masks[1]


class DetectorTrainer(PassTrainer):
    """Trains a detector with torchvision's own losses.

    The loss of a batch is the mean over its images [choice: torchvision divides by the anchors and boxes of the whole
    batch, which is the same but where an image has fewer than are sampled; so an image's part depends on it alone]. On
    a GPU, where a process does its share in one pass, it is torchvision's of that share.

    ``losses``: of the last steps.
    """

    def __init__(self, model: FasterRCNN, config: TrainConfig, images: LabeledImages, crew: Crew) -> None:
        super().__init__(crew)
        self.model, self.config, self.images = model, config, images
        self.losses: list[float] = []
        for part in (model.rpn, model.roi_heads):
            theirs = part.fg_bg_sampler
            part.fg_bg_sampler = DrawnSampler(theirs.batch_size_per_image, theirs.positive_fraction)

    @property
    def net(self) -> nn.Module:
        """The detector."""
        return self.model

    def on_train_epoch_start(self) -> None:
        """Batch statistics of a pretrained backbone stay frozen: batches of a few images would ruin them. Those of a
        feature pyramid (v2) start from nothing and are learned."""
        if self.config.backbone != "none":
            for module in getattr(self.model.backbone, "body", self.model.backbone).modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def passes(self, step: int) -> list[Part]:
        """An image each; on GPUs the share of each process."""
        examples = self.images.batch(step)
        if not self.crew.gpu:
            return [[example] for example in examples]
        return [part for rank in range(worker.world()) if (part := examples[rank :: worker.world()])]

    def pass_loss(self, part: Part, net: nn.Module) -> Tensor:
        """Sum of the region proposal and box head losses, by the part's share of the batch."""
        examples = [self.images.load(*example) for example in part]
        for sampler in _samplers(net):
            sampler.draws = [e.draws for e in examples]
        images = [to_float(e.image.to(self.device)) for e in examples]
        targets = [{k: v.to(self.device) for k, v in e.target.items()} for e in examples]
        losses: dict[str, Tensor] = net(images, targets)
        return torch.stack(list(losses.values())).sum() * (len(part) / self.images.size)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The batch's loss, which is kept."""
        loss = super().training_step(batch, batch_idx)
        self.losses = [*self.losses, float(loss)][-TAIL:]
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The losses go with it."""
        checkpoint["losses"] = self.losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """And come back."""
        self.losses = list(checkpoint.get("losses", ()))  # one of before there were any kept has none

    def configure_optimizers(self) -> Any:
        """AdamW with a cosine for "small"; the paper's SGD (lr 0.02 per 16 images, momentum 0.9), warmed up, for the
        rest."""
        wanted = [p for p in self.model.parameters() if p.requires_grad]
        steps, warm = self.config.steps, min(100, self.config.steps // 10 + 1)
        if self.config.arch == "small":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(wanted, lr=self.config.lr or 1e-3, weight_decay=1e-4)
        else:
            rate = self.config.lr or 0.02 * self.config.batch_size / 16
            optimizer = torch.optim.SGD(wanted, lr=rate, momentum=0.9, weight_decay=1e-4)
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warm)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warm))
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warm])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _samplers(net: Any) -> Iterable[DrawnSampler]:
    return (net.rpn.fg_bg_sampler, net.roi_heads.fg_bg_sampler)
