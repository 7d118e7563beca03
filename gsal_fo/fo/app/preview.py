"""A batch before it is tagged, from stored statistics alone, and the same batch tagged."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from gsal_fo.acquisition import picking
from gsal_fo.acquisition import preview as pure
from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.config import GsalParams, from_dict
from gsal_fo.fo import rounds
from gsal_fo.fo.app import live
from gsal_fo.fo.dataset import pool
from gsal_fo.run_folder import cache

GREEDY_WORK = 20_000_000  # picks times proposals from which a greedy batch takes more than about half a second


@dataclass(frozen=True)
class Asked:
    """What a preview is made of: constants, budget, labeling costs, and the cosine of near-duplicates."""

    params: GsalParams
    budget: picking.Budget
    costs: picking.Costs = field(default_factory=picking.Costs)
    distinct: float | None = None
    alike: float = pure.ALIKE


@dataclass(frozen=True)
class Preview:
    """A batch that nobody has tagged.

    ``ids`` in the order picked; ``pool``: images that could have been picked; ``boxes`` and ``minutes`` expected of the
    whole batch; ``mix`` rows as in ``gsal_fo.preview.mix``; ``repeats`` (place, earlier place, cosine) of the
    near-duplicates, None where the run has no embeddings; ``overlap`` rival -> shared picks, None where it cannot rank;
    ``chance``: shared picks that a random draw has on average; ``missing``: ids whose files are gone; ``mark`` of the
    dataset that it was made from; ``sentences``: why each of the first picks has its rank.
    """

    key: str
    mark: str
    ids: list[str]
    pool: int
    boxes: float
    minutes: float
    mix: list[dict[str, Any]]
    repeats: list[tuple[int, int, float]] | None
    overlap: dict[str, int | None]
    chance: float
    missing: list[str]
    sentences: list[str]


def params_of(dataset: Any, run_key: str | None = None) -> GsalParams:
    """The constants that a scoring was ranked with: a preview's starting point."""
    params: GsalParams = from_dict(GsalParams, live.of(dataset, run_key).record.params)
    return params


def heavy(dataset: Any, asked: Asked, run_key: str | None = None) -> bool:
    """Whether this preview takes seconds: a greedy batch ranks the whole pool again after each pick."""
    size = asked.budget.amount if asked.budget.unit == "images" else 64
    return asked.params.batch == "greedy" and size * len(live.of(dataset, run_key).state.table.fine) > GREEDY_WORK


def preview(dataset: Any, asked: Asked, *, run_key: str | None = None) -> Preview:
    """The batch that ``select`` would pick now with these constants, and what is in it. Nothing is written.

    Raises:
        ValueError: no scoring, its run folder is gone, or the budget does not fit what is left in the pool.
    """
    root, now = pool.check_samples(dataset), live.of(dataset, run_key)
    state, table = now.state, now.state.table
    boxes = rounds.boxes_of(state)

    def rows_of(ranking: Ranking) -> list[int]:
        return picking.build(ranking, picking.Plan(asked.budget, boxes, asked.costs, asked.distinct))

    ranking, rows, missing = rounds.choose(root, state, state.free, asked.params, rows_of)
    return Preview(
        key=now.key,
        mark=now.mark,
        ids=[str(table.ids[r]) for r in rows],
        pool=len(ranking.choice),
        boxes=float(boxes[rows].sum()),
        minutes=float(picking.seconds(boxes[rows], asked.costs).sum() / 60),
        mix=pure.mix(table, state.graph, state.counts, state.free, rows),
        repeats=_repeats(now, rows, asked.alike),
        overlap={
            name: None if other is None else len(np.intersect1d(other, rows))
            for name, other in pure.rivals(ranking, len(rows)).items()
        },
        chance=len(rows) ** 2 / max(1, len(ranking.choice)),
        missing=missing,
        sentences=[ranking.sentence(r) for r in rows[:10]],
    )


def tag(dataset: Any, shown: Preview, asked: Asked) -> fo.DatasetView:
    """Tag and record exactly the batch that a preview has shown, as the next round.

    Raises:
        ValueError: the dataset has changed since the preview, so the batch may be another one now.
    """
    if live.of(dataset, shown.key).mark != shown.mark:
        raise ValueError("labels, rounds or images have changed since this preview; look at it again, then tag")
    return rounds.select(dataset, len(shown.ids), distinct=asked.distinct, run_key=shown.key, params=asked.params)


def picks_view(dataset: fo.Dataset, ids: list[str]) -> fo.DatasetView:
    """The picks in their order."""
    return dataset.select(ids, ordered=True)


def _repeats(now: live.Live, rows: list[int], alike: float) -> list[tuple[int, int, float]] | None:
    vectors = cache.image_vectors(Path(now.record.run_dir), now.state.table)
    return None if vectors is None else pure.near_duplicates(np.asarray(vectors[rows]), alike)
