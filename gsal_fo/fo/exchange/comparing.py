"""Whether two sets of labeled boxes are the same: one-to-one by label, up to what a labeling tool rounds away."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

Boxes = Sequence[tuple[str, Sequence[float]]]  # (label, xywh_rel)
WRITTEN = 1e-4  # of the image's side: what formats round when they write decimals
PIXEL = 1.0  # what a tool that keeps whole pixels moves an edge by, up or down
UNKNOWN_SIDE = 100  # pixels: of an image whose size nobody knows, as if it were small


def same(a: Boxes, b: Boxes) -> bool:
    """Whether both hold the same boxes, up to what formats round."""
    return _matched(a, b, np.full(4, WRITTEN))


def rounded(sent: Boxes, back: Boxes, size: tuple[int, int] | None) -> bool:
    """Whether ``back`` is ``sent`` up to whole pixels of an image of ``size`` (width, height), None: not known.

    Some tools round the four edges, others corner and sides; either way each number moves by a pixel at most.
    """
    width, height = size or (UNKNOWN_SIDE, UNKNOWN_SIDE)
    return _matched(sent, back, np.array([PIXEL / width, PIXEL / height] * 2) + WRITTEN)


def _matched(a: Boxes, b: Boxes, most: np.ndarray) -> bool:
    """Whether each box of ``a`` has its own box of ``b``, of the same label, no number further off than ``most`` (4,):
    neither of corner and sides, or none of the four edges."""
    left, right = _by_label(a), _by_label(b)
    return {k: len(v) for k, v in left.items()} == {k: len(v) for k, v in right.items()} and all(
        _pairs(left[label], right[label], most) for label in left
    )


def _by_label(boxes: Boxes) -> dict[str, np.ndarray]:
    """Label -> (n, 4) array; a box that is none becomes NaN, which is near nothing."""
    out: dict[str, list[Sequence[float]]] = defaultdict(list)
    for label, box in boxes:
        out[label].append(box if box is not None and len(box) == 4 else [np.nan] * 4)
    return {label: np.array(rows, dtype=float) for label, rows in out.items()}


def _pairs(left: np.ndarray, right: np.ndarray, most: np.ndarray) -> bool:
    """Whether the rows of two (n, 4) arrays of ``xywh_rel`` pair up."""
    near = np.zeros((len(left), len(right)), dtype=bool)
    for a, b in ((left, right), (_edges(left), _edges(right))):
        near |= (np.abs(a[:, None] - b[None]) <= most).all(2)
    rows, columns = linear_sum_assignment(~near)  # boxes that overlap may each fit several
    return bool(near[rows, columns].all())


def _edges(boxes: np.ndarray) -> np.ndarray:
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
