"""How the baselines ranked under the first two ``RULES``: the ledgers of then are derived as they were made."""

from collections.abc import Sequence

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.ordering import best_first
from gsal_fo.acquisition.strategies.gsal.strategy import Gsal


class RandomOfOld(Strategy):
    """One generator over the sorted ids of what GSAL could rank."""

    name, title = "random", "Random"
    needs = Gsal.needs
    hidden = True

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Largest draw first."""
        score = random_scores(pool.ids, Gsal().rank(pool, context).hard.rows, context.seed)
        return _ranked(pool, score, "draw")

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The draw."""
        return Reason(f"drawn at random, seed {context.seed}; nothing about the image was used")


class EntropyOfOld(Strategy):
    """The largest class entropy of an image's proposals, among what GSAL could rank."""

    name, title = "entropy", "Detector entropy"
    needs = Gsal.needs | {Statistic.IMAGE_ENTROPY}
    hidden = True

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Largest entropy first."""
        entropy = pool.array(Statistic.IMAGE_ENTROPY)
        return _ranked(pool, entropy_scores(entropy, Gsal().rank(pool, context).hard.rows), "nats")

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The entropy."""
        assert ranked.score is not None
        return Reason(f"its least certain proposal has {ranked.score[row]:.2f} nats")


def _ranked(pool: Pool, score: np.ndarray, unit: str) -> Ranked:
    order = best_first(score, pool.ids)
    return Ranked(order[pool.candidates[order]], score, unit)


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
