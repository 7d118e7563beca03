"""BADGE: a batch that is diverse in the gradients which its own predicted labels would cause."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Picks, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import Detections, detections
from gsal_fo.acquisition.features import FEATURES, STATISTIC, unit_features
from gsal_fo.acquisition.ordering import by_id, generator, ranked_by_detections, uniform
from gsal_fo.settings import setting


@dataclass(frozen=True)
class BadgeParams:
    """Settings of ``badge``."""

    features: str = setting("detector", "object features of the detector's box head, or of the crops", choices=FEATURES)


class Badge(Strategy):
    """k-means++ over gradient embeddings: per detection (p - onehot(argmax)) outer f, per image their mean.

    The first pick has the largest norm, each next one is drawn by its squared distance to the nearest pick. The
    embeddings of (C + 1) x D numbers are never made: inner products are (a . c)(b . d).
    """

    name, title = "badge", "BADGE"
    paper = "Ash et al. 2019, arXiv:1906.03671"
    cost = "one detector pass"
    Params = BadgeParams
    needs = frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR, Statistic.BOX_FEATURES})

    def needed(self) -> frozenset[Statistic]:
        """Box features, or crop embeddings."""
        return frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR, STATISTIC[self.params.features]})

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """By the norm of the image's gradient."""
        found = detections(pool)
        gradients = Gradients(pool, found, self.params.features)
        norm, why = np.sqrt(gradients.squared_norms()), "its class posterior is not finite"
        return ranked_by_detections(pool, norm, found, "gradient norm", context.seed, reason=why, detail=gradients)

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """k-means++ over the images with detections; once they are used up, the others in seeded random order."""
        assert ranked.score is not None
        found, gradients = ranked.detail
        norms = np.nan_to_num(ranked.score) ** 2
        rows = by_id(pool)
        rows = rows[found.has[rows] & np.isin(rows, ranked.order)]
        count = min(budget, len(rows))
        picks, value = np.empty(count, dtype=np.int64), np.empty(count)
        gap = norms[rows].copy()
        draw, taken = generator(context.seed, self.name), np.zeros(len(rows), dtype=bool)
        for k in range(count):
            best = int(gap.argmax()) if k == 0 else _drawn(gap, taken, draw)
            picks[k], value[k], taken[best] = rows[best], np.sqrt(max(gap[best], 0.0)), True
            away = norms[rows] + norms[rows[best]] - 2 * gradients.products(int(rows[best]))[rows]
            gap = np.maximum(away, 0.0) if k == 0 else np.minimum(gap, np.maximum(away, 0.0))
            gap[taken] = 0.0
        rest = np.setdiff1d(ranked.order, picks)
        rest = rest[np.lexsort((pool.ids[rest].astype(str), uniform(pool.ids[rest], context.seed, purpose="empty")))]
        filled = np.concatenate([picks, rest[: budget - count]])
        return Picks(filled, np.concatenate([value, np.zeros(budget - count)]))

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The norm of its gradient."""
        assert ranked.score is not None
        found, _ = ranked.detail
        count = len(found.score[found.of(row)])
        if not count:
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        value = float(ranked.score[row])
        text = f"labeling its {count} detections would change the detector by a gradient of norm {value:.3f}"
        return Reason(text, (("gradient norm", value),), adds_up=True)


class Gradients:
    """Inner products between the images' gradient embeddings."""

    def __init__(self, pool: Pool, found: Detections, features: str) -> None:
        p = pool.posterior.values[found.place].astype(np.float32)
        if len(p):
            p[np.arange(len(p)), p.argmax(axis=1)] -= 1
        self.found, self.residual, self.feature = found, p, unit_features(pool, found, features)
        self.count = np.diff(found.starts)

    def products(self, row: int) -> np.ndarray:
        """(N,) float64: the gradient of image ``row`` times every image's."""
        mine = self.found.of(row)
        each = (self.residual @ self.residual[mine].T) * (self.feature @ self.feature[mine].T)
        total = np.bincount(self.found.owner, weights=each.sum(axis=1), minlength=len(self.count))
        return np.asarray(total / np.maximum(self.count, 1) / max(self.count[row], 1))

    def squared_norms(self) -> np.ndarray:
        """(N,) float64: sum over pairs of the image's own detections."""
        out = np.zeros(len(self.count))
        for size in np.unique(self.count[self.count > 0]):
            rows = np.flatnonzero(self.count == size)
            for start in range(0, len(rows), 4096):
                some = rows[start : start + 4096]
                at = self.found.starts[some][:, None] + np.arange(size)[None]
                a, f = self.residual[at], self.feature[at]
                gram = np.einsum("nic,njc->nij", a, a) * np.einsum("nid,njd->nij", f, f)
                out[some] = gram.sum(axis=(1, 2), dtype=np.float64) / size**2
        return np.maximum(out, 0.0)


def _drawn(gap: np.ndarray, taken: np.ndarray, draw: np.random.Generator) -> int:
    """A place by the squared distances; where all that is left are copies of picks, the first of them."""
    total = np.cumsum(gap)
    if total[-1] <= 0:
        return int(np.flatnonzero(~taken)[0])
    place = int(np.searchsorted(total, draw.random() * total[-1], side="right"))
    return min(place, int(np.flatnonzero(gap > 0)[-1]))
