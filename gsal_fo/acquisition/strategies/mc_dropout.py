"""MC dropout: how much the detector's box head disagrees with itself when parts of it are switched off."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import AGGREGATES, Detections, class_entropy, detections
from gsal_fo.acquisition.ordering import ranked_by_detections
from gsal_fo.settings import setting


@dataclass(frozen=True)
class McDropoutParams:
    """Settings of ``mc_dropout``."""

    measure: str = setting(
        "bald",
        "bald: entropy of the mean posterior less the mean entropy; entropy: of the mean posterior",
        choices=("bald", "entropy"),
    )
    aggregate: str = setting("sum", "how an image's detections become one number", choices=AGGREGATES)


class McDropout(Strategy):
    """BALD or entropy over T passes of the box head with dropout, on fixed regions of interest."""

    name, title = "mc_dropout", "MC dropout"
    paper = "Gal et al. 2017, arXiv:1703.02910"
    needs = frozenset({Statistic.PROPOSALS, Statistic.MC_POSTERIOR})
    cost = "one detector pass, and T passes of its box head"
    Params = McDropoutParams

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Most disagreement first."""
        found = detections(pool)
        score = found.image(self._values(pool, found), self.params.aggregate)
        why = "its dropout posteriors are not finite"
        return ranked_by_detections(pool, score, found, "nats", context.seed, reason=why)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The detections' values."""
        assert ranked.score is not None
        found, _ = ranked.detail
        count = len(found.score[found.of(row)])
        if not count:
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        passes = len(pool.array(Statistic.MC_POSTERIOR))
        value = float(ranked.score[row])
        what = "disagreement" if self.params.measure == "bald" else "entropy"
        text = f"{what} of {passes} dropout passes over {count} detections: {self.params.aggregate} {value:.3f} nats"
        return Reason(text, ((what, value),), adds_up=True)

    def _values(self, pool: Pool, found: Detections) -> np.ndarray:
        """(J,) of each detection."""
        passes = pool.array(Statistic.MC_POSTERIOR)
        mean = np.zeros((len(found.place), passes.shape[2]))
        each = np.zeros(len(found.place))
        for one in passes:  # pass by pass: T times the pool's posteriors never stand in memory as float64
            p = one[found.place].astype(np.float64)
            mean += p / len(passes)
            each += class_entropy(p) / len(passes)
        whole = class_entropy(mean)
        # H(mean p) >= mean H(p); rounding may say otherwise.
        return np.maximum(whole - each, 0.0) if self.params.measure == "bald" else whole
