"""Margin: how close the detector's two best classes are."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import AGGREGATES, Detections, detections
from gsal_fo.acquisition.ordering import ranked_by_detections
from gsal_fo.settings import setting


@dataclass(frozen=True)
class MarginParams:
    """Settings of ``margin``."""

    aggregate: str = setting("sum", "how an image's detections become one number", choices=AGGREGATES)


class Margin(Strategy):
    """Sum, mean or maximum over detections of 1 - (p_1 - p_2), the two largest foreground probabilities."""

    name, title = "margin", "Margin between the two best classes"
    paper = "Scheffer et al. 2001; Brust et al. 2019"
    needs = frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR})
    cost = "one detector pass"
    Params = MarginParams

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Smallest margins first."""
        found = detections(pool)
        each = self._closeness(pool, found)
        score, why = found.image(each, self.params.aggregate), "its class posterior is not finite"
        return ranked_by_detections(pool, score, found, "1 - margin", context.seed, reason=why, detail=each)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The detection whose two classes are closest."""
        assert ranked.score is not None
        found, each = ranked.detail
        mine = each[found.of(row)]
        if not len(mine):
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        p = pool.posterior.values[found.place[found.of(row)]][int(np.argmax(mine)), 1:]
        names, best = pool.posterior.classes, np.argsort(-p, kind="stable")[:2]
        between = " and ".join(f'"{names[k]}" ({p[k]:.2f})' for k in best)
        text = (
            f"its closest detection is torn between {between}; {self.params.aggregate} {float(ranked.score[row]):.2f}"
        )
        return Reason(text, (("1 - margin", float(ranked.score[row])),), adds_up=True)

    @staticmethod
    def _closeness(pool: Pool, found: Detections) -> np.ndarray:
        """(J,) 1 - (p_1 - p_2); with a single class p_2 is 0."""
        p = pool.posterior.values[found.place, 1:].astype(np.float64)
        if not len(p):
            return np.empty(0)
        top = -np.partition(-p, 1, axis=1)[:, :2] if p.shape[1] > 1 else np.pad(p, ((0, 0), (0, 1)))
        return np.asarray(1 - (top[:, 0] - top[:, 1]))
