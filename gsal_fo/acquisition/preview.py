"""A batch before it is tagged: what it costs, what is in it, and how it differs from the baselines. NumPy only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gsal_fo.acquisition import registry
from gsal_fo.acquisition.base import StatisticMissing
from gsal_fo.acquisition.ranking import Ranking, pick
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.run_folder.pool_columns import PoolTable

UNITS = ("images", "boxes", "minutes")
DRAWN = ("detector", "field")  # sources whose proposals are guesses of boxes; windows and whole images are not
ALIKE = 0.98  # cosine similarity of image embeddings from which two images count as near-duplicates


@dataclass(frozen=True)
class Costs:
    """Seconds of a labeler per image opened and per box drawn.

    The defaults are placeholders to be replaced by one's own times; 7 s per box is what extreme clicking takes
    (Papadopoulos et al. 2017, arXiv:1708.02750), and classic box drawing takes several times that.
    """

    per_image: float = 8.0
    per_box: float = 7.0

    def __post_init__(self) -> None:
        for name in ("per_image", "per_box"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a number of seconds, at least 0; got {value!r}")


@dataclass(frozen=True)
class Budget:
    """``amount`` of ``unit``; images are whole numbers."""

    amount: float
    unit: str = "images"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}; got {self.unit!r}")
        if isinstance(self.amount, bool) or not isinstance(self.amount, int | float) or not self.amount > 0:
            raise ValueError(f"the budget must be a number above 0; got {self.amount!r}")
        if self.unit == "images" and self.amount != int(self.amount):
            raise ValueError(f"a budget of images must be a whole number; got {self.amount:g}")


def expected_boxes(table: PoolTable, *, floor: float, usual: float) -> np.ndarray:
    """Boxes that a labeler will probably draw (N,) float64.

    Proposals of at least ``floor`` detection score, where a detector or a field gave them; ``usual`` (boxes of a
    labeled image so far) for images that windows stand in for, and for those in which the detector found nothing.
    """
    sure = table.proposal_image[table.proposal_score >= floor]
    counts = np.bincount(sure, minlength=len(table.ids)).astype(np.float64)
    return np.where(np.isin(table.source, DRAWN), counts, usual)


def seconds(boxes: np.ndarray, costs: Costs) -> np.ndarray:
    """Labeling time of each image, from its expected boxes."""
    return costs.per_image + costs.per_box * np.asarray(boxes, dtype=np.float64)


def choose(ranking: Ranking, budget: Budget, boxes: np.ndarray, costs: Costs) -> list[int]:
    """Rows of the batch in the order picked: the longest beginning of that order which the budget pays for.

    Args:
        ranking: the ranked pool.
        budget: images, boxes or minutes.
        boxes: expected boxes of each image (N,).
        costs: seconds per image and box.

    Raises:
        ValueError: nothing can be ranked, more images are asked for than there are, or the first one already costs
            more than the budget.
    """
    if budget.unit == "images":
        return pick(ranking, int(budget.amount))
    price = boxes if budget.unit == "boxes" else seconds(boxes, costs) / 60
    pool = len(ranking.choice)
    count = min(pool, 64) or 1  # of an empty pool, ``pick`` says so itself
    while True:
        rows = pick(ranking, count)
        paid = np.cumsum(price[rows]) <= budget.amount + 1e-9
        if not paid.all() or count == pool:
            break
        count = min(pool, 2 * count)  # the first n picks are the same whatever the budget
    if not paid[0]:
        raise ValueError(
            f"the first image alone costs {price[rows[0]]:.1f} {budget.unit}; raise the budget of {budget.amount:g}"
        )
    return rows[: int(paid.sum())]


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
