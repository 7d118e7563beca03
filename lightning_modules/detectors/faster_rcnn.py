"""Detectors: torchvision Faster R-CNNs that keep each proposal's whole class posterior."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection import (
    FasterRCNN,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, batched_nms, clip_boxes_to_image, nms

from gsal_fo.acquisition.correction import local_contrast
from gsal_fo.boxes import WHOLE_IMAGE, window_grid, xyxy_px_to_xywh_rel
from gsal_fo.config import DetectorConfig
from gsal_fo.images import read_image
from gsal_fo.run_folder.shards import write_json
from gsal_fo.user_files import read_json, words
from lightning_modules.data import groups, halved, resized, to_float
from lightning_modules.detectors.given import SMALLEST_BOX_PX, thinned
from lightning_modules.nets import Encoder, load_encoder, untrained

SMALL_CHANNELS = 64
SMALL_STRIDES = (8, 16, 32)
SMALL_ANCHORS = ((12, 20), (32, 48), (80, 128))  # pixels of the resized image, per stride
RATIOS = (0.33, 0.75, 1.33, 3.0)
CONTRAST_SIDE = 256  # px: local contrast is that of a picture this small, whatever the camera
PAPER_SIZES = {"min_size": 600, "max_size": 1000}  # METHOD.md section 8; pixels
TORCHVISION: dict[str, tuple[Callable[..., FasterRCNN], dict[str, int]]] = {
    "mobilenet_v3_320": (fasterrcnn_mobilenet_v3_large_320_fpn, {"min_size": 320, "max_size": 640}),
    "r50_fpn": (fasterrcnn_resnet50_fpn, PAPER_SIZES),
    "r50_fpn_v2": (fasterrcnn_resnet50_fpn_v2, PAPER_SIZES),
}


class EncoderPyramid(nn.Module):
    """A frozen encoder's maps at strides 8, 16 and 32 under a trainable feature pyramid."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, channels: int = SMALL_CHANNELS) -> None:
        super().__init__()
        by_stride = {stride: (name, width) for name, (width, stride) in encoder.stages.items()}
        if missing := [s for s in SMALL_STRIDES if s not in by_stride]:
            raise ValueError(f"the backbone has no map at stride {missing}; it has {sorted(by_stride)}; choose another")
        self.encoder = encoder.requires_grad_(False)
        self.names = [by_stride[s][0] for s in SMALL_STRIDES]
        self.fpn = FeaturePyramidNetwork([by_stride[s][1] for s in SMALL_STRIDES], channels)
        self.out_channels = channels
        # Stored with the weights: how the encoder's inputs are scaled depends on where its weights came from.
        self.register_buffer("mean", encoder.mean.clone())
        self.register_buffer("std", encoder.std.clone())

    def train(self, mode: bool = True) -> "EncoderPyramid":
        """Train the pyramid only: the encoder's batch statistics stay as they are."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        with torch.no_grad():
            self.encoder.mean, self.encoder.std = self.mean, self.std
            maps = self.encoder.maps(x)
        return self.fpn(OrderedDict((str(i), maps[name]) for i, name in enumerate(self.names)))


def build(arch: str, *, classes: int, backbone: str, size: int | None) -> FasterRCNN:
    """A detector for ``classes`` classes plus background, weights as ``TrainConfig.backbone`` says.

    "small" takes any encoder of ``nets.load_encoder``; the others take "default", "none", or the path of a
    safetensors file with the torchvision classifier's weights.
    """
    if arch == "small":
        pyramid = EncoderPyramid(load_encoder("mobilenet_v2:none" if backbone == "none" else backbone))
        return FasterRCNN(
            pyramid,
            min_size=size or 256,
            max_size=4 * (size or 256),
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],  # the encoder normalizes
            rpn_anchor_generator=AnchorGenerator(SMALL_ANCHORS, (RATIOS,) * len(SMALL_ANCHORS)),
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=5, sampling_ratio=2),
            box_head=TwoMLPHead(SMALL_CHANNELS * 25, 256),
            box_predictor=_predictor(256, classes + 1),
            rpn_pre_nms_top_n_train=500,
            rpn_pre_nms_top_n_test=300,
            rpn_post_nms_top_n_train=300,
            rpn_post_nms_top_n_test=150,
            rpn_batch_size_per_image=128,
            box_batch_size_per_image=64,
        )
    make, sizes = TORCHVISION[arch]
    if size:
        sizes = {"min_size": size, "max_size": 2 * size}
    if backbone == "embedded":
        backbone = "none"
    try:
        model = make(
            weights=None,
            weights_backbone="DEFAULT" if backbone == "default" else None,
            num_classes=classes + 1,
            **sizes,
        )
    except OSError as error:
        raise ValueError(
            f"torchvision's weights for {arch} cannot be downloaded ({error}); "
            "give --backbone a safetensors file, or none"
        ) from error
    if backbone not in ("default", "none"):
        _load_backbone(model, Path(backbone))
    return model


def _predictor(inputs: int, outputs: int) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    return FastRCNNPredictor(inputs, outputs)


def _load_backbone(model: FasterRCNN, path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"backbone weights {path} do not exist; give a safetensors file, default, or none")
    weights = {k.removeprefix("features."): v.float() for k, v in load_file(path).items()}
    body = model.backbone.body
    wanted = {k for k in body.state_dict() if not k.endswith("num_batches_tracked")}
    if missing := sorted(wanted - set(weights)):
        raise ValueError(
            f"{path} lacks {len(missing)} tensors of this backbone, such as {missing[0]}; give the matching file"
        )
    body.load_state_dict({k: v for k, v in weights.items() if k in wanted}, strict=False)


def save(model: FasterRCNN, folder: Path, facts: dict[str, Any]) -> None:
    """Write a checkpoint folder: ``detector.json`` and ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    write_json(facts, folder / "detector.json")  # last: a folder that holds it is whole


