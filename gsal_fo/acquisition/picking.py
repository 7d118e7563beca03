"""From a ranking to a batch: budgets in images, boxes and minutes, and picks that repeat nothing."""

from dataclasses import dataclass, replace

import numpy as np

from gsal_fo.acquisition.base import Statistic, StatisticMissing
from gsal_fo.acquisition.features import covered_embeddings
from gsal_fo.acquisition.ranking import Ranking, check_budget
from gsal_fo.run_folder.pool_columns import PoolTable
from gsal_fo.settings import check_number

MOST_SECONDS, MOST_BUDGET = 1e6, 1e9
UNITS = ("images", "boxes", "minutes")
DRAWN = ("detector", "field")  # sources whose proposals are guesses of boxes; windows and whole images are not


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
            check_number(name, getattr(self, name), low=0, high=MOST_SECONDS)


@dataclass(frozen=True)
class Budget:
    """``amount`` of ``unit``; images are whole numbers."""

    amount: float
    unit: str = "images"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}; got {self.unit!r}")
        check_number("the budget", self.amount, low=0, high=MOST_BUDGET)
        if not self.amount:
            raise ValueError("the budget must be above 0; got 0")
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


@dataclass(frozen=True)
class Plan:
    """How a batch is asked for: ``budget``; what its images cost (``boxes`` (N,) expected, ``costs``), which budgets of
    boxes and minutes read; ``distinct``: cosine of image embeddings from which an image repeats an earlier pick or a
    labeled image and is skipped, None skips nothing."""

    budget: Budget
    boxes: np.ndarray | None = None
    costs: Costs = Costs()
    distinct: float | None = None

    def __post_init__(self) -> None:
        d = self.distinct
        if d is not None and (isinstance(d, bool) or not isinstance(d, int | float) or not 0 < d <= 1):
            raise ValueError(f"distinct must be a cosine in (0, 1]; got {d!r}")
        if self.budget.unit != "images" and self.boxes is None:
            raise ValueError(f"a budget of {self.budget.unit} needs the expected boxes of each image")

    def price(self, rows: np.ndarray) -> np.ndarray:
        """What each of ``rows`` costs, in the budget's unit."""
        if self.budget.unit == "images":
            return np.ones(len(rows))
        assert self.boxes is not None
        mine = self.boxes[rows]
        return mine if self.budget.unit == "boxes" else seconds(mine, self.costs) / 60


def pick(ranking: Ranking, budget: int, *, distinct: float | None = None) -> list[int]:
    """Rows of the next batch of so many images in the order picked, as the strategy builds it; ties go by id.

    Raises ValueError if the budget is not in [1, images that can be picked].
    """
    budget = check_budget(budget, len(ranking.choice))
    return build(ranking, Plan(Budget(budget), distinct=distinct))


def build(ranking: Ranking, plan: Plan) -> list[int]:
    """Rows of the batch in the order picked: as many as the budget pays for.

    A strategy whose batches are nested is asked for more until the budget is spent; of one that builds each batch as a
    whole, the largest batch that the budget pays for is searched.

    Raises:
        ValueError: nothing can be picked, more images are asked for than can be, or the first one already costs more
            than the budget; with ``distinct``, where no embeddings are stored (StatisticMissing).
    """
    most = len(ranking.choice)
    check_budget(int(plan.budget.amount) if plan.budget.unit == "images" else 1, most)
    filtered = Repeats(ranking, plan.distinct) if plan.distinct is not None else None
    if not ranking.strategy.nested:
        return _whole(ranking, plan, filtered)
    count = min(most, int(plan.budget.amount) if plan.budget.unit == "images" else 64)
    while True:
        rows = _rows(ranking, count)
        rows = filtered.left(rows) if filtered else rows
        paid = np.cumsum(plan.price(rows)) <= plan.budget.amount + 1e-9
        if not paid.all() or count == most or (plan.budget.unit == "images" and paid.sum() >= plan.budget.amount):
            break
        count = min(most, 2 * count)  # the first n picks are the same whatever the budget
    return _afforded(rows, paid, plan)


def _rows(ranking: Ranking, count: int) -> np.ndarray:
    return ranking.strategy.pick(ranking.declared, ranking.context, ranking.pickables, count).rows


def _afforded(rows: np.ndarray, paid: np.ndarray, plan: Plan) -> list[int]:
    if not paid[0]:
        raise ValueError(
            f"the first image alone costs {plan.price(rows[:1])[0]:.1f} {plan.budget.unit}; raise the budget of "
            f"{plan.budget.amount:g}"
        )
    found: list[int] = rows[: int(paid.sum())].tolist()
    return found


def _whole(ranking: Ranking, plan: Plan, filtered: "Repeats | None") -> list[int]:
    """The largest batch that the budget pays for, of a strategy that builds each as a whole."""

    def batch(count: int) -> np.ndarray:
        rows = _rows(ranking, count)
        return filtered.refilled(ranking, rows, count) if filtered else rows

    most = len(ranking.choice)
    if plan.budget.unit == "images":
        return batch(int(plan.budget.amount)).tolist()
    low, high, best = 1, most, batch(1)
    if plan.price(best).sum() > plan.budget.amount + 1e-9:
        return _afforded(best, np.array([False]), plan)
    while low < high:
        middle = (low + high + 1) // 2
        rows = batch(middle)
        if len(rows) == middle and plan.price(rows).sum() <= plan.budget.amount + 1e-9:
            low, best = middle, rows
        else:
            high = middle - 1
    return best.tolist()


class Repeats:
    """Skips images that nearly repeat an earlier pick or what is labeled."""

    def __init__(self, ranking: Ranking, alike: float) -> None:
        pool = ranking.pool
        try:
            self.vectors = _unit(pool.array(Statistic.IMAGE_EMBEDDINGS))
            self.known = _unit(covered_embeddings(pool))
        except StatisticMissing as error:
            raise StatisticMissing(f"distinct compares image embeddings, and {error}") from error
        self.alike = alike

    def left(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` in their order without the repeats; an image without an embedding repeats nothing."""
        kept: list[int] = []
        for row in rows.tolist():
            v = self.vectors[row]
            seen = self.vectors[kept] if kept else np.empty((0, len(v)), np.float32)
            near = max(_largest(seen @ v), _largest(self.known @ v)) if np.isfinite(v).all() else -1.0
            if near < self.alike:
                kept.append(row)
        return np.array(kept, dtype=np.int64)

    def refilled(self, ranking: Ranking, rows: np.ndarray, count: int) -> np.ndarray:
        """A whole batch without its repeats, filled up from what is left until nothing more is distinct."""
        tried = set(rows.tolist())
        kept = self.left(rows)
        while len(kept) < count:
            rest = ranking.choice[~np.isin(ranking.choice, list(tried))]
            if not len(rest):
                break
            asked = replace(ranking.ranked, order=rest)
            more = ranking.strategy.pick(
                ranking.declared, ranking.context, asked, min(count - len(kept), len(rest))
            ).rows
            tried |= set(more.tolist())
            kept = self.left(np.concatenate([kept, more]))
        return kept


def _largest(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.max()) if len(values) else -1.0


def _unit(rows: np.ndarray) -> np.ndarray:
    x = np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(x, axis=1, keepdims=True) if len(x) else np.ones((0, 1), np.float32)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0) if len(x) else x
