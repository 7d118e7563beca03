"""Budgets and distinct picks for every strategy, nested batches or not."""

from dataclasses import replace

import numpy as np
import pytest

from gsal_fo.acquisition import registry
from gsal_fo.acquisition.base import Context, Statistic, StatisticMissing
from gsal_fo.acquisition.picking import Budget, Costs, Plan, build
from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.acquisition.strategies.gsal.strategy import Gsal
from gsal_fo.config import GsalParams
from tests.core.strategies.pools import GRAPH, pool_of, statistics

COUNTS = [3, 1, 2, 1, 2, 3, 1, 2, 1, 2]
NAMES = [n for n, kind in registry.registered().items() if not kind.hidden and not kind.argument]


def ranking(name: str, **changes) -> Ranking:
    pool = pool_of(statistics(COUNTS, **changes))
    everyone = np.ones(len(pool), dtype=bool)
    context, strategy = Context(labels={"crack": 3}, graph=GRAPH), registry.make(name)
    ranked = strategy.rank(pool, context)
    params = GsalParams(strategy=name)
    return Ranking(
        table=None,
        params=params,
        labels=context.labels,
        kept=everyone,
        free=everyone,
        pickable=everyone,
        strategy=strategy,
        pool=pool,
        context=context,
        ranked=ranked,
        gsal=Gsal().rank(pool, context),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_of_boxes_is_kept_and_another_image_would_break_it_or_the_pool_is_spent(name):
    found = ranking(name)
    boxes = np.array(COUNTS, dtype=float)
    rows = build(found, Plan(Budget(7, "boxes"), boxes))
    assert 0 < boxes[rows].sum() <= 7 and len(set(rows)) == len(rows)
    more = found.strategy.pick(found.declared, found.context, found.pickables, len(rows) + 1).rows
    assert boxes[more].sum() > 7


@pytest.mark.parametrize("name", NAMES)
def test_minutes_are_images_and_boxes_in_seconds(name):
    boxes = np.array(COUNTS, dtype=float)
    rows = build(ranking(name), Plan(Budget(2, "minutes"), boxes, Costs(per_image=10, per_box=20)))
    assert (10 * len(rows) + 20 * boxes[rows].sum()) / 60 <= 2 + 1e-9


def twins() -> np.ndarray:
    """Images 0 to 4, and each of them again, turned by three degrees."""
    angle = np.deg2rad(np.concatenate([np.arange(5) * 40.0, np.arange(5) * 40.0 + 3]))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_distinct_takes_one_of_each_pair_and_none_like_a_labeled_image(name):
    labeled = np.array([[1.0, 0.0]], dtype=np.float32)  # as images 0 and 5
    found = ranking(name, image_embeddings=twins(), labeled_embeddings=labeled)
    rows = build(found, Plan(Budget(4), distinct=0.99))
    assert sorted(r % 5 for r in rows) == [1, 2, 3, 4]
    assert len(build(found, Plan(Budget(10), distinct=0.99))) == 4, "what is left repeats what is there"


def test_distinct_needs_embeddings_and_says_so():
    found = ranking("random")
    bare = pool_of({Statistic.PROPOSALS: found.pool.proposals})
    with pytest.raises(StatisticMissing, match="distinct compares image embeddings"):
        build(replace(found, pool=bare), Plan(Budget(2), distinct=0.9))


@pytest.mark.parametrize("value", [0, 1.5, True, "0.9"])
def test_what_is_no_cosine_is_refused(value):
    with pytest.raises(ValueError, match=r"distinct must be a cosine in \(0, 1\]"):
        Plan(Budget(1), distinct=value)
