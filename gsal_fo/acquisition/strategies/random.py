"""Random: the control of every comparison."""

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Strategy
from gsal_fo.acquisition.ordering import ranked_by, uniform


class Random(Strategy):
    """A uniform draw in [0, 1) per image, set by the seed and the image's id alone."""

    name, title = "random", "Random"

    def as_of(self, rules: int) -> Strategy:
        """Before rule 3 one generator drew over the sorted ids."""
        from gsal_fo.acquisition.legacy import RandomOfOld

        return self if rules >= 3 else RandomOfOld()

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Largest draw first."""
        score = np.where(pool.candidates, 0.0, np.nan)
        score[pool.candidates] = uniform(pool.ids[pool.candidates], context.seed, purpose=self.name)
        return ranked_by(pool, score, "draw in [0, 1)", reason="it was not drawn")

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The draw."""
        assert ranked.score is not None
        value = float(ranked.score[row])
        return Reason(f"drawn at random with seed {context.seed}: {value:.4f}", (("the draw", value),), adds_up=True)
