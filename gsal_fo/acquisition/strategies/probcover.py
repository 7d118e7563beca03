"""ProbCover: the batch whose balls of one radius cover the most of the pool."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Picks, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.clustering import kmeans
from gsal_fo.acquisition.features import covered_embeddings
from gsal_fo.acquisition.ordering import by_id, generator, ranked_by
from gsal_fo.settings import setting

SAMPLE = 5_000  # rows that the radius is estimated from


@dataclass(frozen=True)
class ProbCoverParams:
    """Settings of ``probcover``."""

    purity: float = setting(0.95, "share of balls that hold one k-means cluster alone", low=0, high=1)
    clusters: int | None = setting(None, "k-means clusters; by default the number of labels", low=2)
    radius: float | None = setting(None, "radius of the balls; by default from the purity", low=0)


class ProbCover(Strategy):
    """Greedy maximum coverage by balls of the largest radius with at least 95 % pure balls."""

    name, title = "probcover", "ProbCover"
    paper = "Yehuda et al. 2022, arXiv:2205.11320"
    needs = frozenset({Statistic.IMAGE_EMBEDDINGS, Statistic.LABELED_EMBEDDINGS})
    cost = "one encoder pass, and a clustering"
    Params = ProbCoverParams

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """By how many images of the pool a ball around each covers that no labeled image's ball does."""
        rows, x = self._rows(pool)
        score = np.full(len(pool), np.nan)
        if len(rows):
            neighbors = balls(x, self._radius(x, context))
            covered = self._covered(pool, x, context)
            score[rows] = [np.count_nonzero(~covered[n]) for n in neighbors]
        return ranked_by(pool, score, "images covered", reason="it has no finite embedding")

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """Each pick covers the most that is still uncovered; once all is, the largest balls come first."""
        rows, x = self._rows(pool)
        neighbors = balls(x, self._radius(x, context))
        covered = self._covered(pool, x, context)
        gain = np.array([np.count_nonzero(~covered[n]) for n in neighbors], dtype=np.int64)
        size = np.array([len(n) for n in neighbors])
        taken = np.zeros(len(rows), dtype=bool)
        picks, value = np.empty(budget, dtype=np.int64), np.empty(budget)
        for k in range(budget):
            left = np.flatnonzero(~taken)
            best = int(left[np.lexsort((left, -size[left], -gain[left]))[0]])
            taken[best], picks[k], value[k] = True, rows[best], gain[best]
            for j in neighbors[best][~covered[neighbors[best]]]:
                gain[neighbors[j]] -= 1
            covered[neighbors[best]] = True
        return Picks(picks, value)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """What it covers."""
        assert ranked.score is not None
        value = float(ranked.score[row])
        text = f"{value:.0f} images that no label covers lie within its ball"
        return Reason(text, (("images covered", value),), adds_up=True)

    @staticmethod
    def _rows(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
        rows = by_id(pool)
        x = pool.array(Statistic.IMAGE_EMBEDDINGS)[rows].astype(np.float32)
        good = np.isfinite(x).all(axis=1)
        return rows[good], x[good]

    def _radius(self, x: np.ndarray, context: Context) -> float:
        if self.params.radius is not None:
            return float(self.params.radius)
        count = self.params.clusters or max(2, len(context.labels))
        if len(x) > SAMPLE:
            x = x[np.sort(generator(context.seed, "probcover").permutation(len(x))[:SAMPLE])]
        own = kmeans(x, min(count, len(x)), seed=context.seed)
        return pure_radius(x, own, self.params.purity)

    def _covered(self, pool: Pool, x: np.ndarray, context: Context) -> np.ndarray:
        """(R,) bool: within the ball of a labeled image."""
        labeled = covered_embeddings(pool)
        out = np.zeros(len(x), dtype=bool)
        radius = self._radius(x, context)
        for start in range(0, len(labeled), 1024):
            out |= (distances(x, labeled[start : start + 1024]) <= radius).any(axis=1)
        return out


def pure_radius(x: np.ndarray, own: np.ndarray, purity: float) -> float:
    """The largest radius with which at least ``purity`` of the balls around rows (n, D) hold rows of one cluster
    alone: below it lies the distance to the nearest row of another cluster for at most 1 - purity of the rows."""
    nearest = np.full(len(x), np.inf)
    for start in range(0, len(x), 1024):
        part = slice(start, start + 1024)
        away = distances(x[part], x)
        nearest[part] = np.where(own[part, None] == own[None], np.inf, away).min(axis=1)
    if not np.isfinite(nearest).any():
        return float(distances(x, x.mean(axis=0, keepdims=True)).max()) if len(x) else 0.0
    impure = int(np.floor((1 - purity) * len(x) + 1e-9))
    return float(np.nextafter(np.float32(np.sort(nearest)[min(impure, len(x) - 1)]), np.float32(0)))


def balls(x: np.ndarray, radius: float) -> list[np.ndarray]:
    """Per row of (n, D) the rows within ``radius`` of it, itself included."""
    out: list[np.ndarray] = []
    for start in range(0, len(x), 1024):
        out += [np.flatnonzero(row) for row in distances(x[start : start + 1024], x) <= radius]
    for k, mine in enumerate(out):
        if k not in mine:  # rounding
            out[k] = np.sort(np.append(mine, k))
    return out


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) Euclidean distances of rows (n, D) and (m, D)."""
    squared = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)[None] - 2 * (a @ b.T)
    return np.sqrt(np.maximum(squared, 0.0))
