"""METHOD.md section 10 by hand and against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsal_fo.acquisition.strategies.gsal.gain import (
    ExpectedCoverage,
    GainRule,
    gain_table,
    greedy_sum,
    image_gains,
    learning_value,
    node_gains,
    presence,
)
from gsal_fo.concepts import ConceptGraph

GRAPH = ConceptGraph.from_dict(
    {
        "name": "three",
        "concepts": {
            "crack": {"coarse": "surface", "abstract": ["dark", "linear"]},
            "dent": {"coarse": "surface", "abstract": []},
            "void": {"coarse": "inside", "abstract": ["dark"]},
        },
    },
    source="three.yaml",
)


def test_harmonic_gains_by_hand():
    # crack 3, dent 1, void 0: surface 4, inside 0, dark 3, linear 3
    got = node_gains(GRAPH, GRAPH.coverage({"crack": 3, "dent": 1}), GainRule())
    assert got["crack"] == pytest.approx(1 / 4 + 1 / 5 + 0.5 * (1 / 4 + 1 / 4) / 2)
    assert got["dent"] == pytest.approx(1 / 2 + 1 / 5)
    assert got["void"] == pytest.approx(1 + 1 + 0.5 / 4)


@pytest.mark.parametrize(
    ("utility", "at_zero", "at_three"),
    [("harmonic", 1, 1 / 4), ("sqrt", 1, 0.5), ("log", math.log(2), math.log(5 / 4))],
)
def test_utilities(utility, at_zero, at_three):
    got = node_gains(GRAPH, GRAPH.coverage({"crack": 3}), GainRule(utility=utility, levels="F"))
    assert got["void"] == pytest.approx(at_zero)
    assert got["crack"] == pytest.approx(at_three)


def test_what_matches_no_concept_earns_the_median_an_unseen_node_or_nothing():
    coverage = GRAPH.coverage({"crack": 3, "dent": 1})
    gains = sorted(node_gains(GRAPH, coverage, GainRule()).values())
    assert gain_table(GRAPH, coverage, GainRule())[-2] == pytest.approx(gains[1])
    assert gain_table(GRAPH, coverage, GainRule(unmatched="rare"))[-2] == pytest.approx(2.5)
    assert gain_table(GRAPH, coverage, GainRule(unmatched="rare", levels="FC"))[-2] == pytest.approx(2)
    assert gain_table(GRAPH, coverage, GainRule(unmatched="none"))[-2] == 0
    assert gain_table(GRAPH, coverage, GainRule())[-1] == 0  # background


def test_a_single_class_that_is_well_labeled_still_earns_something():
    """The graded rule gave the only class a bonus of 0, so that a confident find was worth less than junk."""
    one = ConceptGraph.from_dict({"concepts": {"crack": {"coarse": "surface"}}}, source="one.yaml")
    table = gain_table(one, one.coverage({"crack": 50}), GainRule())
    assert table[0] > 0
    assert table[-2] == table[0]


def test_nothing_labeled_makes_all_classes_equal():
    table = gain_table(GRAPH, GRAPH.coverage({}), GainRule(levels="FC"))
    assert table[:-1] == pytest.approx(2)


def test_presence_is_the_score_and_knows_stand_ins_and_windows():
    source = np.array(["detector", "field", "whole", "grid", "detector", "detector"])
    got = presence(np.array([0.9, 0.3, 0.8, 0.1, np.nan, 1.5]), source)
    assert got.tolist() == pytest.approx([0.9, 0.3, 0, 1, 0, 1])


def test_learning_value_by_hand():
    assert learning_value(np.array([0.0, 1.0, np.nan]), 1.0).tolist() == pytest.approx(
        [0.5, 1 / (1 + math.exp(-1)), 0.5]
    )
    assert learning_value(np.array([-3.0, 5.0]), 0.0).tolist() == [1, 1]


def test_an_image_sums_its_proposals_or_takes_their_largest():
    value, owner = np.array([0.2, 0.5, 0.1]), np.array([0, 0, 2])
    assert image_gains(value, owner, 3).tolist() == pytest.approx([0.7, 0, 0.1])
    assert image_gains(value, owner, 3, "max").tolist() == pytest.approx([0.5, 0, 0.1])


def plain_greedy(budget, owner, fine, q, weight, base, scale, labels, rule):
    """Every image valued again at every turn, from the text of section 10 alone."""
    u = {
        "harmonic": lambda n: 1 / (1 + n),
        "sqrt": lambda n: (1 + n) ** -0.5,
        "log": lambda n: math.log((n + 2) / (n + 1)),
    }[rule.utility]
    counts = {f: float(labels.get(f, 0)) for f in GRAPH.fine}
    left, picks, values = set(range(len(base))), [], []

    def g(index):
        def n(node):
            return sum(c for f, c in counts.items() if node in GRAPH.path(f))

        def one(f):
            attributes = GRAPH.abstract_of(f)
            extra = rule.delta * sum(u(n(a)) for a in attributes) / len(attributes) if attributes else 0
            return u(n(f)) + u(n(GRAPH.coarse_of(f))) + extra

        if index == -1:
            return 0.0
        if index == -2:
            return sorted(one(f) for f in GRAPH.fine)[1]
        return one(GRAPH.fine[index])

    for _ in range(budget):
        worth = {
            i: base[i] + scale * sum(q[j] * weight[j] * g(int(fine[j])) for j in range(len(fine)) if owner[j] == i)
            for i in left
        }
        best = max(worth.values())
        row = min(i for i in left if worth[i] >= best - 1e-12)
        picks.append(row)
        values.append(worth[row])
        left.remove(row)
        for j in range(len(fine)):
            if owner[j] == row and fine[j] >= 0:
                counts[GRAPH.fine[int(fine[j])]] += q[j]
    return picks, values


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["harmonic", "sqrt", "log"]))
def test_the_lazy_greedy_batch_is_that_of_valuing_every_image_at_every_turn(seed, utility):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, 8)
    starts = np.concatenate([[0], np.cumsum(counts)])
    owner, total = np.repeat(np.arange(8), counts), int(starts[-1])
    fine = rng.integers(-2, 3, total)
    q, weight, base = rng.random(total), rng.random(total), rng.random(8)
    rule, labels = GainRule(utility=utility), {"crack": 4, "dent": 1}
    picks, values = greedy_sum(
        6, np.arange(8), starts, fine, q, weight, base, 2.0, ExpectedCoverage(GRAPH, labels, rule)
    )
    wanted, worth = plain_greedy(6, owner, fine, q, weight, base, 2.0, labels, rule)
    assert values.tolist() == pytest.approx(worth)
    assert picks.tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), min_size=1, max_size=6), st.data())
def test_more_coverage_never_raises_a_gain(picked, data):
    """What makes the greedy sum submodular: whatever was picked before, a later look is never worth more."""
    utility = data.draw(st.sampled_from(["harmonic", "sqrt", "log"]))
    coverage = ExpectedCoverage(GRAPH, {"crack": 2}, GainRule(utility=utility))
    before = coverage.table()
    for fine, q in picked:
        coverage.add(np.array([fine]), np.array([q]))
        after = coverage.table()
        assert (after <= before + 1e-12).all()
        before = after
