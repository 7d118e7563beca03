"""Why the best image that was not picked was not: the comparison with the last pick, under every strategy."""

from collections.abc import Sequence

import numpy as np

from gsal_fo.acquisition.ranking import Ranking, check_budget


def best_left(ranking: Ranking, rows: Sequence[int]) -> int | None:
    """The best row that could be picked and is not among the picks; None where all of them were picked."""
    left = ranking.choice[~np.isin(ranking.choice, rows)]
    return int(left[0]) if len(left) else None


def reason(ranking: Ranking, rows: Sequence[int]) -> str:
    """One sentence about ``best_left`` and the last of ``rows``, the picks in order.

    Raises ValueError where nothing was picked.
    """
    check_budget(len(rows), len(ranking.choice))
    row = best_left(ranking, rows)
    if row is None:
        return f"all {len(rows)} images that could be picked were picked."
    why = ranking.strategy.passed_over(ranking.declared, ranking.context, ranking.ranked, list(rows), row)
    return f"{ranking.table.ids[row]}, rank {ranking.rank[row]}, was not picked: {why}."
