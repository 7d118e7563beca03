"""An image's score as a sum: what each half of its difficulty and its rarity contribute (Eq. 10 and 2)."""

import numpy as np

from gsal_fo.acquisition.normalize import EPSILON, FLAT, moments
from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.acquisition.strategies.gsal.scores import weights

WHOLE, PARTS, RARITY = "the image as a whole", "its proposals", "rarity"
ALONE = {"entropy": "detector entropy (nats)", "random": "the draw"}


def terms(ranking: Ranking, row: int) -> list[tuple[str, float]]:
    """(name, contribution) of a ranked row; the contributions sum to its score.

    ``Z(G)`` is linear in ``Z(L)`` and ``Z(D)``, so its two halves are told apart exactly. Raises ValueError for a row
    without a rank.
    """
    scores, params = ranking.scores, ranking.params
    if ranking.rank[row] == 0:
        raise ValueError(f"image {ranking.table.ids[row]} has no rank, so its score has no terms")
    if params.strategy in ALONE:
        return [(ALONE[params.strategy], float(scores.score[row]))]
    if params.strategy == "symbolic_only":
        return [(RARITY, float(scores.rarity[row]))]
    _, lam, eta = weights(params)
    mean, std = moments((eta * scores.local + (1 - eta) * scores.image)[np.isfinite(scores.difficulty)])
    unit = 0.0 if std < FLAT else 1 / (std + EPSILON)
    # Z(L) and Z(D) have mean 0 over the pool; what rounding leaves of it goes to the first.
    whole = (1 - eta) * float(scores.image[row]) * unit
    parts = (eta * float(scores.local[row]) - mean) * unit
    out = [(WHOLE, whole), (PARTS, parts)]
    return [*out, (RARITY, lam * float(scores.rarity[row]))] if lam else out
