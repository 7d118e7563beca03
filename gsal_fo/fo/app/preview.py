"""A batch before it is tagged, from stored statistics alone, and the same batch tagged."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import fiftyone as fo
import numpy as np

from gsal_fo.acquisition import picking
from gsal_fo.acquisition import preview as pure
from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.config import GsalParams, from_dict
from gsal_fo.fo import rounds, runs
from gsal_fo.fo.app import live
from gsal_fo.fo.dataset import pool, slices
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
    ``chance``: shared picks that a random draw has on average; ``missing``: ids whose files are gone; ``sentences``:
    why each of the first picks has its rank.
    """

    key: str
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

    @property
    def batch(self) -> str:
        """A digest of the images, whatever their order."""
        return _digest(self.ids)


_tagging = Lock()


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
    root, now = pool.check_dataset(dataset), live.of(dataset, run_key)
    state, table = now.state, now.state.table
    boxes = rounds.boxes_of(state)

    def rows_of(ranking: Ranking) -> list[int]:
        return picking.build(ranking, picking.Plan(asked.budget, boxes, asked.costs, asked.distinct))

    ranking, rows, missing = rounds.choose(root, state, state.free, asked.params, rows_of)
    return Preview(
        key=now.key,
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


class Changed(ValueError):
    """The dataset is not the one any more that a preview was made of."""


def tag(dataset: Any, asked: Asked, *, run_key: str | None = None, batch: str | None) -> tuple[fo.DatasetView, str]:
    """Tag and record exactly the batch that a preview has shown, as the next round; asked twice, it is tagged once.

    Args:
        dataset: the dataset.
        asked: what the preview was made of.
        run_key: its scoring; None is the latest.
        batch: the preview's own.

    Returns:
        The batch, best first, and its tag.

    Raises:
        Changed: labels, rounds or images have changed since the preview, so the batch may be another one now.
        ValueError: as `select`.
    """
    root = pool.check_dataset(dataset)
    with _tagging:  # both clicks of a double click come here at the same time
        root.reload()
        name = _tagged_as(root, batch)
        if name is None:
            shown = preview(root, asked, run_key=run_key)
            if shown.batch != batch:
                raise Changed("labels, rounds or images have changed since the preview; this is the batch of now")
            rounds.select(
                root,
                len(shown.ids),
                exactly=shown.ids,
                distinct=asked.distinct,
                run_key=shown.key,
                params=asked.params,
            )
            name = runs.load(root, runs.select_keys(root)[-1]).config.tag
    return rounds.batch_view(root, name), name


def _tagged_as(dataset: fo.Dataset, batch: str | None) -> str | None:
    """The tag of the latest round where it is this batch."""
    for key in runs.select_keys(dataset)[-1:]:
        if _digest([p["id"] for p in runs.picks(dataset, key)]) == batch:
            return str(runs.load(dataset, key).config.tag)
    return None


def _digest(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def picks_view(dataset: fo.Dataset, ids: list[str]) -> fo.DatasetView:
    """The picks in their order."""
    return slices.flat(dataset).select(ids, ordered=True)


def _repeats(now: live.Live, rows: list[int], alike: float) -> list[tuple[int, int, float]] | None:
    vectors = cache.image_vectors(Path(now.record.run_dir), now.state.table, rows)
    return None if vectors is None else pure.near_duplicates(vectors, alike)
