"""From a ranking to a batch: concept by concept, or greedily; and the baselines that rank by one number."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gsal_fo.acquisition.strategies.gsal.scores import Difficulty, fused_score
from gsal_fo.config import GsalParams
from gsal_fo.user_files import shown


def check_budget(budget: int, rankable: int) -> int:
    """The budget, if it is a whole number in [1, rankable]; raises ValueError otherwise."""
    if rankable == 0:
        raise ValueError(
            "no image of the pool can be ranked, so none can be picked; see the reasons of the unranked ones"
        )
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or not 1 <= budget <= rankable:
        raise ValueError(
            f"budget must be a whole number in [1, {rankable}], the images that can be ranked; got {shown(budget)}"
        )
    return int(budget)


def quotas(order: np.ndarray, concept: np.ndarray) -> np.ndarray:
    """Rows of ``order`` (R,) rearranged so that every beginning of it has uniform quotas over concepts.

    Each turn takes the best image left of every concept, best of them first; a concept that runs out leaves its share
    to the others. Images with a negative ``concept`` (N,), background or unmatched, come after all turns.

    Source: METHOD.md section 5, ``no_rarity``.
    """
    own = np.asarray(concept)[order]
    place = np.arange(len(order))
    by_concept = np.lexsort((place, own))
    _, first, sizes = np.unique(own[by_concept], return_index=True, return_counts=True)
    turn = np.empty(len(order), dtype=np.int64)
    turn[by_concept] = place - np.repeat(first, sizes)
    return order[np.lexsort((place, np.where(own < 0, len(order), turn)))]


def greedy(
    budget: int,
    hard: Difficulty,
    bonus_of: Callable[[Mapping[int, int]], np.ndarray],
    fine: np.ndarray,
    proposal_image: np.ndarray,
    params: GsalParams,
    ids: Sequence[str] | np.ndarray,
    *,
    pickable: np.ndarray | None = None,
) -> np.ndarray:
    """Rows (budget,) int64 in the order picked; after each pick its concepts count as labeled once more and Eq. 4, 9,
    10 and 2 are evaluated again.

    A picked image adds each concept assigned to it once, however many of its proposals carry it [choice: proposals
    overlap and most are no defect; one image with ten of them must not make a concept look well covered]. Means and
    standard deviations stay those of the pool before the batch.

    Args:
        budget: images to pick, at most as many as are both in ``hard.rows`` and pickable.
        hard: difficulty of the pool.
        bonus_of: from picks so far per fine index to a bonus per index: (F + 2,), the last two those of -2 and -1.
        fine: assigned index per proposal (P,), -1 background, -2 unmatched.
        proposal_image: row of each proposal (P,).
        params: constants.
        ids: sample ids (N,), which break ties.
        pickable: (N,) bool, the images that may be picked; None is all of them.
    """
    owner, concept = np.asarray(proposal_image)[hard.used], np.asarray(fine)[hard.used]
    known = concept >= 0
    pairs = np.unique(np.stack([owner[known], concept[known]], axis=1), axis=0)
    begin = np.searchsorted(pairs[:, 0], np.arange(len(hard.image) + 1))
    added: dict[int, int] = {}
    taken = np.zeros(len(hard.image), dtype=bool) if pickable is None else ~pickable
    picks = np.empty(budget, dtype=np.int64)
    table: np.ndarray | None = None
    score = np.empty(0)
    for i in range(budget):
        latest = bonus_of(added)
        if table is None or not np.array_equal(latest, table):  # often a pick makes no node less rare: nothing to redo
            table = latest
            score = fused_score(hard, table[fine], params)
        left = np.where(taken, np.nan, score)
        best = np.flatnonzero(left == np.nanmax(left))
        picks[i] = min(best.tolist(), key=lambda row: str(ids[row]))
        taken[picks[i]] = True
        for index in pairs[begin[picks[i]] : begin[picks[i] + 1], 1].tolist():
            added[index] = added.get(index, 0) + 1
    return picks


def random_scores(ids: Sequence[str] | np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """(N,) float64: a uniform draw in [0, 1) for each of ``rows``, NaN elsewhere; set by the seed and the ids alone,
    whatever the order of the rows."""
    out = np.full(len(ids), np.nan)
    by_id = sorted(np.asarray(rows).tolist(), key=lambda row: str(ids[row]))
    out[by_id] = np.random.default_rng(seed).random(len(by_id))
    return out


def entropy_scores(entropy: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N,) float64: the detector's entropy (nats) of each of ``rows``, NaN elsewhere; raises ValueError where no row
    has one."""
    out = np.full(len(entropy), np.nan)
    out[rows] = np.asarray(entropy, dtype=np.float64)[rows]
    if len(rows) and not np.isfinite(out).any():
        raise ValueError(
            'strategy="entropy" needs class posteriors, and no detector ran here; score with a trained detector'
        )
    return out
