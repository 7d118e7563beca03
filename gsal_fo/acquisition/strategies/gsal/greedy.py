"""The greedy batch: coverage counted again after each pick."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gsal_fo.acquisition.strategies.gsal.scores import Difficulty, fused_score
from gsal_fo.config import GsalParams


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
