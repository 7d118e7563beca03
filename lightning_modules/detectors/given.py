"""Proposals that a dataset holds already, thinned out as those of our own detectors are."""

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import batched_nms, nms

from gsal_fo.boxes import xywh_rel_to_xyxy_px
from gsal_fo.config import DetectorConfig

SMALLEST_BOX_PX = 1.0


def thinned(
    boxes: np.ndarray,
    scores: np.ndarray | None,
    labels: Sequence[str] | None,
    size: tuple[int, int],
    config: DetectorConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes from the score floor on that non-maximum suppression leaves: ``config.max_proposals``, best first.

    ``proposals="detections"`` suppresses within a label, ``"objectness"`` whatever the labels, as for a detector.

    Args:
        boxes: (n, 4) ``xywh_rel``.
        scores: (n,) in [0, 1]; None: all 1.
        labels: n names; boxes without one are of one kind. None: nobody named them.
        size: width and height of the image in pixels.
        config: floor, overlap and limit.

    Returns:
        Boxes (m, 4) and scores (m,) float32.
    """
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    given = np.ones(len(boxes), np.float32) if scores is None else np.asarray(scores, dtype=np.float32)
    named = list(labels) if labels is not None else [""] * len(boxes)
    corners = xywh_rel_to_xyxy_px(boxes, *size)
    good = ((corners[:, 2:] - corners[:, :2]) >= SMALLEST_BOX_PX).all(1) & (given >= config.score_floor)
    rows = np.flatnonzero(good)
    xyxy, score = torch.from_numpy(corners[rows]), torch.from_numpy(given[rows])
    if config.proposals == "objectness":
        kept = nms(xyxy, score, config.nms_iou)
    else:
        kinds = {name: k for k, name in enumerate(sorted(set(named)))}
        kept = batched_nms(xyxy, score, torch.tensor([kinds[named[r]] for r in rows]), config.nms_iou)
    rows = rows[kept[: config.max_proposals].numpy()]
    return boxes[rows], given[rows]
