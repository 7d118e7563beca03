"""Areas, intervals and paired tests by hand and against SciPy and statsmodels-like definitions."""

import math

import numpy as np
import pytest
from scipy import stats

from gsal_fo.comparison.rare import rare_classes, rare_images
from gsal_fo.comparison.statistics import area, holm, interval, paired, wilcoxon, win_matrix


def test_an_interval_is_students():
    got = interval([1.0, 2.0, 3.0, 6.0])
    low, high = stats.t.interval(0.95, 3, loc=3.0, scale=stats.sem([1, 2, 3, 6]))
    assert (got.mean, got.worst, got.count) == (3.0, 1.0, 4)
    assert (got.low, got.high) == pytest.approx((low, high))


def test_a_single_seed_has_no_interval():
    got = interval([0.4])
    assert got.mean == 0.4 and math.isnan(got.low) and math.isnan(got.high)


def test_the_area_of_a_triangle_and_of_a_part_of_it():
    assert area([0, 10], [0, 1], low=0, high=10) == pytest.approx(0.5)
    assert area([0, 10], [0, 1], low=5, high=10) == pytest.approx(0.75)
    assert area([0, 5, 10], [0, 1, 1], low=0, high=10) == pytest.approx((2.5 + 5) / 10)


def test_a_curve_is_flat_outside_its_points():
    assert area([4, 6], [2, 4], low=0, high=10) == pytest.approx((4 * 2 + 2 * 3 + 4 * 4) / 10)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1, 1], [0, 0]), ([2, 1], [0, 0]), ([1, 2], [0])])
def test_a_curve_that_is_none_is_refused(x, y):
    with pytest.raises(ValueError, match="budgets rise"):
        area(x, y, low=0, high=1)


def test_holm_by_hand():
    # sorted 0.01, 0.03, 0.04: times 3, 2, 1, never falling
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})


def test_holm_leaves_out_what_was_not_tested():
    got = holm({"a": 0.01, "b": float("nan")})
    assert got["a"] == 0.01 and math.isnan(got["b"])


def test_six_wins_of_six_are_the_least_that_can_be_significant():
    assert wilcoxon(np.arange(1.0, 7)) == pytest.approx(2 / 2**6)
    assert math.isnan(wilcoxon(np.arange(1.0, 6)))
    assert wilcoxon(np.zeros(6)) == 1.0


def test_pairs_are_of_the_same_seed():
    values = {"ours": {0: 0.5, 1: 0.7, 2: 0.6}, "random": {2: 0.6, 0: 0.1, 1: 0.9}}
    got = paired(values, "random")["ours"]
    assert (got.wins, got.ties, got.losses) == (1, 1, 1)
    assert got.difference.mean == pytest.approx((0.4 - 0.2 + 0.0) / 3)
    assert got.indicative and math.isnan(got.p)


def test_strategies_without_a_common_seed_are_refused():
    with pytest.raises(ValueError, match="share no seed"):
        paired({"a": {0: 1.0}, "b": {1: 1.0}}, "b")
    with pytest.raises(ValueError, match="was not compared"):
        paired({"a": {0: 1.0}}, "b")


def test_the_matrix_mirrors_itself():
    got = win_matrix({"a": {0: 1.0, 1: 2.0}, "b": {0: 0.0, 1: 2.0}})
    assert got["a"]["b"] == (1, 1, 0)
    assert got["b"]["a"] == (0, 1, 1)


def test_rare_classes_are_the_lowest_third_by_images_not_by_boxes():
    labels = {"1": ["a", "a", "a", "a"], "2": ["b", "c"], "3": ["b", "c"], "4": ["c"], "5": []}
    assert rare_classes(labels) == ("a",)
    assert rare_images(labels, ["a", "b"]) == {"1", "2", "3"}


def test_ties_of_rarity_go_by_name_and_one_class_is_rare_at_least():
    assert rare_classes({"1": ["z", "y"]}) == ("y",)
    with pytest.raises(ValueError, match="no image holds"):
        rare_classes({"1": []})
