"""Pools for the tests of strategies: made of plain arrays, with every statistic that a strategy may declare."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gsal_fo.acquisition.base import (
    ConceptColumns,
    DifficultyColumns,
    Pool,
    Posterior,
    Proposals,
    Statistic,
    StatisticMissing,
)
from gsal_fo.concepts import ConceptGraph

CLASSES = ("crack", "dent", "void")
GRAPH = ConceptGraph.from_dict(
    {
        "name": "three",
        "concepts": {
            "crack": {"coarse": "surface", "abstract": ["dark", "linear"]},
            "dent": {"coarse": "surface", "abstract": ["round"]},
            "void": {"coarse": "inside", "abstract": ["dark", "round"]},
        },
    },
    source="three.yaml",
)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def posteriors(rng: np.random.Generator, count: int, classes: int = len(CLASSES)) -> np.ndarray:
    return rng.dirichlet(np.ones(classes + 1), count).astype(np.float32)


def statistics(counts: list[int], seed: int = 0, *, dim: int = 8, labeled: int = 4, **changes: Any) -> dict:
    """Every statistic of a pool whose images have ``counts`` detections each; ``changes`` replace some.

    As in a real run, an image without detections has one proposal that stands in for it.
    """
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(np.maximum(counts, 1))]).astype(np.int64)
    total, n = int(starts[-1]), len(counts)
    stand_in = np.repeat(np.array(counts) == 0, np.maximum(counts, 1))
    p = posteriors(rng, total)
    scores = np.where(stand_in, 0, p[:, 1:].max(axis=1)).astype(np.float32)
    p[stand_in] = np.nan
    made: dict[Statistic, Any] = {
        Statistic.PROPOSALS: Proposals(
            starts=starts,
            boxes=rng.random((total, 4)).astype(np.float32) / 2,
            scores=scores,
            source=np.where(np.array(counts) > 0, "detector", "whole"),
        ),
        Statistic.POSTERIOR: Posterior(p, CLASSES),
        Statistic.DIFFICULTY: DifficultyColumns(
            **{name: rng.random(n) for name in ("image_error", "image_variance", "image_contrast")},
            **{name: rng.random(total) for name in ("error", "variance", "contrast")},
            estimated=np.zeros(n, dtype=bool),
        ),
        Statistic.CONCEPTS: ConceptColumns(
            rng.integers(-2, len(CLASSES), total).astype(np.int16), rng.random(total), rng.random(total)
        ),
        Statistic.IMAGE_EMBEDDINGS: unit(rng.normal(size=(n, dim))).astype(np.float32),
        Statistic.LABELED_EMBEDDINGS: unit(rng.normal(size=(labeled, dim))).astype(np.float32),
        Statistic.CROP_EMBEDDINGS: unit(rng.normal(size=(total, dim))).astype(np.float16),
        Statistic.BOX_FEATURES: unit(rng.normal(size=(total, dim))).astype(np.float16),
        Statistic.MC_POSTERIOR: np.stack([posteriors(rng, total) for _ in range(4)]),
        Statistic.TWO_POSTERIORS: np.stack([posteriors(rng, total) for _ in range(2)]),
        Statistic.ADVERSARIAL_POSTERIORS: np.stack([posteriors(rng, total) for _ in range(2)]),
        Statistic.CLASS_DIFFICULTY: rng.random(len(CLASSES)),
        Statistic.FIELD: rng.random(n),
    }
    return made | {Statistic(k): v for k, v in changes.items()}


def pool_of(
    made: Mapping[Statistic, Any], *, candidates: np.ndarray | None = None, ids: list[str] | None = None
) -> Pool:
    """A pool over such statistics; ids are ``img-00``, ``img-01``, ... where none are given."""
    n = len(made[Statistic.PROPOSALS].starts) - 1
    names = np.array(ids if ids is not None else [f"img-{i:02d}" for i in range(n)])
    kept = np.ones(n, dtype=bool) if candidates is None else candidates

    def source(statistic: Statistic) -> Any:
        if statistic not in made:
            raise StatisticMissing(f"no {statistic} here")
        return made[statistic]

    return Pool(names, kept, source)


def reordered(made: Mapping[Statistic, Any], order: np.ndarray) -> dict:
    """The same statistics with the images in another order."""
    starts = made[Statistic.PROPOSALS].starts
    place = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order]).astype(np.int64)
    found = made[Statistic.PROPOSALS]
    out = dict(made)
    out[Statistic.PROPOSALS] = Proposals(
        starts=np.concatenate([[0], np.cumsum(np.diff(starts)[order])]).astype(np.int64),
        boxes=found.boxes[place],
        scores=found.scores[place],
        source=found.source[order],
    )
    out[Statistic.POSTERIOR] = Posterior(made[Statistic.POSTERIOR].values[place], CLASSES)
    difficulty, concepts = made[Statistic.DIFFICULTY], made[Statistic.CONCEPTS]
    images = ("image_error", "image_variance", "image_contrast", "estimated")
    out[Statistic.DIFFICULTY] = DifficultyColumns(
        **{name: getattr(difficulty, name)[order] for name in images},
        **{name: getattr(difficulty, name)[place] for name in ("error", "variance", "contrast")},
    )
    out[Statistic.CONCEPTS] = ConceptColumns(*(getattr(concepts, n)[place] for n in ("fine", "prob", "margin")))
    for name in (Statistic.IMAGE_EMBEDDINGS, Statistic.FIELD):
        out[name] = made[name][order]
    for name in (Statistic.CROP_EMBEDDINGS, Statistic.BOX_FEATURES):
        out[name] = made[name][place]
    for name in (Statistic.MC_POSTERIOR, Statistic.TWO_POSTERIORS, Statistic.ADVERSARIAL_POSTERIORS):
        out[name] = made[name][:, place]
    return out
