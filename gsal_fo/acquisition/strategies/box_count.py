"""Box count: shows whether a method merely picks crowded images."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import detections
from gsal_fo.acquisition.ordering import ranked_by_detections
from gsal_fo.settings import setting


@dataclass(frozen=True)
class BoxCountParams:
    """Settings of ``box_count``."""

    floor: float = setting(0.3, "lowest detection score of a box that counts", low=0, high=1)


class BoxCount(Strategy):
    """Number of detections with a score of at least ``floor``."""

    name, title = "box_count", "Number of boxes"
    needs = frozenset({Statistic.PROPOSALS})
    cost = "one detector pass"
    Params = BoxCountParams

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Most boxes first."""
        found = detections(pool, floor=self.params.floor)
        count = np.diff(found.starts).astype(np.float64)
        return ranked_by_detections(pool, count, found, "boxes", context.seed, reason="it has no detections")

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The count."""
        assert ranked.score is not None
        count = float(ranked.score[row])
        boxes = "1 box" if count == 1 else f"{count:.0f} boxes"
        text = f"the detector sees {boxes} with a score of at least {self.params.floor:g}"
        return Reason(text, (("boxes", count),), adds_up=True)
