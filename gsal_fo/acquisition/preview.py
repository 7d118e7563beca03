"""A batch before it is tagged: what it costs, what is in it, and how it differs from the baselines. NumPy only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gsal_fo.acquisition import registry
from gsal_fo.acquisition.base import StatisticMissing
from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.run_folder.pool_columns import PoolTable

ALIKE = 0.98  # cosine similarity of image embeddings from which two images count as near-duplicates


def carriers(table: PoolTable, graph: ConceptGraph, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Node -> which of ``rows`` (N,) bool carry it: (N,) bool, true where a proposal is assigned to it or below it."""
    n = len(table.ids)
    has = np.zeros((n, len(graph.fine)), dtype=bool)
    known = (table.fine >= 0) & rows[table.proposal_image]
    has[table.proposal_image[known], table.fine[known]] = True
    out: dict[str, np.ndarray] = {name: has[:, i] for i, name in enumerate(graph.fine)}
    for node in (*graph.coarse, *graph.abstract):
        below = has[:, [i for i, name in enumerate(graph.fine) if node in graph.path(name)]]
        out[node] = np.asarray(below.any(axis=1))
    return out


def mix(
    table: PoolTable, graph: ConceptGraph, labels: Mapping[str, int], pool: np.ndarray, rows: Sequence[int]
) -> list[dict[str, Any]]:
    """What share of the boxes carries each node, in the labeled set, the pool and the picks.

    Boxes are the labels of the labeled set, and elsewhere the proposals that some concept was assigned to. The shares
    of the fine nodes sum to 1 in each set (0 where a set has no box), and so do those of the coarse ones.

    Args:
        table: the scored pool.
        graph: its concept graph.
        labels: labeled instances per fine node.
        pool: (N,) bool, the images still in the pool, the picks included.
        rows: the picks.

    Returns:
        One dict per node, in the graph's order by level: ``node``, ``level``, ``labeled``, ``pool``, ``picks`` in
        [0, 1], ``boxes`` (proposals of the picks that carry it).
    """
    picked = np.zeros(len(table.ids), dtype=bool)
    picked[list(rows)] = True
    counts = {
        "labeled": np.array([labels.get(name, 0) for name in graph.fine], dtype=np.float64),
        "pool": _per_fine(table, graph, pool),
        "picks": _per_fine(table, graph, picked),
    }
    out = []
    for node in (*graph.fine, *graph.coarse, *graph.abstract):
        below = [i for i, name in enumerate(graph.fine) if node in graph.path(name)]
        shares = {k: float(c[below].sum() / c.sum()) if c.sum() else 0.0 for k, c in counts.items()}
        out.append(
            {"node": node, "level": graph.level(node), **shares, "boxes": int(counts["picks"][below].sum())},
        )
    return out


RIVALS = ("entropy", "random")


def rivals(ranking: Ranking, count: int) -> dict[str, np.ndarray | None]:
    """What entropy and random (with the ranking's seed) would pick of the same images: rows (count,); None for one
    whose statistics are not there, or that sees nothing to go by."""
    out: dict[str, np.ndarray | None] = {}
    for name in RIVALS:
        strategy = registry.make(name)
        pool = ranking.pool.only(strategy.needed())
        try:
            ranked = strategy.rank(pool, ranking.context)
        except StatisticMissing:
            out[name] = None
            continue
        told = ranked.score is not None and np.unique(ranked.score[ranked.order]).size > 1
        order = ranked.order[ranking.pickable[ranked.order]]
        out[name] = order[:count] if told or len(order) < 2 else None
    return out


def near_duplicates(vectors: np.ndarray, alike: float) -> list[tuple[int, int, float]]:
    """Each image that nearly repeats an earlier one, with the earlier one most like it: (place, earlier, cosine).

    ``vectors`` (n, D) unit rows in the order picked; rows with NaN are compared with nothing.
    """
    return list(_repeats(np.asarray(vectors, dtype=np.float32), alike))


def _repeats(vectors: np.ndarray, alike: float) -> Iterator[tuple[int, int, float]]:
    for place in range(1, len(vectors)):
        cosines = vectors[:place] @ vectors[place]
        if np.isfinite(cosines).any() and cosines[best := int(np.nanargmax(cosines))] >= alike:
            yield place, best, float(cosines[best])


def _per_fine(table: PoolTable, graph: ConceptGraph, images: np.ndarray) -> np.ndarray:
    fine = table.fine[images[table.proposal_image]]
    return np.bincount(fine[fine >= 0], minlength=len(graph.fine)).astype(np.float64)
