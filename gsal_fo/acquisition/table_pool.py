"""A run folder's columns as the pool that strategies read."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gsal_fo.acquisition.base import (
    ConceptColumns,
    DifficultyColumns,
    Pool,
    Proposals,
    Statistic,
)
from gsal_fo.acquisition.stored import missing
from gsal_fo.run_folder.pool_columns import PoolTable


def pool_of(
    table: PoolTable,
    *,
    unlabeled: np.ndarray,
    candidates: np.ndarray,
    more: Callable[[Statistic], Any] | None = None,
) -> Pool:
    """The pool of a run: what the table holds, and by ``more`` what else its folder does.

    ``more`` raises StatisticMissing for what is not there; without it nothing else is.
    """
    made: dict[Statistic, Callable[[], Any]] = {
        Statistic.PROPOSALS: lambda: Proposals(
            starts=np.searchsorted(table.proposal_image, np.arange(len(table.ids) + 1)),
            boxes=table.boxes,
            scores=table.proposal_score,
            source=table.source,
        ),
        Statistic.DIFFICULTY: lambda: DifficultyColumns(
            image_error=table.image_error,
            image_variance=table.image_variance,
            image_contrast=table.image_contrast,
            error=table.proposal_error,
            variance=table.proposal_variance,
            contrast=table.contrast,
            estimated=~table.screened,
        ),
        Statistic.CONCEPTS: lambda: ConceptColumns(table.fine, table.prob, table.margin),
        Statistic.IMAGE_ENTROPY: lambda: table.entropy,
    }

    def source(statistic: Statistic) -> Any:
        if statistic in made:
            return made[statistic]()
        if more is not None:
            return more(statistic)
        raise missing(statistic)

    return Pool(table.ids, candidates, source, unlabeled=unlabeled)
