"""PPAL: uncertain by how hard each class is, then spread over what the images show."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Picks, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import Detections, binary_entropy, detections
from gsal_fo.acquisition.features import FEATURES, STATISTIC, unit_features
from gsal_fo.acquisition.ordering import ranked_by_detections
from gsal_fo.settings import setting

BLOCK = 2048  # detections compared at once


@dataclass(frozen=True)
class PpalParams:
    """Settings of ``ppal``; the defaults are the paper's."""

    features: str = setting("detector", "object features of the detector's box head, or of the crops", choices=FEATURES)
    candidates: int = setting(4, "images kept after the first stage, in batches", low=1)
    rounds: int = setting(100, "iterations of k-medoids at most", low=1)
    weight: float = setting(0.2, "how much a class's difficulty raises the weight of its detections", low=0)
    bend: float = setting(0.3, "alpha of the weight's logarithm", low=1e-6)


class Ppal(Strategy):
    """Stage 1: the 4B images of the largest sum of h_j weighted by class difficulty. Stage 2: k-medoids by the distance
    of their detections, class by class."""

    name, title = "ppal", "PPAL"
    paper = "Yang et al. 2024, arXiv:2211.11612"
    cost = "one detector pass"
    Params = PpalParams
    needs = frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR, Statistic.BOX_FEATURES, Statistic.CLASS_DIFFICULTY})
    nested = False

    def needed(self) -> frozenset[Statistic]:
        """Box features, or crop embeddings."""
        return (self.needs - {Statistic.BOX_FEATURES}) | {STATISTIC[self.params.features]}

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """By the weighted sum of the detections' entropies."""
        found = detections(pool)
        each = self._weighted(pool, found)
        score, why = found.image(each, "sum"), "its detection scores are not finite"
        return ranked_by_detections(pool, score, found, "weighted nats", context.seed, reason=why, detail=each)

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """k-medoids of the best ``candidates`` x budget images; most uncertain medoid first."""
        rows = ranked.order[: self.params.candidates * budget]
        if len(rows) <= budget:
            return Picks(rows[:budget])
        medoids = k_medoids(self.distances(pool, ranked.detail[0], rows), budget, self.params.rounds)
        return Picks(rows[np.sort(medoids)])

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The weighted entropies."""
        assert ranked.score is not None
        found, each = ranked.detail
        mine = each[found.of(row)]
        if not len(mine):
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        value = float(ranked.score[row])
        text = f"{len(mine)} detections whose entropies, weighted by how hard their classes are, add up to {value:.2f}"
        return Reason(text, tuple((f"box {k}", float(h)) for k, h in enumerate(mine, 1)), adds_up=True)

    def _weighted(self, pool: Pool, found: Detections) -> np.ndarray:
        """(J,) h_j w_c of each detection."""
        if not len(found.place):
            return np.empty(0)
        label = pool.posterior.values[found.place, 1:].argmax(axis=1)
        return binary_entropy(found.score) * self.class_weights(pool.array(Statistic.CLASS_DIFFICULTY))[label]

    def class_weights(self, ease: np.ndarray) -> np.ndarray:
        """(C,) w_c = 1 + weight * bend * log((e^(1 / bend) - 1)(1 - q_c) + 1), q_c in [0, 1] the class's ease: 1 for a
        class that the detector has mastered, 1 + weight for one that it has not begun to learn."""
        q = np.clip(np.asarray(ease, dtype=np.float64), 0, 1)
        bend = self.params.bend
        return np.asarray(1 + self.params.weight * bend * np.log(np.expm1(1 / bend) * (1 - q) + 1))

    def distances(self, pool: Pool, found: Detections, rows: np.ndarray) -> np.ndarray:
        """(n, n) float32, symmetric: mean of both directions of sum_j s_j min over same-class detections k of
        (1 - cos(f_j, f_k)) / sum_j s_j; 2 where the other image has none of j's class. Computed class by class in
        blocks: (n k)^2 numbers never stand at once."""
        place = np.concatenate([np.arange(found.of(r).start, found.of(r).stop) for r in rows.tolist()]).astype(np.int64)
        owner = np.repeat(np.arange(len(rows)), np.diff(found.starts)[rows])
        feature = unit_features(pool, found, self.params.features)[place]
        label = pool.posterior.values[found.place[place], 1:].argmax(axis=1) if len(place) else place
        weight = found.score[place].astype(np.float32)
        total = np.bincount(owner, weights=weight, minlength=len(rows)).astype(np.float32)
        one_way = np.zeros((len(rows), len(rows)), dtype=np.float32)
        for c in np.unique(label):
            mine = np.flatnonzero(label == c)  # sorted by image
            images, begin = np.unique(owner[mine], return_index=True)
            for start in range(0, len(mine), BLOCK):
                some = mine[start : start + BLOCK]
                near = np.minimum.reduceat(1 - feature[some] @ feature[mine].T, begin, axis=1)
                away = np.full((len(some), len(rows)), 2.0, dtype=np.float32)
                away[:, images] = near
                away *= weight[some, None]
                mine_of, first = np.unique(owner[some], return_index=True)
                one_way[mine_of] += np.add.reduceat(away, first, axis=0)
        one_way /= np.maximum(total, np.float32(1e-12))[:, None]
        one_way[total <= 0] = 2.0
        out = (one_way + one_way.T) / 2
        np.fill_diagonal(out, 0.0)
        return np.asarray(out)


def k_medoids(distance: np.ndarray, count: int, rounds: int) -> np.ndarray:
    """Places (count,) of the medoids of n points with distances (n, n); farthest-first start from the first point.

    Each iteration gives every point to its nearest medoid and makes the point with the smallest sum of distances to its
    cluster the new medoid, the lowest place in a tie, until nothing changes or ``rounds`` is reached.
    """
    medoids = [0]
    gap = distance[0].copy()
    gap[0] = -1
    for _ in range(count - 1):
        medoids.append(int(gap.argmax()))
        gap = np.minimum(gap, distance[medoids[-1]])
        gap[medoids] = -1
    found = np.array(medoids)
    for _ in range(rounds):
        own = distance[:, found].argmin(axis=1)
        own[found] = np.arange(count)  # a copy of another medoid keeps its own cluster
        new = found.copy()
        for k in range(count):
            members = np.flatnonzero(own == k)
            new[k] = members[distance[np.ix_(members, members)].sum(axis=1, dtype=np.float64).argmin()]
        if (new == found).all():
            break
        found = new
    return found
