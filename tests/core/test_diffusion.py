"""Eq. 5 and 6 against loops, their identity, noise, DDIM and map reductions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsal_fo import diffusion as d

SEEDS = st.integers(0, 2**32 - 1)


def latents(seed: int, b: int = 2, k: int = 4, c: int = 3, h: int = 2, w: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    return torch.randn(b, c, h, w, **draw), torch.randn(b, k, c, h, w, **draw)


@given(SEEDS, st.integers(1, 5))
@settings(max_examples=20)
def test_error_and_variance_are_the_formulas_in_loops(seed, k):
    z, z_hat = latents(seed, k=k)
    error, variance = d.reconstruction_statistics(z, z_hat)
    for b in range(2):
        size = z[b].numel()
        e = v = 0.0
        for index in np.ndindex(*z[b].shape):
            draws = [float(z_hat[b, j][index]) for j in range(k)]
            mean = sum(draws) / k
            e += (float(z[b][index]) - mean) ** 2 / size  # Eq. 5
            v += sum((x - mean) ** 2 for x in draws) / k / size  # Eq. 6
        assert float(error[b]) == pytest.approx(e) and float(variance[b]) == pytest.approx(v)


@given(SEEDS, st.integers(1, 6))
@settings(max_examples=30)
def test_error_plus_variance_is_the_mean_squared_error_over_draws(seed, k):
    z, z_hat = latents(seed, k=k)
    error, variance = d.reconstruction_statistics(z, z_hat)
    torch.testing.assert_close(error + variance, (z[:, None] - z_hat).square().flatten(1).mean(1))


def test_maps_average_to_the_statistics_and_one_bad_cell_shows_where_it_is():
    z, z_hat = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 2, 3, 3)
    z_hat[0, :, 1, 2, 0] = torch.tensor([1.0, 3.0])  # one channel of one cell: mean 2, variance 1
    error, variance = d.reconstruction_maps(z, z_hat)
    expected = torch.zeros(1, 3, 3)
    expected[0, 2, 0] = 2.0  # (0 - 2)^2 over two channels
    torch.testing.assert_close(error, expected)
    torch.testing.assert_close(variance, expected / 4)
    torch.testing.assert_close(d.reconstruction_statistics(z, z_hat)[0], torch.tensor([2 / 9]))


def test_a_nan_in_one_image_stays_in_that_image():
    z, z_hat = latents(0)
    z_hat[1, 0, 0, 0, 0] = float("nan")
    error, variance = d.reconstruction_statistics(z, z_hat)
    assert torch.isfinite(error).tolist() == torch.isfinite(variance).tolist() == [True, False]


def test_shapes_that_do_not_fit_are_refused():
    z, z_hat = latents(0)
    with pytest.raises(ValueError, match="z must be"):
        d.reconstruction_statistics(z, z_hat[:, :, :, :1])
    with pytest.raises(ValueError, match="K >= 1"):
        d.reconstruction_statistics(z, z_hat[:, :0])


def test_shared_noise_is_antithetic_standard_normal_and_set_by_its_arguments():
    noise = d.shared_noise(4, (3, 40, 40), seed=1)
    torch.testing.assert_close(noise[0], -noise[1])
    torch.testing.assert_close(noise[2], -noise[3])
    assert not torch.equal(noise[0], noise[2])
    assert float(noise[0].std()) == pytest.approx(1, abs=5 / np.sqrt(2 * 4800))  # 5 sigma
    torch.testing.assert_close(noise, d.shared_noise(4, (3, 40, 40), seed=1), rtol=0, atol=0)
    assert not torch.equal(noise, d.shared_noise(4, (3, 40, 40), seed=2))
    torch.testing.assert_close(noise[:2], d.shared_noise(2, (3, 40, 40), seed=1))  # more draws keep the first


def test_per_sample_noise_depends_on_the_key_alone():
    both = d.per_sample_noise(["a", "b"], 2, (1, 4, 4), seed=0)
    torch.testing.assert_close(d.per_sample_noise(["b"], 2, (1, 4, 4), seed=0)[0], both[1], rtol=0, atol=0)
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(both[:, 0], -both[:, 1])


@pytest.mark.parametrize("draws", [0, 1, 3])
def test_odd_draws_are_refused(draws):
    with pytest.raises(ValueError, match="even"):
        d.shared_noise(draws, (1, 2, 2), seed=0)
    with pytest.raises(ValueError, match="even"):
        d.per_sample_noise(["a"], draws, (1, 2, 2), seed=0)


ALPHA_BAR = torch.linspace(0.99, 0.01, 100, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_perfect_denoiser_has_no_error_and_no_variance(steps):
    z, _ = latents(3)
    noise = d.shared_noise(4, z.shape[1:], seed=0).double()
    clean = z.repeat_interleave(4, 0)
    z_hat = d.denoise(z, noise, t=40, steps=steps, alpha_bar=ALPHA_BAR, predict_x0=lambda x, t: clean)
    error, variance = d.reconstruction_statistics(z, z_hat)
    torch.testing.assert_close(error, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(variance, torch.zeros(2, dtype=torch.float64))


def test_one_step_sees_exactly_the_noised_latent():
    z, _ = latents(4)
    noise = d.shared_noise(2, z.shape[1:], seed=0).double()
    z_hat = d.denoise(z, noise, t=40, steps=1, alpha_bar=ALPHA_BAR, predict_x0=lambda x, t: x)
    a = float(ALPHA_BAR[40])
    for b in range(2):
        for k in range(2):
            torch.testing.assert_close(z_hat[b, k], a**0.5 * z[b] + (1 - a) ** 0.5 * noise[k])


def test_ddim_walks_down_with_the_predicted_noise():
    """Two steps by hand for a model that predicts x / 2: x0 = x/2, eps = (x - sqrt(a) x/2) / sqrt(1 - a)."""
    z, noise = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(2, 1, 1, 1, dtype=torch.float64)
    seen = []

    def predict(x, t):
        seen.append(t)
        return x / 2

    got = d.denoise(z, noise, t=40, steps=2, alpha_bar=ALPHA_BAR, predict_x0=predict)
    a, b = float(ALPHA_BAR[40]), float(ALPHA_BAR[20])
    x = (1 - a) ** 0.5
    x = b**0.5 * x / 2 + (1 - b) ** 0.5 * (x - a**0.5 * x / 2) / (1 - a) ** 0.5
    assert seen == [40, 20] and float(got[0, 0]) == pytest.approx(x / 2)


@pytest.mark.parametrize("t", [-1, 100])
def test_a_step_outside_the_schedule_is_refused(t):
    z, _ = latents(0)
    with pytest.raises(ValueError, match=r"\[0, 100\)"):
        d.denoise(
            z, d.shared_noise(2, z.shape[1:], seed=0), t=t, steps=1, alpha_bar=ALPHA_BAR, predict_x0=lambda x, t: x
        )


@given(SEEDS)
@settings(max_examples=20)
def test_reductions_are_ordered_and_agree_with_sorting(seed):
    values = np.random.default_rng(seed).random((2, 7, 9))
    mean, top, high = (d.reduce_map(torch.from_numpy(values), how).numpy() for how in ("mean", "topk", "max"))
    flat = np.sort(values.reshape(2, -1))
    np.testing.assert_allclose(mean, flat.mean(1))
    np.testing.assert_allclose(top, flat[:, -3:].mean(1))  # 5 % of 63 cells
    np.testing.assert_allclose(high, flat[:, -1])
    assert (mean <= top).all() and (top <= high).all()


def test_region_mean_weighs_cells_by_the_area_inside_the_box():
    values = np.array([[0.0, 4.0], [8.0, 100.0]])
    boxes = np.array([[0, 0, 1, 1], [0.25, 0, 0.5, 0.5], [0.1, 0.6, 0.2, 0.1], [0, 0, 1, 0.75], [0.6, 0.2, 0, 0]])
    # whole; half of each upper cell; inside the lower left cell; rows weigh 1 and 1/2; a point in the upper right cell
    got = d.region_statistics(values, boxes, "mean")
    np.testing.assert_allclose(got, [28, 2, 8, (0 + 4 + 0.5 * 8 + 0.5 * 100) / 3, 4], rtol=1e-6)
    np.testing.assert_allclose(d.region_statistics(values, boxes, "max"), [100, 4, 8, 100, 4])


def test_the_whole_image_as_a_region_is_the_map_reduced():
    values = np.random.default_rng(0).random((9, 11))
    for how in ("mean", "max", "topk"):
        whole = d.region_statistics(values, np.array([[0, 0, 1, 1]]), how)
        np.testing.assert_allclose(whole, d.reduce_map(torch.from_numpy(values)[None], how).numpy(), rtol=1e-6)


def test_unknown_reductions_are_refused():
    with pytest.raises(ValueError, match="mean, max or topk"):
        d.reduce_map(torch.zeros(1, 2, 2), "median")
    with pytest.raises(ValueError, match="mean, max or topk"):
        d.region_statistics(np.zeros((2, 2)), np.array([[0, 0, 1, 1]]), "median")
