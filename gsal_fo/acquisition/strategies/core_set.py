"""Core-set: each pick is the image farthest from everything labeled or picked so far."""

import numpy as np

from gsal_fo.acquisition.base import Context, Picks, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.features import covered_embeddings
from gsal_fo.acquisition.ordering import by_id, ranked_by


class CoreSet(Strategy):
    """k-center greedy on image embeddings; the labeled images, and those of open rounds, are the first
    centers."""

    name, title = "core_set", "Core-set (k-center greedy)"
    paper = "Sener & Savarese 2018, arXiv:1708.00489"
    needs = frozenset({Statistic.IMAGE_EMBEDDINGS, Statistic.LABELED_EMBEDDINGS})
    cost = "one encoder pass"

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """By the distance to the nearest labeled image; where nothing is labeled, to the mean of the pool."""
        score = np.full(len(pool), np.nan)
        rows = by_id(pool)
        score[rows] = np.sqrt(self._gap(pool, rows, pool.array(Statistic.IMAGE_EMBEDDINGS)[rows].astype(np.float32)))
        return ranked_by(pool, score, "distance", reason="it has no finite embedding")

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """k-center greedy, ties to the smallest id. O(budget N D) time, O(N D) memory."""
        rows = by_id(pool)
        rows = rows[np.isin(rows, ranked.order)]
        x = pool.array(Statistic.IMAGE_EMBEDDINGS)[rows].astype(np.float32)
        norm = np.einsum("ij,ij->i", x, x)
        gap = self._gap(pool, rows, x)
        picks, value = np.empty(budget, dtype=np.int64), np.empty(budget)
        for k in range(budget):
            best = int(gap.argmax())  # of equal ones the first, which has the smallest id
            picks[k], value[k] = rows[best], np.sqrt(max(gap[best], 0.0))
            np.minimum(gap, np.maximum(norm + norm[best] - 2 * (x @ x[best]), 0.0), out=gap)
            gap[best] = -1.0  # never again: distances are 0 or more, were all others copies of it
        return Picks(picks, value)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """How far it is from what is labeled."""
        assert ranked.score is not None
        value = float(ranked.score[row])
        what = "the nearest labeled image" if len(pool.array(Statistic.LABELED_EMBEDDINGS)) else "the mean of the pool"
        return Reason(f"its embedding is {value:.3f} away from {what}", (("distance", value),), adds_up=True)

    @staticmethod
    def _gap(pool: Pool, rows: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Squared distance (R,) float32 of each row's embedding to the nearest labeled one."""
        labeled = covered_embeddings(pool)
        if not len(labeled):
            finite = np.isfinite(x).all(axis=1)
            labeled = x[finite].mean(axis=0, keepdims=True) if finite.any() else np.zeros((1, x.shape[1]), np.float32)
        norm = np.einsum("ij,ij->i", x, x)
        gap = np.full(len(x), np.inf, dtype=np.float32)
        for start in range(0, len(labeled), 1024):
            some = labeled[start : start + 1024]
            near = norm[:, None] + np.einsum("ij,ij->i", some, some)[None] - 2 * (x @ some.T)
            np.minimum(gap, near.min(axis=1), out=gap)
        return np.maximum(gap, 0.0)
