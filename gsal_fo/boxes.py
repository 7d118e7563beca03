"""Box frames and geometry. Frames: ``xyxy_px`` (detectors), ``xywh_px`` (COCO), ``xywh_rel`` (FiftyOne, [0, 1], top
left)."""

import numpy as np


def xyxy_px_to_xywh_rel(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N, 4) pixel corners to (N, 4) float32 relative top-left boxes of an image ``width`` x ``height`` pixels."""
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / (width, height, width, height)
    return np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1).astype(np.float32)


def xywh_rel_to_xyxy_px(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N, 4) relative top-left boxes to (N, 4) float32 pixel corners of an image ``width`` x ``height`` pixels."""
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1)
    return (corners * (width, height, width, height)).astype(np.float32)


def xywh_px_to_xywh_rel(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N, 4) COCO pixel boxes to (N, 4) float32 relative boxes."""
    return (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / (width, height, width, height)).astype(np.float32)


def xywh_rel_to_xywh_px(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N, 4) relative boxes to (N, 4) float64 COCO pixel boxes."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * (width, height, width, height)


def padded(boxes: np.ndarray, fraction: float) -> np.ndarray:
    """Relative boxes (N, 4) grown by ``fraction`` of their size (half on each side) and clipped to the image."""
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    grow = b[:, 2:] * fraction / 2
    low = np.clip(b[:, :2] - grow, 0, 1)
    high = np.clip(b[:, :2] + b[:, 2:] + grow, 0, 1)
    return np.concatenate([low, high - low], axis=1).astype(np.float32)


def crop_windows(boxes: np.ndarray, width: int, height: int, *, pad: float) -> np.ndarray:
    """(N, 4) int64 left, top, right, bottom of the pixels that padded boxes ``xywh_rel`` cover: at least one each, all
    inside the image. What a model sees of a box, and what a person is shown of it."""
    corners = xywh_rel_to_xyxy_px(padded(boxes, pad), width, height)
    low = np.minimum(corners[:, :2].astype(np.int64), (width - 1, height - 1))
    high = np.minimum(np.maximum(np.ceil(corners[:, 2:]).astype(np.int64), low + 1), (width, height))
    return np.concatenate([low, high], axis=1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4), both ``xywh`` in one frame; 0 where the union is
    empty."""
    a, b = (np.asarray(x, dtype=np.float64).reshape(-1, 4) for x in (a, b))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    inter = np.clip(high - low, 0, None).prod(-1)
    union = a[:, 2:].prod(-1)[:, None] + b[:, 2:].prod(-1)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def window_grid(sizes: tuple[float, ...] = (1.0, 0.5), overlap: float = 0.5) -> np.ndarray:
    """Overlapping square windows (N, 4) ``xywh_rel``: for each relative size, steps of ``size * (1 - overlap)``.

    The proposals of a cold start (METHOD.md section 1): 1 whole image and 9 half-size windows by default, 10 in all.
    """
    out = []
    for size in sizes:
        n = int(np.floor((1 - size) / (size * (1 - overlap)) + 1e-9)) + 1
        starts = np.linspace(0, 1 - size, n)
        out += [(x, y, size, size) for y in starts for x in starts]
    return np.array(out, dtype=np.float32)


WHOLE_IMAGE = np.array([[0, 0, 1, 1]], dtype=np.float32)
