"""Detector entropy: how unsure the detector is of its own boxes."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, StatisticMissing, Strategy
from gsal_fo.acquisition.detections import AGGREGATES, Detections, binary_entropy, class_entropy, detections
from gsal_fo.acquisition.ordering import ranked_by_detections
from gsal_fo.settings import setting


@dataclass(frozen=True)
class EntropyParams:
    """Settings of ``entropy``."""

    aggregate: str = setting("sum", "how an image's detections become one number", choices=AGGREGATES)
    of: str = setting(
        "auto",
        "of the class posterior, or binary of the confidence; auto: of the posterior where there is one",
        choices=("auto", "class", "binary"),
    )


class Entropy(Strategy):
    """Sum, mean or maximum over an image's detections of H(p), or of h(s) where boxes come without a posterior."""

    name, title = "entropy", "Detector entropy"
    paper = "Settles 2009; Roy et al. 2018"
    needs = frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR})
    cost = "one detector pass"
    Params = EntropyParams

    def needed(self) -> frozenset[Statistic]:
        """Binary entropy needs no posterior."""
        return frozenset({Statistic.PROPOSALS}) if self.params.of == "binary" else self.needs

    def as_of(self, rules: int) -> Strategy:
        """Before rule 3 the largest class entropy ranked what GSAL could rank."""
        from gsal_fo.acquisition.legacy import EntropyOfOld

        return self if rules >= 3 else EntropyOfOld()

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Largest entropy first."""
        found = detections(pool)
        each = self._entropies(pool, found)
        score, why = found.image(each, self.params.aggregate), "its class posterior is not finite"
        return ranked_by_detections(pool, score, found, "nats", context.seed, reason=why, detail=each)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The entropies of the image's detections."""
        assert ranked.score is not None
        found, each = ranked.detail
        mine = each[found.of(row)]
        if not len(mine):
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        value, aggregate = float(ranked.score[row]), self.params.aggregate
        how = {"sum": "add up to", "mean": "average", "max": "reach"}[aggregate]
        text = f"{_boxes(len(mine))} whose entropies {how} {value:.2f} nats"
        if aggregate == "max":
            return Reason(text, (("largest entropy", value),), adds_up=True)
        part = 1.0 if aggregate == "sum" else 1.0 / len(mine)
        terms = tuple((f"box {k}", float(h * part)) for k, h in enumerate(mine, 1))
        return Reason(text, terms, adds_up=True)

    def _entropies(self, pool: Pool, found: Detections) -> np.ndarray:
        """(J,) entropy of each detection."""
        if self.params.of == "binary":
            return binary_entropy(found.score)
        try:
            values = pool.posterior.values[found.place]
        except StatisticMissing:
            if self.params.of == "class":
                raise
            return binary_entropy(found.score)
        if self.params.of == "auto" and len(values) and not np.isfinite(values).any():
            return binary_entropy(found.score)
        return class_entropy(values)


def _boxes(count: int) -> str:
    return "1 detection" if count == 1 else f"{count} detections"
