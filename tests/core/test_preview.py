"""What a batch costs and holds, against plain loops and hand arithmetic."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsal_fo.acquisition.picking import Budget, Costs, Plan, build, expected_boxes, pick, seconds
from gsal_fo.acquisition.preview import carriers, mix, near_duplicates, rivals
from gsal_fo.acquisition.ranking import rank
from gsal_fo.config import GsalParams
from gsal_fo.pages import plots
from gsal_fo.run_folder.pool_columns import load_pool
from tests.core.runs import graph, image, write_run

LABELS = {"crack": 5, "dent": 9, "void": 2}


def pool(folder, images=12, **params):
    rng = np.random.default_rng(1)
    rows = [image(f"s{i}", rng.integers(-2, 3, 1 + i % 4).tolist(), rng=rng) for i in range(images)]
    return rank(load_pool(write_run(folder, rows)), graph(), LABELS, GsalParams(**params))


@pytest.mark.parametrize("batch", ["static", "greedy"])
@pytest.mark.parametrize(("unit", "amount"), [("boxes", 7), ("boxes", 1), ("minutes", 1.25), ("minutes", 1000)])
def test_a_budget_buys_the_longest_beginning_that_it_pays_for(tmp_path, unit, amount, batch):
    ranking, costs = pool(tmp_path, batch=batch), Costs(per_image=10, per_box=5)
    boxes = np.array([1.0, 3.0, 0.0, 2.0] * 3)
    price = boxes if unit == "boxes" else (10 + 5 * boxes) / 60
    order = pick(ranking, len(ranking.order))
    paid = [total for total in accumulate(price[r] for r in order) if total <= amount + 1e-9]
    if not paid:
        with pytest.raises(ValueError, match="the first image alone costs"):
            build(ranking, Plan(Budget(amount, unit), boxes, costs))
    else:
        assert build(ranking, Plan(Budget(amount, unit), boxes, costs)) == order[: len(paid)]


def test_seconds_are_of_the_image_and_of_its_boxes():
    assert seconds(np.array([0, 3]), Costs(8, 7)).tolist() == [8, 29]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Budget(0), "above 0"),
        (lambda: Budget(1.5), "whole number"),
        (lambda: Budget(3, "euros"), "unit must be one of"),
        (lambda: Budget(float("nan"), "boxes"), "the budget must be a number in"),
        (lambda: Budget(float("inf")), "the budget must be a number in"),
        (lambda: Budget(10**5000, "minutes"), "the budget must be a number in"),
        (lambda: Costs(per_box=1e308), "per_box must be a number in"),
        (lambda: Costs(-1), "per_image must be a number in"),
        (lambda: Costs(per_box=float("inf")), "per_box must be a number in"),
    ],
)
def test_what_is_no_budget_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_boxes_are_counted_where_a_detector_spoke_and_usual_elsewhere(tmp_path):
    table = pool(tmp_path).table
    sources = np.array(["detector", "grid", "whole", "field"] * 3, dtype=object)
    score = np.linspace(0, 1, len(table.fine), dtype=np.float32)
    table = replace(table, source=sources, proposal_score=score)
    expected = [
        sum(score[table.proposal_image == r] >= 0.3) if sources[r] in ("detector", "field") else 2.5 for r in range(12)
    ]
    assert expected_boxes(table, floor=0.3, usual=2.5).tolist() == expected


def test_the_mix_is_that_of_a_plain_count(tmp_path):
    ranking = pool(tmp_path)
    table, concepts, rows = ranking.table, ranking.graph, [3, 7, 8]
    free = np.arange(12) != 0
    found = {r["node"]: r for r in mix(table, concepts, LABELS, free, rows)}

    def share(images, node):
        fine = [
            concepts.fine[f] for f, i in zip(table.fine, table.proposal_image, strict=True) if i in images and f >= 0
        ]
        return sum(node in concepts.path(f) for f in fine) / len(fine)

    for node, row in found.items():
        assert row["pool"] == pytest.approx(share(range(1, 12), node))
        assert row["picks"] == pytest.approx(share(rows, node))
        assert row["labeled"] == pytest.approx(sum(n for f, n in LABELS.items() if node in concepts.path(f)) / 16)
    fine = [r for r in found.values() if r["level"] == "fine"]
    assert sum(r["picks"] for r in fine) == pytest.approx(1) and len(plots.shares(fine)) == 3


def test_a_set_without_boxes_has_no_shares(tmp_path):
    ranking = pool(tmp_path)
    assert all(r["labeled"] == 0 for r in mix(ranking.table, ranking.graph, {}, ranking.kept, [1]))


def test_carriers_are_the_images_with_a_proposal_below_the_node(tmp_path):
    ranking = pool(tmp_path)
    table, concepts = ranking.table, ranking.graph
    some = np.arange(12) % 3 > 0
    for node, carry in carriers(table, concepts, some).items():
        by_hand = {
            i
            for f, i in zip(table.fine, table.proposal_image, strict=True)
            if f >= 0 and node in concepts.path(concepts.fine[f]) and some[i]
        }
        assert set(np.flatnonzero(carry)) == by_hand


def test_rivals_pick_what_their_strategies_pick(tmp_path):
    ranking = pool(tmp_path)
    table = replace(ranking.table, entropy=np.linspace(1, 0, 12, dtype=np.float32))
    known = rank(table, graph(), LABELS, GsalParams(seed=5))
    for name, rows in rivals(known, 4).items():
        assert rows.tolist() == pick(rank(table, graph(), LABELS, GsalParams(strategy=name, seed=5)), 4)
    silent = replace(ranking.table, source=np.array(["grid"] * 12, dtype=object))
    assert rivals(rank(silent, graph(), LABELS), 4)["entropy"] is None


def test_a_near_duplicate_names_the_earlier_pick_that_it_repeats():
    angle = np.deg2rad([0, 90, 3, 92, np.nan, 1])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = near_duplicates(vectors, 0.995)
    assert [(a, b) for a, b, _ in found] == [(2, 0), (3, 1), (5, 0)]
    assert [c for *_, c in found] == pytest.approx(np.cos(np.deg2rad([3, 2, 1])), abs=1e-6)


STRATEGIES = ("gsal", "diffusion_only", "symbolic_only", "no_rarity", "image_only", "proposal_only", "shuffled_graph")


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(STRATEGIES), st.floats(0, 3), st.floats(0, 1))
def test_terms_sum_to_the_score(strategy, lam, eta):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        ranking = pool(Path(folder), strategy=strategy, lam=lam, eta=eta)
    for row in ranking.order.tolist():
        parts = list(ranking.reason(row).terms)
        assert sum(v for _, v in parts) == pytest.approx(ranking.scores.score[row], abs=1e-6)
        assert plots.waterfall(parts)[0]["x"][-1] == pytest.approx(ranking.scores.score[row], abs=1e-6)
