"""Stratified random: a strong control that spreads a random batch over the classes that the detector predicts."""

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import detections
from gsal_fo.acquisition.ordering import best_first, uniform
from gsal_fo.acquisition.quotas import predicted_class, round_robin


class StratifiedRandom(Strategy):
    """Quotas per predicted class, round robin, the rarest predicted class first; random inside a class.

    An image's class is that of its most confident detection; images without any come after all others.
    """

    name, title = "stratified_random", "Random, stratified by predicted class"
    needs = frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR})
    cost = "one detector pass"

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Turn by turn one image of each class."""
        own = predicted_class(pool, detections(pool))
        draw = uniform(pool.ids, context.seed, purpose=self.name)
        order = best_first(np.where(pool.candidates, draw, np.nan), pool.ids)
        return Ranked(round_robin(order, own), None, "turn", detail=own)

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The class whose quota it fills."""
        own = ranked.detail
        if own[row] < 0:
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        label = pool.posterior.classes[own[row]]
        count = int((own[pool.candidates] == own[row]).sum())
        return Reason(f'drawn at random among the {count} images that look most like "{label}"')
