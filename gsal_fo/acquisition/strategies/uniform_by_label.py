"""Uniform by label: the same number of images per predicted class, the least sure of each class first."""

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import binary_entropy, detections
from gsal_fo.acquisition.ordering import best_first, uniform
from gsal_fo.acquisition.quotas import predicted_class, round_robin


class UniformByLabel(Strategy):
    """B / C images per predicted class, best confidence entropy inside; unfilled quotas go round.

    An image's confidence entropy is the largest h(s) of its detections. Images without any come after all others, in
    seeded random order.
    """

    name, title = "uniform_by_label", "Uniform over predicted classes"
    paper = "the control of GSAL, arXiv:2604.22990"
    needs = frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR})
    cost = "one detector pass"

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Turn by turn the least sure image of each class."""
        found = detections(pool)
        entropy = found.image(binary_entropy(found.score), "max")
        # Draws are below 0, so that images without detections follow in random order.
        score = np.where(found.has, entropy, uniform(pool.ids, context.seed, purpose="empty") - 2)
        order = best_first(np.where(pool.candidates, score, np.nan), pool.ids)
        own = predicted_class(pool, found)
        return Ranked(round_robin(order, own), None, "turn", detail=(own, entropy))

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """Its class and entropy."""
        own, entropy = ranked.detail
        if own[row] < 0:
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        value = float(entropy[row])
        label = pool.posterior.classes[own[row]]
        text = f'fills the quota of "{label}": its confidence entropy is {value:.2f} nats'
        return Reason(text, (("confidence entropy", value),))
