"""Batches: budgets, quotas by hand, greedy against loops, baselines."""

import numpy as np
import pytest
import slow
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import graph, image, write_run

from gsal_fo.acquisition.legacy import entropy_scores, random_scores
from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.quotas import quotas
from gsal_fo.acquisition.ranking import check_budget, load_pool, rank
from gsal_fo.config import GsalParams
from gsal_fo.run_folder.pool_columns import PoolTable

LABELS = {"crack": 9, "dent": 4, "void": 1}


def table(seed: int, images: int = 14) -> PoolTable:
    """A pool in memory, ids in no order."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, images)
    owner = np.repeat(np.arange(images), counts)
    p = len(owner)
    return PoolTable(
        ids=np.array([f"id{i:02d}" for i in rng.permutation(images)], dtype=object),
        failed={},
        image_error=rng.random(images),
        image_variance=rng.random(images),
        entropy=rng.random(images).astype(np.float32),
        source=np.array(["detector"] * images, dtype=object),
        screened=np.ones(images, dtype=bool),
        proposal_image=owner,
        boxes=rng.random((p, 4)),
        proposal_score=rng.random(p),
        proposal_error=rng.random(p),
        proposal_variance=rng.random(p),
        fine=rng.integers(-2, 3, p).astype(np.int16),
        prob=rng.random(p),
        margin=rng.random(p),
        image_contrast=rng.random(images),
        contrast=rng.random(p),
    )


def test_static_takes_the_top_in_order():
    ranking = rank(table(0), graph(), LABELS)
    assert pick(ranking, 5) == ranking.order[:5].tolist()
    assert pick(ranking, 14) == ranking.order.tolist()


@pytest.mark.parametrize("budget", [0, -1, 15, 2.0, True, "3", None])
@pytest.mark.parametrize("strategy", ["gsal", "no_rarity", "random"])
def test_a_budget_outside_the_pool_is_refused_in_one_sentence(budget, strategy):
    ranking = rank(table(0), graph(), LABELS, GsalParams(strategy=strategy))
    with pytest.raises(ValueError, match=r"^budget must be a whole number in \[1, 14\].*; got") as caught:
        pick(ranking, budget)
    assert "\n" not in str(caught.value)


def test_unranked_images_are_not_in_the_pool_that_a_budget_is_checked_against(tmp_path):
    rows = [image(f"s{i}", [0, 1]) for i in range(4)]
    rows[2]["image_variance"] = float("nan")
    ranking = rank(load_pool(write_run(tmp_path, rows)), graph(), {})
    assert 2 not in pick(ranking, 3)
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        pick(ranking, 4)
    with pytest.raises(ValueError, match="no image of the pool can be ranked"):
        check_budget(1, 0)


def slow_greedy(pool: PoolTable, budget: int, params: GsalParams) -> list[int]:
    """Pick, count, score everything again in loops."""
    labels, picks, n = dict(LABELS), [], len(pool.ids)
    fine = graph().fine
    while len(picks) < budget:
        bonus = graph().bonus(graph().coverage(labels), params)
        images = []
        for i in range(n):
            own = [j for j, owner in enumerate(pool.proposal_image) if owner == i]
            b = {-1: 0.0, -2: 1.0 if params.unmatched == "rare" else 0.0} | dict(enumerate(bonus[f] for f in fine))
            proposals = [(pool.proposal_error[j], pool.proposal_variance[j], b[int(pool.fine[j])]) for j in own]
            images.append((pool.image_error[i], pool.image_variance[i], proposals))
        score = slow.scores(images)["score"]
        left = [i for i in range(n) if i not in picks]
        picks.append(min(left, key=lambda i: (-round(score[i], 9), pool.ids[i])))
        for index in {int(f) for f, owner in zip(pool.fine, pool.proposal_image, strict=True) if owner == picks[-1]}:
            if index >= 0:
                labels[fine[index]] += 1
    return picks


@given(st.integers(0, 2**32 - 1), st.sampled_from(["quantile", "graded"]), st.sampled_from(["rare", "none"]))
@settings(max_examples=25)
def test_greedy_is_pick_count_and_score_again(seed, rarity, unmatched):
    pool, params = table(seed), GsalParams(batch="greedy", rarity=rarity, unmatched=unmatched)
    assert pick(rank(pool, graph(), LABELS, params), 6) == slow_greedy(pool, 6, params)


def test_greedy_does_not_let_one_rare_concept_fill_the_batch():
    """Ten images of each kind, equally hard; voids (1 label) are rarer than dents (2): static takes voids alone."""
    pool = table(0, 30)
    n = len(pool.ids)
    even = {
        "image_error": np.ones(n),
        "image_variance": np.ones(n),
        "proposal_image": np.arange(n),
        "proposal_error": np.ones(n),
        "proposal_variance": np.ones(n),
        "fine": np.repeat([0, 1, 2], 10).astype(np.int16),
        "boxes": np.zeros((n, 4)),
    }
    columns = {name: getattr(pool, name)[:n] for name in ("proposal_score", "prob", "margin", "contrast")}
    images = {name: getattr(pool, name) for name in ("ids", "entropy", "source", "screened", "image_contrast")}
    even = PoolTable(failed={}, **images, **even, **columns)
    labels = {"crack": 9, "dent": 2, "void": 1}
    kinds = {
        batch: set(even.fine[pick(rank(even, graph(), labels, GsalParams(batch=batch, levels="F")), 6)].tolist())
        for batch in ("static", "greedy")
    }
    # By hand: the second void ties the counts at 2 and 2, tau = 2, both are rare; from then on the smaller count leads.
    assert kinds == {"static": {2}, "greedy": {1, 2}}


def test_quotas_by_hand():
    #         best first:  0  1  2  3  4  5  6
    concept = np.array([5, 5, 5, 2, -1, 2, -2])
    # turns: best of 5, best of 2; second of 5, second of 2; third of 5; then those without a concept
    assert quotas(np.arange(7), concept).tolist() == [0, 3, 1, 5, 2, 4, 6]
    assert quotas(np.array([6, 4]), concept).tolist() == [6, 4]
    assert quotas(np.array([], dtype=int), concept).tolist() == []


def test_no_rarity_spreads_evenly_over_assigned_concepts_by_difficulty():
    pool = table(3, 60)
    ranking = rank(pool, graph(), LABELS, GsalParams(strategy="no_rarity"))
    rows = pick(ranking, 9)
    concepts = pool.fine[ranking.scores.decisive]
    assert sorted(concepts[rows].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for c in range(3):  # of each concept the best
        best = [row for row in ranking.order.tolist() if concepts[row] == c][:3]
        assert {row for row in rows if concepts[row] == c} == set(best)
    assert pick(rank(pool, graph(), {}, GsalParams(strategy="no_rarity")), 9) == rows  # labels play no part


def permuted(pool: PoolTable, rows: np.ndarray) -> PoolTable:
    """The same pool with its images in another order."""
    positions = np.concatenate([np.flatnonzero(pool.proposal_image == row) for row in rows])
    images = ("ids", "image_error", "image_variance", "entropy", "source", "screened", "image_contrast")
    proposals = ("boxes", "proposal_score", "proposal_error", "proposal_variance", "fine", "prob", "margin", "contrast")
    return PoolTable(
        failed={},
        proposal_image=np.argsort(rows)[pool.proposal_image[positions]],
        **{name: getattr(pool, name)[rows] for name in images},
        **{name: getattr(pool, name)[positions] for name in proposals},
    )


ALL = [GsalParams(strategy=s) for s in ("gsal", "no_rarity", "random", "entropy")] + [GsalParams(batch="greedy")]


@given(st.integers(0, 2**32 - 1), st.sampled_from(ALL))
@settings(max_examples=40)
def test_the_order_of_the_manifest_changes_no_pick(seed, params):
    pool = table(seed)
    other = permuted(pool, np.random.default_rng(seed).permutation(len(pool.ids)))
    picked = [pool.ids[row] for row in pick(rank(pool, graph(), LABELS, params), 5)]
    assert [other.ids[row] for row in pick(rank(other, graph(), LABELS, params), 5)] == picked


def test_random_is_uniform_over_seeds_and_set_by_the_seed():
    pool = table(0)
    draws = [pick(rank(pool, graph(), LABELS, GsalParams(strategy="random", seed=s)), 4) for s in range(300)]
    assert draws[7] == pick(rank(pool, graph(), {}, GsalParams(strategy="random", seed=7)), 4)
    counts = np.bincount(np.ravel(draws), minlength=14)
    expected, sigma = 300 * 4 / 14, (300 * 4 / 14 * 10 / 14) ** 0.5
    assert (np.abs(counts - expected) < 4.5 * sigma).all()


def test_under_the_first_rules_random_drew_over_the_sorted_ids_of_what_could_be_ranked():
    scores = random_scores(["c", "a", "b"], np.array([0, 2]), seed=1)
    assert np.isnan(scores).tolist() == [False, True, False]
    first, second = np.random.default_rng(1).random(2)  # by id: b, then c
    assert scores[[2, 0]].tolist() == [first, second]


def test_under_the_first_rules_entropy_ranked_by_the_largest_entropy_and_needed_a_detector():
    pool = table(0)
    ranking = rank(pool, graph(), LABELS, GsalParams(strategy="entropy"), rules=2)
    assert ranking.order.tolist() == sorted(range(14), key=lambda i: -pool.entropy[i])
    with pytest.raises(ValueError, match="no detector ran"):
        entropy_scores(np.full(3, np.nan), np.arange(3))
