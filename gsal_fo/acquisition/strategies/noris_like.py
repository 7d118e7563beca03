"""Entropy of what no pick has shown yet. In the spirit of NORIS, whose code and method section are not public."""

import heapq
from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Picks, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import binary_entropy, detections
from gsal_fo.acquisition.features import FEATURES, STATISTIC, unit_features
from gsal_fo.acquisition.ordering import by_id, ranked_by_detections
from gsal_fo.settings import setting


@dataclass(frozen=True)
class NorisLikeParams:
    """Settings of ``noris_like``."""

    features: str = setting("detector", "object features of the detector's box head, or of the crops", choices=FEATURES)
    power: float = setting(4.0, "power of the cosine: how alike two objects must be to count as repeated", low=0)


class NorisLike(Strategy):
    """Greedy argmax of sum_j h_j * prod over already selected same-class detections o of (1 - max(0, cos)^4)."""

    name, title = "noris_like", "Entropy of objects not yet shown (NORIS-like)"
    paper = "after Hekimoglu et al. 2023, arXiv:2307.08414"
    cost = "one detector pass"
    Params = NorisLikeParams
    needs = frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR, Statistic.BOX_FEATURES})

    def needed(self) -> frozenset[Statistic]:
        """Box features, or crop embeddings."""
        return frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR, STATISTIC[self.params.features]})

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """By the sum of the detections' entropies, before anything is picked."""
        found = detections(pool)
        score = found.image(binary_entropy(found.score), "sum")
        reason = "its detection scores are not finite"
        return ranked_by_detections(pool, score, found, "nats", context.seed, reason=reason)

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """Greedy. A value only shrinks as picks are added, so an image is looked at again only when it leads."""
        found, _ = ranked.detail
        feature = unit_features(pool, found, self.params.features)
        label = pool.posterior.values[found.place, 1:].argmax(axis=1) if len(found.place) else np.empty(0, np.int64)
        left = binary_entropy(found.score)
        seen = np.zeros(len(pool), dtype=np.int64)  # picks that an image's detections have been compared with
        rows = by_id(pool)
        rows = rows[found.has[rows] & np.isin(rows, ranked.order)]
        heap = [(-float(left[found.of(row)].sum()), place, int(row)) for place, row in enumerate(rows.tolist())]
        heapq.heapify(heap)
        picks: list[int] = []
        value: list[float] = []
        shown: list[int] = []  # detections of the picks
        ends = [0]
        while heap and len(picks) < budget:
            bound, place, row = heapq.heappop(heap)
            if seen[row] < len(picks):
                mine = found.of(row)
                others = np.array(shown[ends[seen[row]] :], dtype=np.int64)
                cosine = np.maximum(feature[mine] @ feature[others].T, 0.0).astype(np.float64)
                repeats = np.where(label[mine][:, None] == label[others][None], cosine**self.params.power, 0.0)
                left[mine] *= np.prod(np.maximum(1 - repeats, 0.0), axis=1)
                seen[row] = len(picks)
                heapq.heappush(heap, (-float(left[mine].sum()), place, row))
                continue
            picks.append(row)
            value.append(-bound)
            shown += range(found.of(row).start, found.of(row).stop)
            ends.append(len(shown))
        rest = ranked.order[~np.isin(ranked.order, picks)][: budget - len(picks)]
        return Picks(np.array([*picks, *rest.tolist()], dtype=np.int64), np.array([*value, *np.zeros(len(rest))]))

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The entropies of its detections."""
        assert ranked.score is not None
        found, _ = ranked.detail
        mine = binary_entropy(found.score[found.of(row)])
        if not len(mine):
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        value = float(ranked.score[row])
        text = f"{len(mine)} detections whose entropies add up to {value:.2f} nats before what earlier picks show"
        return Reason(text, tuple((f"box {k}", float(h)) for k, h in enumerate(mine, 1)), adds_up=True)
