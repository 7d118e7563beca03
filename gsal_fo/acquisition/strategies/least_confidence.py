"""Least confidence: the detections that the detector believes in least."""

from dataclasses import dataclass

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import AGGREGATES, detections
from gsal_fo.acquisition.ordering import ranked_by_detections
from gsal_fo.settings import setting


@dataclass(frozen=True)
class LeastConfidenceParams:
    """Settings of ``least_confidence``."""

    aggregate: str = setting("sum", "how an image's detections become one number", choices=AGGREGATES)


class LeastConfidence(Strategy):
    """Sum, mean or maximum over detections of 1 - s."""

    name, title = "least_confidence", "Least confidence"
    paper = "Lewis & Gale 1994"
    needs = frozenset({Statistic.PROPOSALS})
    cost = "one detector pass"
    Params = LeastConfidenceParams

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Least confident first."""
        found = detections(pool)
        score = found.image(1 - found.score, self.params.aggregate)
        reason = "its detection scores are not finite"
        return ranked_by_detections(pool, score, found, "1 - confidence", context.seed, reason=reason)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The least confident detection."""
        assert ranked.score is not None
        found, _ = ranked.detail
        mine = found.score[found.of(row)]
        if not len(mine):
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        value = float(ranked.score[row])
        text = f"its least sure of {len(mine)} detections scores {mine.min():.2f}; {self.params.aggregate} {value:.2f}"
        return Reason(text, (("1 - confidence", value),), adds_up=True)
