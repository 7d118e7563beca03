"""TypiClust: the most typical image of each region that has no label yet."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Picks, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.clustering import kmeans
from gsal_fo.acquisition.features import covered_embeddings
from gsal_fo.acquisition.ordering import by_id, ranked_by
from gsal_fo.settings import setting


@dataclass(frozen=True)
class TypiClustParams:
    """Settings of ``typiclust``."""

    most_clusters: int = setting(500, "clusters at most; else labeled images plus budget", low=1)
    neighbors: int = setting(20, "neighbors that typicality is the inverse mean distance to", low=1)


class TypiClust(Strategy):
    """k-means into min(L + B, 500) clusters; clusters without labels first, biggest first; the most typical of each."""

    name, title = "typiclust", "TypiClust"
    paper = "Hacohen et al. 2022, arXiv:2202.02794"
    needs = frozenset({Statistic.IMAGE_EMBEDDINGS, Statistic.LABELED_EMBEDDINGS})
    cost = "one encoder pass, and a clustering"
    Params = TypiClustParams
    nested = False

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """By typicality in the whole pool; the batch goes by clusters."""
        rows = by_id(pool)
        x = pool.array(Statistic.IMAGE_EMBEDDINGS)[rows].astype(np.float32)
        good = np.isfinite(x).all(axis=1)
        score = np.full(len(pool), np.nan)
        score[rows[good]] = typicality(x[good], self.params.neighbors)
        return ranked_by(pool, score, "typicality", reason="it has no finite embedding")

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """One image per turn: from the cluster with the fewest labels and picks, of these the biggest."""
        rows = by_id(pool)
        rows = rows[np.isin(rows, ranked.order)]
        labeled = covered_embeddings(pool)
        x = pool.array(Statistic.IMAGE_EMBEDDINGS)[rows].astype(np.float32)
        count = min(len(labeled) + budget, self.params.most_clusters, len(labeled) + len(x))
        together = np.concatenate([x, labeled]) if len(labeled) else x
        own = kmeans(together, count, seed=context.seed)
        covered = np.bincount(own[len(x) :], minlength=count)
        size = np.bincount(own, minlength=count)
        members = [self._best_first(together, own, k, len(x)) for k in range(count)]
        picks = np.empty(budget, dtype=np.int64)
        left = np.array([len(m) for m in members])
        for turn in range(budget):
            open_ = np.flatnonzero(left > 0)
            cluster = open_[np.lexsort((open_, -size[open_], covered[open_]))[0]]
            picks[turn] = rows[members[cluster][-left[cluster]]]
            left[cluster] -= 1
            covered[cluster] += 1
        return Picks(picks)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """Its typicality."""
        assert ranked.score is not None
        value = float(ranked.score[row])
        text = f"it is typical: its {self.params.neighbors} neighbors are at a mean distance of {1 / value:.3f}"
        return Reason(text, (("typicality", value),), adds_up=True)

    def _best_first(self, x: np.ndarray, own: np.ndarray, cluster: int, pool: int) -> np.ndarray:
        """The pool's places of one cluster, most typical first; typicality is measured among all of the cluster."""
        mine = np.flatnonzero(own == cluster)
        value = typicality(x[mine], self.params.neighbors)
        order = mine[np.lexsort((mine, -value))]
        return order[order < pool]


def typicality(x: np.ndarray, neighbors: int) -> np.ndarray:
    """(n,) float64: inverse of the mean distance to the nearest ``neighbors`` others of (n, D); 1e9 for copies, and for
    a row alone."""
    count = min(neighbors, len(x) - 1)
    if count < 1:
        return np.full(len(x), 1e9)
    norm = np.einsum("ij,ij->i", x, x)
    out = np.empty(len(x))
    for start in range(0, len(x), 1024):
        part = slice(start, min(start + 1024, len(x)))
        squared = norm[part, None] + norm[None] - 2 * (x[part] @ x.T)
        squared[np.arange(part.stop - part.start), np.arange(part.start, part.stop)] = np.inf
        near = np.partition(squared, count - 1, axis=1)[:, :count]
        out[part] = np.sqrt(np.maximum(near.astype(np.float64), 0)).mean(axis=1)
    return 1 / np.maximum(out, 1e-9)
