"""Two heads: how far two box-classification heads of one detector are apart."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import Detections, detections
from gsal_fo.acquisition.ordering import ranked_by_detections
from gsal_fo.settings import setting


@dataclass(frozen=True)
class TwoHeadsParams:
    """Settings of ``miaod_heads`` and ``miaod``."""

    top: int = setting(10, "detections of an image that count, most confident first", low=1)


class MiaodHeads(Strategy):
    """Mean over an image's top detections of the mean over classes of (f1 - f2)^2.

    The selection of MI-AOD on a detector with two heads that were trained side by side, without its adversarial stages.
    """

    name, title = "miaod_heads", "Two heads' discrepancy (MI-AOD's selection alone)"
    paper = "Yuan et al. 2021, arXiv:2104.02324"
    needs = frozenset({Statistic.PROPOSALS, Statistic.TWO_POSTERIORS})
    cost = "one pass of a detector with two heads"
    Params = TwoHeadsParams
    posteriors = Statistic.TWO_POSTERIORS

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Largest discrepancy first."""
        found = detections(pool)
        score = self._image(pool, found)
        reason = "the posteriors of its two heads are not finite"
        return ranked_by_detections(pool, score, found, "squared difference", context.seed, reason=reason)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The mean discrepancy."""
        assert ranked.score is not None
        found, _ = ranked.detail
        count = min(self.params.top, len(found.score[found.of(row)]))
        if not count:
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        value = float(ranked.score[row])
        text = f"its two heads differ by {value:.4f} (mean squared) over its {count} most confident detections"
        return Reason(text, (("discrepancy", value),), adds_up=True)

    def _image(self, pool: Pool, found: Detections) -> np.ndarray:
        first, second = (h[found.place].astype(np.float64) for h in pool.array(self.posteriors))
        value = ((first - second) ** 2).mean(axis=1)
        order = np.lexsort((np.arange(len(value)), -found.score, found.owner))
        place = np.empty(len(value), dtype=np.int64)
        place[order] = np.arange(len(value)) - found.starts[found.owner[order]]
        top = place < self.params.top
        n = len(found.starts) - 1
        total = np.bincount(found.owner[top], weights=value[top], minlength=n)
        return np.asarray(total / np.maximum(np.bincount(found.owner[top], minlength=n), 1))