def load(folder: Path) -> tuple[FasterRCNN, dict[str, Any]]:
    """Read a checkpoint folder; raises ValueError in a sentence where it is none."""
    try:
        facts = read_json(folder / "detector.json", "a detector's settings")
        # The stored weights hold the backbone too, so its own file is not needed any more.
        backbone = untrained(facts["backbone"]) if facts["arch"] == "small" else "none"
        model = build(facts["arch"], classes=len(facts["classes"]), backbone=backbone, size=facts["size"])
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} is not a detector checkpoint ({words(error)}); make one with `gsal train`"
        ) from error
    return model.eval(), facts


def propose(model: FasterRCNN, images: list[Tensor], config: DetectorConfig) -> list[dict[str, Tensor]]:
    """Proposals of images (3, H, W) in [0, 1], best first, at most ``config.max_proposals`` each.

    Returns:
        Per image: ``boxes`` (n, 4) ``xyxy`` in [0, 1], ``scores`` (n,) and ``posterior`` (n, C + 1), background first.
        ``proposals="objectness"`` ranks the region proposal network's boxes (class-agnostic: it can see what has no
        label yet); "detections" ranks the classified, refined boxes of ``torchvision``'s own post-processing.
    """
    batch, _ = model.transform(images)
    features = model.backbone(batch.tensors)
    features = OrderedDict([("0", features)]) if isinstance(features, Tensor) else features
    found = _objects(model, batch, features)
    boxes = [b for b, _ in found]
    heads = model.roi_heads
    pooled = heads.box_head(heads.box_roi_pool(features, boxes, batch.image_sizes))
    logits, deltas = heads.box_predictor(pooled)
    posteriors = logits.softmax(-1)
    refined = heads.box_coder.decode(deltas, boxes)  # (sum n, C + 1, 4)
    counts = [len(b) for b in boxes]
    out = []
    for (_, objectness), posterior, fine_boxes, size in zip(
        found, posteriors.split(counts), refined.split(counts), batch.image_sizes, strict=True
    ):
        if config.proposals == "objectness":
            kept = _by_objectness(fine_boxes, objectness, posterior, size, config)
        else:
            kept = _by_detection(fine_boxes, posterior, size, heads, config)
        scale = kept["boxes"].new_tensor([size[1], size[0], size[1], size[0]])
        out.append({**kept, "boxes": (kept["boxes"] / scale).clamp(0, 1)})
    return out


def _objects(model: FasterRCNN, images: Any, features: "OrderedDict[str, Tensor]") -> list[tuple[Tensor, Tensor]]:
    """Boxes and objectness of the region proposal network; torchvision's own forward drops the scores."""
    rpn, maps = model.rpn, list(features.values())
    objectness, deltas = rpn.head(maps)
    anchors = rpn.anchor_generator(images, maps)
    per_level = [o[0].numel() for o in objectness]
    objectness, deltas = concat_box_prediction_layers(objectness, deltas)
    proposals = rpn.box_coder.decode(deltas, anchors).view(len(anchors), -1, 4)
    boxes, scores = rpn.filter_proposals(proposals, objectness, images.image_sizes, per_level)
    return list(zip(boxes, scores, strict=True))


