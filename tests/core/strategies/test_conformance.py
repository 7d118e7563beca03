"""What every registered strategy promises (STRATEGIES.md section 1)."""

import numpy as np
import pytest

from gsal_fo.acquisition import registry
from gsal_fo.acquisition.base import Context, Pool, Statistic, UndeclaredStatistic
from tests.core.strategies.pools import CLASSES, GRAPH, pool_of, reordered, statistics

COUNTS = [3, 0, 1, 5, 2, 0, 4, 1, 2, 3, 1, 0]
LABELS = {"crack": 5, "dent": 1, "void": 0}
NAMES = [name for name, kind in registry.registered().items() if not kind.hidden]


def make(name: str):
    return registry.make(f"{name}:quality" if name == "field" else name)


def context(seed: int = 0) -> Context:
    return Context(labels=LABELS, graph=GRAPH, seed=seed)


def picks(name: str, pool: Pool, budget: int, seed: int = 0) -> list[str]:
    strategy = make(name)
    mine = pool.only(strategy.needed())
    ranked = strategy.rank(mine, context(seed))
    return [str(i) for i in pool.ids[strategy.pick(mine, context(seed), ranked, budget).rows]]


@pytest.mark.parametrize("name", NAMES)
class TestEveryStrategy:
    def test_describes_itself(self, name):
        kind = registry.registered()[name]
        assert kind.title and kind.cost and kind.__doc__

    def test_the_same_seed_gives_the_same_picks(self, name):
        made = statistics(COUNTS)
        assert picks(name, pool_of(made), 5, seed=3) == picks(name, pool_of(made), 5, seed=3)

    def test_the_order_of_the_rows_changes_nothing(self, name):
        made = statistics(COUNTS)
        ids = [f"img-{i:02d}" for i in range(len(COUNTS))]
        wanted = picks(name, pool_of(made, ids=ids), 6)
        order = np.random.default_rng(1).permutation(len(COUNTS))
        mixed = pool_of(reordered(made, order), ids=[ids[i] for i in order])
        assert picks(name, mixed, 6) == wanted

    def test_only_declared_statistics_are_read(self, name):
        strategy, pool = make(name), pool_of(statistics(COUNTS))
        mine = pool.only(strategy.needed())
        ranked = strategy.rank(mine, context())
        strategy.pick(mine, context(), ranked, 3)
        for row in ranked.order.tolist():
            strategy.explain(mine, context(), ranked, row)
        with pytest.raises(UndeclaredStatistic):
            mine.read(Statistic.TRUTH)

    @pytest.mark.parametrize("budget", [1, len(COUNTS) - 2])
    def test_a_batch_has_each_candidate_at_most_once_and_no_other_row(self, name, budget):
        candidates = np.ones(len(COUNTS), dtype=bool)
        candidates[[2, 3]] = False  # labeled, or in a round
        got = picks(name, pool_of(statistics(COUNTS), candidates=candidates), budget)
        assert len(set(got)) == len(got) == budget
        assert not {"img-02", "img-03"} & set(got)

    def test_every_ranked_row_has_a_reason_and_terms_that_add_up(self, name):
        strategy, pool = make(name), pool_of(statistics(COUNTS))
        ranked = strategy.rank(pool, context())
        assert sorted(ranked.order.tolist()) == list(range(len(COUNTS)))
        for row in ranked.order.tolist():
            reason = strategy.explain(pool, context(), ranked, row)
            assert reason.sentence and "\n" not in reason.sentence
            if reason.adds_up and reason.terms:
                assert sum(v for _, v in reason.terms) == pytest.approx(float(ranked.score[row]), rel=1e-6, abs=1e-9)

    def test_one_image(self, name):
        assert picks(name, pool_of(statistics([2])), 1) == ["img-00"]

    def test_no_detection_anywhere(self, name):
        got = picks(name, pool_of(statistics([0, 0, 0, 0])), 4)
        assert sorted(got) == ["img-00", "img-01", "img-02", "img-03"]

    def test_nothing_labeled(self, name):
        got = picks(name, pool_of(statistics(COUNTS, labeled=0)), 3)
        assert len(set(got)) == 3

    def test_copies_of_one_image_are_told_apart_by_id(self, name):
        made = statistics([2, 2, 2, 2])
        twins = reordered(made, np.array([0, 0, 0, 0]))
        got = picks(name, pool_of(twins), 4)
        assert sorted(got) == ["img-00", "img-01", "img-02", "img-03"]
        draws = ("stratified_random", "uniform_by_label", "noise_difficulty")
        if registry.registered()[name].needs and name not in draws:
            assert got[0] == "img-00"

    def test_a_broken_row_has_no_rank_but_a_reason_or_is_told_apart(self, name):
        strategy = make(name)
        made = statistics(COUNTS)
        made[Statistic.IMAGE_EMBEDDINGS][4] = np.nan
        made[Statistic.FIELD][4] = np.nan
        for key in (Statistic.MC_POSTERIOR, Statistic.TWO_POSTERIORS, Statistic.ADVERSARIAL_POSTERIORS):
            made[key][:, 10:12] = np.nan  # the two detections of row 4
        made[Statistic.POSTERIOR].values[10:12] = np.nan
        made[Statistic.DIFFICULTY].image_error[4] = np.nan
        ranked = strategy.rank(pool_of(made), context())
        for row, why in ranked.unranked.items():
            assert row not in ranked.order.tolist() and why
        got = strategy.pick(pool_of(made), context(), ranked, len(ranked.order)).rows
        assert sorted(got.tolist()) == sorted(ranked.order.tolist())
        assert set(ranked.order.tolist()) | set(ranked.unranked) == set(range(len(COUNTS)))

    def test_what_is_hidden_of_the_pool_changes_nothing(self, name):
        made = statistics(COUNTS)
        rng = np.random.default_rng(7)
        truth = [rng.choice(CLASSES, c).tolist() for c in COUNTS]
        one = picks(name, pool_of(made | {Statistic.TRUTH: truth}), 5)
        rng.shuffle(truth)
        assert picks(name, pool_of(made | {Statistic.TRUTH: truth}), 5) == one


def test_a_name_is_found_and_a_near_miss_is_named():
    with pytest.raises(ValueError, match="did you mean entropy"):
        registry.make("entrpy")


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("entropy", {"aggregate": "median"}, "aggregate must be one of sum, mean, max"),
        ("entropy", {"agregate": "sum"}, "has no setting"),
        ("box_count", {"floor": 2}, r"floor must be a number in \[0, 1\]"),
        ("box_count", {"floor": float("nan")}, r"floor must be a number in \[0, 1\]"),
        ("ppal", {"rounds": 1.5}, "rounds must be a whole number of at least 1"),
        ("field", {}, "needs a name behind a colon"),
        ("random:3", {}, "takes nothing behind a colon"),
    ],
)
def test_a_setting_out_of_range_is_one_sentence(name, settings, says):
    with pytest.raises(ValueError, match=says):
        registry.make(name, settings)
