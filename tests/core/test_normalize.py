"""Eq. 11 against statistics from the standard library, and its edge cases."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsal_fo.acquisition.normalize import z_score, z_score_by_group

VALUES = st.lists(st.integers(-1000, 1000).map(lambda v: v / 8), min_size=1, max_size=30)  # eighths: sums are exact


@given(VALUES)
def test_z_is_the_formula_of_the_standard_library(values):
    mean, std = statistics.fmean(values), statistics.pstdev(values)
    expected = [0.0 if std < 1e-12 else (v - mean) / (std + 1e-8) for v in values]
    assert z_score(np.array(values)).tolist() == pytest.approx(expected, abs=1e-9)


@given(VALUES, st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=4), st.randoms())
def test_non_finite_values_are_nan_and_change_nobody_else(values, bad, random):
    mixed = [*values, *bad]
    random.shuffle(mixed)
    got = z_score(np.array(mixed))
    finite = np.isfinite(mixed)
    assert np.isnan(got[~finite]).all()
    np.testing.assert_allclose(got[finite], z_score(np.array(mixed)[finite]))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1, 1e-30])
def test_a_constant_is_all_zero_in_spite_of_rounding(value):
    assert z_score(np.full(1000, value)).tolist() == [0.0] * 1000


def test_nothing_finite_and_nothing_at_all():
    assert np.isnan(z_score(np.array([np.nan, np.inf]))).all()
    assert z_score(np.array([])).shape == (0,)


def test_groups_worked_by_hand():
    values, groups = np.array([1.0, 3.0, 10.0, 14.0, 7.0]), np.array([0, 0, 1, 1, -1])
    # No shrinking: group means 2 and 12, std 1 and 2; the one without a group is at the pool's mean, 7.
    np.testing.assert_allclose(z_score_by_group(values, groups, shrink=0), [-1, 1, -1, 1, 0], atol=1e-7)
    # Shrink 2, as much as the groups hold: means (2 + 7) / 2 and (12 + 7) / 2; pool variance (36+16+9+49+0)/5 = 22.
    std = [math.sqrt((1 + 22) / 2), math.sqrt((4 + 22) / 2)]
    expected = [-3.5 / std[0], -1.5 / std[0], 0.5 / std[1], 4.5 / std[1], 0]
    np.testing.assert_allclose(z_score_by_group(values, groups, shrink=2), expected, atol=1e-7)


@given(VALUES)
def test_one_group_for_all_is_the_pool(values):
    values = np.array(values)
    for groups in (np.zeros(len(values), int), np.full(len(values), -1)):
        np.testing.assert_allclose(z_score_by_group(values, groups, shrink=3), z_score(values), atol=1e-7)


def test_a_group_of_one_value_is_pulled_to_the_pool_and_not_divided_by_zero():
    got = z_score_by_group(np.array([0.0, 2.0, 9.0]), np.array([0, 0, 1]), shrink=0)
    np.testing.assert_allclose(got, [-1, 1, 0], atol=1e-7)
    assert np.isnan(z_score_by_group(np.array([np.nan, 1.0]), np.array([0, 0]), shrink=1)).tolist() == [True, False]
