"""Pools for the tests of strategies: made of plain arrays, with every statistic that a strategy may declare."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gsal_fo.acquisition.base import Pool, Posterior, Proposals, Statistic, StatisticMissing

CLASSES = ("crack", "dent", "void")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def posteriors(rng: np.random.Generator, count: int, classes: int = len(CLASSES)) -> np.ndarray:
    return rng.dirichlet(np.ones(classes + 1), count).astype(np.float32)


def statistics(counts: list[int], seed: int = 0, *, dim: int = 8, labeled: int = 4, **changes: Any) -> dict:
    """Every statistic of a pool whose images have ``counts`` detections each; ``changes`` replace some."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total, n = int(starts[-1]), len(counts)
    p = posteriors(rng, total)
    made: dict[Statistic, Any] = {
        Statistic.PROPOSALS: Proposals(
            starts=starts,
            boxes=rng.random((total, 4)).astype(np.float32) / 2,
            scores=p[:, 1:].max(axis=1) if total else np.empty(0, np.float32),
            source=np.where(np.array(counts) > 0, "detector", "whole") if counts else np.empty(0, str),
        ),
        Statistic.POSTERIOR: Posterior(p, CLASSES),
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
    for name in (Statistic.IMAGE_EMBEDDINGS, Statistic.FIELD):
        out[name] = made[name][order]
    for name in (Statistic.CROP_EMBEDDINGS, Statistic.BOX_FEATURES):
        out[name] = made[name][place]
    for name in (Statistic.MC_POSTERIOR, Statistic.TWO_POSTERIORS, Statistic.ADVERSARIAL_POSTERIORS):
        out[name] = made[name][:, place]
    return out