def _by_objectness(
    boxes: Tensor, scores: Tensor, posterior: Tensor, size: tuple[int, int], config: DetectorConfig
) -> dict[str, Tensor]:
    # The box head's refinement for the likeliest class: few labels teach the network where better than what.
    best = posterior[:, 1:].argmax(1) + 1
    boxes = clip_boxes_to_image(boxes[torch.arange(len(boxes)), best], size)
    wide = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_BOX_PX).all(1)
    good = wide & (scores >= config.score_floor) & torch.isfinite(posterior).all(1)
    boxes, scores, posterior = boxes[good], scores[good], posterior[good]
    keep = nms(boxes, scores, config.nms_iou)[: config.max_proposals]
    return {"boxes": boxes[keep], "scores": scores[keep], "posterior": posterior[keep]}


def _by_detection(
    boxes: Tensor, posterior: Tensor, size: tuple[int, int], heads: Any, config: DetectorConfig
) -> dict[str, Tensor]:
    boxes = clip_boxes_to_image(boxes, size)[:, 1:]  # (n, C, 4): background has no box
    scores = posterior[:, 1:]
    rows, labels = torch.nonzero((scores > config.score_floor) & torch.isfinite(scores), as_tuple=True)
    boxes, scores = boxes[rows, labels], scores[rows, labels]
    wide = ((boxes[:, 2:] - boxes[:, :2]) >= 1e-2).all(1)
    boxes, scores, rows, labels = boxes[wide], scores[wide], rows[wide], labels[wide]
    keep = batched_nms(boxes, scores, labels, config.nms_iou)[: min(config.max_proposals, heads.detections_per_img)]
    return {
        "boxes": boxes[keep],
        "scores": scores[keep],
        "posterior": posterior[rows[keep]],
        "labels": labels[keep] + 1,
    }


@dataclass
class ImageLoader:
    """Decodes a row's image at its own size, but for huge ones; the detector resizes on its device."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        pixels, content = read_image(row["filepath"])
        image = torch.from_numpy(halved(pixels)).permute(2, 0, 1)
        gray = to_float(resized(pixels, CONTRAST_SIDE)).mean(0).numpy()
        size = {"height": pixels.shape[0], "width": pixels.shape[1]}
        return {"image": image, **size, "gray": gray, "content": content}


class Proposer(pl.LightningModule):
    """Proposals of each image: from a detector, from the boxes that the row brings, or from a grid of windows.

    Only images of one size share a batch: torchvision pads a mixed batch to its largest, and padding moves scores.
    """

    def __init__(self, model: FasterRCNN | None, config: DetectorConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        if model is not None:
            model.eval().requires_grad_(False)

    def predict_step(self, batch: list[dict[str, Any]], batch_idx: int) -> list[dict[str, Any]]:
        """One row of the proposals stage per image; an image where nothing is found gets itself as its one proposal."""
        found: dict[int, dict[str, Any]] = {}
        if self.model is not None:
            images = ((i, row["image"]) for i, row in enumerate(batch) if not row.get("error"))
            for keys, x in groups(images, self.config.batch_size):
                proposals = propose(self.model, list(to_float(x.to(self.device))), self.config)
                found |= dict(zip(keys, proposals, strict=True))
        return [self._row(row, found.get(i)) for i, row in enumerate(batch)]

    def _row(self, row: dict[str, Any], found: dict[str, Tensor] | None) -> dict[str, Any]:
        head = {"id": row["id"], "filepath": row["filepath"]}
        if row.get("error"):
            return {**head, "error": row["error"]}
        head |= {name: row[name] for name in ("width", "height", "content")}
        none = np.empty(0, np.float32)
        if found is not None:
            boxes = xyxy_px_to_xywh_rel(found["boxes"].float().cpu().numpy(), 1, 1)
            scores, posterior = found["scores"].float().cpu().numpy(), found["posterior"].float().cpu().numpy()
            source = "detector"
        elif row["boxes"] is not None:
            size = (row["width"], row["height"])
            boxes, scores = thinned(row["boxes"], row["scores"], row["labels"], size, self.config)
            posterior, source = none, "field"
        else:
            boxes, posterior, source = window_grid()[: self.config.max_proposals], none, "grid"
            scores = np.ones(len(boxes), np.float32)
        if not len(boxes):
            boxes, scores, posterior, source = WHOLE_IMAGE, np.zeros(1, np.float32), none, "whole"
        contrast = local_contrast(row["gray"], np.concatenate([WHOLE_IMAGE, boxes]))
        head |= {"image_contrast": float(contrast[0]), "contrast": contrast[1:]}
        return {**head, "boxes": boxes.ravel(), "scores": scores, "posterior": posterior.ravel(), "source": source}
