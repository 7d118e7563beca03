"""From a ranking to a batch."""

import numpy as np

from gsal_fo.user_files import shown


def check_budget(budget: int, rankable: int) -> int:
    """The budget, if it is a whole number in [1, rankable]; raises ValueError otherwise."""
    if rankable == 0:
        raise ValueError(
            "no image of the pool can be ranked, so none can be picked; see the reasons of the unranked ones"
        )
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or not 1 <= budget <= rankable:
        raise ValueError(
            f"budget must be a whole number in [1, {rankable}], the images that can be ranked; got {shown(budget)}"
        )
    return int(budget)
