"""An image's score as a sum: what each half of its difficulty and its rarity contribute (Eq. 10 and 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gsal_fo.acquisition.normalize import EPSILON, FLAT, moments
from gsal_fo.acquisition.strategies.gsal.ablations import ablation_of, weights

if TYPE_CHECKING:
    from gsal_fo.acquisition.strategies.gsal.strategy import GsalRanked

WHOLE, PARTS, RARITY = "the image as a whole", "its proposals", "rarity"


def terms(ranked: GsalRanked, row: int) -> tuple[tuple[str, float], ...]:
    """(name, contribution) of a ranked row; the contributions sum to its score.

    ``Z(G)`` is linear in ``Z(L)`` and ``Z(D)``, so its two halves are told apart exactly.
    """
    scores, params = ranked.scores, ranked.params
    if not ablation_of(params).difficulty:
        return ((RARITY, float(scores.rarity[row])),)
    _, lam, eta = weights(params)
    mean, std = moments((eta * scores.local + (1 - eta) * scores.image)[np.isfinite(scores.difficulty)])
    unit = 0.0 if std < FLAT else 1 / (std + EPSILON)
    # Z(L) and Z(D) have mean 0 over the pool; what rounding leaves of it goes to the first.
    whole = (1 - eta) * float(scores.image[row]) * unit
    parts = (eta * float(scores.local[row]) - mean) * unit
    found = ((WHOLE, whole), (PARTS, parts))
    return (*found, (RARITY, lam * float(scores.rarity[row]))) if lam else found
