"""Correction of E and V for size and texture, against a slow minimizer of Huber's own loss."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from gsal_fo.acquisition.correction import local_contrast, residual
from gsal_fo.acquisition.normalize import z_score
from gsal_fo.acquisition.ranking import rank
from gsal_fo.acquisition.strategies.gsal.scores import difficulty
from gsal_fo.config import GsalParams
from tests.core.runs import graph, image, write_run

seeds = st.integers(0, 2**32 - 1)


def pool(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E of a power law in area and contrast with scatter, and one in ten far above it."""
    rng = np.random.default_rng(seed)
    area, contrast = rng.uniform(0.001, 0.5, n), rng.uniform(0.01, 0.3, n)
    error = 2 * area**-0.4 * contrast**0.7 * np.exp(rng.normal(0, 0.1, n))
    error[: n // 10] *= np.exp(rng.uniform(1, 3, n // 10))
    return error, area, contrast


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_law_is_the_minimum_of_hubers_loss(seed):
    """Slow reference: a general minimizer, at the scale that the result itself implies."""
    error, area, contrast = pool(seed)
    got = residual(error, area, contrast)
    scale = np.median(np.abs(got - np.median(got))) / 0.6744897501960817  # the 75 % quantile of a normal

    def loss(c):
        left = np.abs(np.log(error) - c[0] - c[1] * np.log(area) - c[2] * np.log(contrast)) / scale
        return np.where(left <= 1.345, left**2 / 2, 1.345 * left - 1.345**2 / 2).sum()

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-9, "fatol": 1e-12})
    c = best.x
    expected = np.log(error) - c[0] - c[1] * np.log(area) - c[2] * np.log(contrast)
    np.testing.assert_allclose(got, expected, atol=2e-3)


@given(seeds, st.floats(0.01, 100), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_no_unit_and_no_order_matters(seed, unit, other):
    error, area, contrast = pool(seed)
    got = residual(error, area, contrast)
    np.testing.assert_allclose(residual(error * unit, area * other, contrast), got, atol=1e-6)
    order = np.random.default_rng(seed).permutation(len(error))
    np.testing.assert_allclose(residual(error[order], area[order], contrast[order]), got[order], atol=1e-6)


@given(seeds, st.floats(-2, 2), st.floats(-2, 2))
@settings(max_examples=20, deadline=None)
def test_what_size_and_texture_explain_is_gone_and_a_few_hard_ones_stay(seed, a, b):
    _, area, contrast = pool(seed)
    error = 3 * area**a * contrast**b
    error[7] *= np.e**2
    got = residual(error, area, contrast)
    np.testing.assert_allclose(np.delete(got, 7), 0, atol=1e-6)
    assert got[7] == pytest.approx(2, abs=1e-6)


def test_what_is_not_finite_stays_out():
    error, area, contrast = pool(0)
    kept = residual(error[2:], area[2:], contrast[2:])
    error[0], contrast[1] = np.nan, np.inf
    got = residual(error, area, contrast)
    assert np.isnan(got[:2]).all()
    np.testing.assert_allclose(got[2:], kept, atol=1e-12)
    assert np.isnan(residual(np.full(3, np.nan), np.ones(3))).all()


def test_a_constant_covariate_explains_nothing():
    error, area, contrast = pool(1)
    np.testing.assert_array_equal(residual(error, area, contrast, np.full(60, 7.0)), residual(error, area, contrast))


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"shape of values, \(3,\)"):
        residual(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="at least 2 x 2"):
        local_contrast(np.ones((1, 5)), np.array([[0, 0, 1, 1]]))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_local_contrast_is_the_mean_step_to_the_right_and_down(seed):
    rng = np.random.default_rng(seed)
    gray = rng.random((9, 12))
    x, y = rng.integers(0, 11), rng.integers(0, 8)
    w, h = rng.integers(1, 12 - x + 1), rng.integers(1, 9 - y + 1)
    steps = []
    for row in range(y, y + h):
        for column in range(x, x + w):
            right = abs(gray[row, column + 1] - gray[row, column]) if column < 11 else 0
            down = abs(gray[row + 1, column] - gray[row, column]) if row < 8 else 0
            steps.append(right + down)
    # The middle of the border pixels, so that no rounding decides which pixels the box touches.
    box = np.array([[(x + 0.5) / 12, (y + 0.5) / 9, (w - 1) / 12, (h - 1) / 9]])
    assert local_contrast(gray, box)[0] == pytest.approx(np.mean(steps), rel=1e-5)


def test_difficulty_z_scores_the_residuals():
    error, area, contrast = pool(3)
    variance = error[::-1].copy()
    params = GsalParams(correct="size_texture")
    rows = np.arange(60)
    got = difficulty(
        *(error, variance, rows, error, variance, params),
        image_covariates=(contrast,),
        proposal_covariates=(area, contrast),
    )
    e, v = (z_score(residual(x, area, contrast)) for x in (error, variance))
    np.testing.assert_allclose(got.proposal, z_score(0.5 * e + 0.5 * v), atol=1e-9)
    e, v = (z_score(residual(x, contrast)) for x in (error, variance))
    np.testing.assert_allclose(got.image, z_score(0.5 * e + 0.5 * v), atol=1e-9)
    with pytest.raises(ValueError, match="needs image_covariates"):
        difficulty(error, variance, rows, error, variance, params)


def test_a_run_is_ranked_with_the_contrast_that_it_stored(tmp_path):
    """Six images whose error is their contrast, but for one that is harder than it is busy: it comes first."""
    rows = []
    for i, busy in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6)):
        hard = busy * (2 if i == 1 else 1)
        one = {"image_error": hard, "image_variance": hard, "image_contrast": busy, "boxes": [0, 0, 0.5, 0.5]}
        rows.append(image(f"i{i}", [0], **one, proposal_error=[hard], proposal_variance=[hard], contrast=[busy]))
    from gsal_fo.run_folder.pool_columns import load_pool

    table = load_pool(write_run(tmp_path / "run", rows))
    plain = rank(table, graph(), {"crack": 1}, GsalParams(strategy="diffusion_only"))
    corrected = rank(table, graph(), {"crack": 1}, GsalParams(strategy="diffusion_only", correct="size_texture"))
    assert plain.order[0] == 5 and corrected.order[0] == 1


def test_a_run_without_contrast_says_what_to_do(tmp_path, monkeypatch):
    from gsal_fo.run_folder import shards
    from gsal_fo.run_folder.pool_columns import load_pool

    old = [field for field in shards.STAGES["proposals"] if "contrast" not in field.name]
    monkeypatch.setattr(shards, "STAGES", {**shards.STAGES, "proposals": shards.pa.schema(old)})
    table = load_pool(write_run(tmp_path / "run", [image(i, [0]) for i in "abc"]))
    assert rank(table, graph(), {}, GsalParams()).order.size == 3
    with pytest.raises(ValueError, match="did not store; score again"):
        rank(table, graph(), {}, GsalParams(correct="size_texture"))
