"""Batches with equal shares per class: which class an image shows, and taking turns between classes."""

import numpy as np

from gsal_fo.acquisition.base import Pool
from gsal_fo.acquisition.detections import Detections

NONE = -1  # the image shows no class


def predicted_class(pool: Pool, found: Detections) -> np.ndarray:
    """(N,) int64: class of each image's most confident detection, the first in a tie; -1 where it has none."""
    out = np.full(len(pool), NONE, dtype=np.int64)
    if not len(found.place):
        return out
    p = pool.posterior.values[found.place, 1:]
    label, sure = p.argmax(axis=1), p.max(axis=1)
    # Last write wins: the surest detection of an image is written last, and of equal ones the first.
    turn = np.lexsort((-np.arange(len(sure)), sure))
    out[found.owner[turn]] = label[turn]
    return out


def round_robin(order: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Rows of ``order`` (R,) rearranged so that every beginning of it has equal shares of each group.

    Each turn takes the first image left of every group, of the smallest group first (by number of images in ``order``,
    then by number of the group); a group that runs out leaves its share to the others. Images of a negative ``group``
    (N,) come after all turns, in their order.
    """
    own = np.asarray(group)[order]
    place = np.arange(len(order))
    by_group = np.lexsort((place, own))
    _, first, inverse, sizes = np.unique(own[by_group], return_index=True, return_inverse=True, return_counts=True)
    turn, size = np.empty(len(order), dtype=np.int64), np.empty(len(order), dtype=np.int64)
    turn[by_group] = place - first[inverse]
    size[by_group] = sizes[inverse]
    return np.asarray(order[np.lexsort((place, own, size, np.where(own < 0, len(order), turn)))])


def quotas(order: np.ndarray, concept: np.ndarray) -> np.ndarray:
    """Rows of ``order`` (R,) rearranged so that every beginning of it has uniform quotas over concepts.

    Each turn takes the best image left of every concept, best of them first; a concept that runs out leaves its share
    to the others. Images with a negative ``concept`` (N,), background or unmatched, come after all turns.

    Source: docs/method.md section 5, ``no_rarity``.
    """
    own = np.asarray(concept)[order]
    place = np.arange(len(order))
    by_concept = np.lexsort((place, own))
    _, first, sizes = np.unique(own[by_concept], return_index=True, return_counts=True)
    turn = np.empty(len(order), dtype=np.int64)
    turn[by_concept] = place - np.repeat(first, sizes)
    return order[np.lexsort((place, np.where(own < 0, len(order), turn)))]
