"""The scorer's numbers: against a plain loop, and independent of batches, order and company."""

import numpy as np
import pytest
import torch

from gsal_fo.config import DiffusionConfig
from lightning_modules.nets import load_denoiser
from lightning_modules.stages.difficulty import DifficultyLoader, DiffusionScorer, resolve
from tests.modules.helpers import write_ddpm, write_images


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return load_denoiser(str(write_ddpm(tmp_path_factory.mktemp("m") / "ddpm")))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 9)


BOXES = np.array([[0.1, 0.1, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], np.float32)


def rows(paths, denoiser, settings):
    load = DifficultyLoader(
        size=denoiser.input_size,
        crop_size=16 if settings["regions"] == "crops" else None,
        pad=0.2,
        per_sample=settings["noise"] == "per_sample",
        cache=None,
    )
    base = [{"id": f"i{k}", "filepath": str(p), "boxes": BOXES.ravel(), "error": None} for k, p in enumerate(paths)]
    return [{**row, **load(row)} for row in base]


def scored(paths, denoiser, config, batch, order=None):
    settings = resolve(config, denoiser)
    todo = rows(paths, denoiser, settings)
    todo = [todo[i] for i in order] if order is not None else todo
    module = DiffusionScorer(denoiser, settings, batch_size=batch)
    with torch.inference_mode():
        return {row["id"]: row for row in module.predict_step(todo, 0)}


@pytest.mark.parametrize("noise", ["shared", "per_sample"])
@pytest.mark.parametrize("regions", ["crops", "maps"])
def test_scores_depend_on_the_image_alone(noise, regions, paths, denoiser):
    config = DiffusionConfig(noise=noise, regions=regions, crop_size=16)
    one = scored(paths, denoiser, config, 1)
    for batch, order in [(7, None), (64, [8, 3, 1, 0, 2, 7, 5, 6, 4]), (64, [4])]:
        for key, row in scored(paths, denoiser, config, batch, order).items():
            for name in ("image_error", "image_variance", "proposal_error", "proposal_variance"):
                np.testing.assert_allclose(row[name], one[key][name], rtol=1e-5, err_msg=f"{batch} {key} {name}")


def test_image_statistics_equal_a_plain_loop(paths, denoiser):
    config = DiffusionConfig(t=0.5, draws=4, crop_size=16)
    settings = resolve(config, denoiser)
    todo = rows(paths[:2], denoiser, settings)
    got = scored(paths[:2], denoiser, config, 8)
    from gsal_fo.diffusion import shared_noise

    abar, step = denoiser.alphas_cumprod, 50  # 0.5 of T = 100
    for row in todo:
        z = denoiser.latent(row["image"][None].float() / 255)[0]
        hats = []
        for eps in shared_noise(4, z.shape, seed=0):
            z_t = abar[step].sqrt() * z + (1 - abar[step]).sqrt() * eps
            hats.append(denoiser.predict_x0(z_t[None], step)[0].detach().numpy())
        mean = np.mean(hats, axis=0)
        error = ((z.numpy() - mean) ** 2).mean()
        variance = np.mean([((h - mean) ** 2).mean() for h in hats])
        assert got[row["id"]]["image_error"] == pytest.approx(error, rel=1e-4)
        assert got[row["id"]]["image_variance"] == pytest.approx(variance, rel=1e-4)


def test_the_draws_change_with_the_seed_and_per_sample_noise_with_the_id(paths, denoiser):
    a = scored(paths[:1] * 2, denoiser, DiffusionConfig(crop_size=16), 8)
    assert a["i0"]["image_error"] == pytest.approx(a["i1"]["image_error"], rel=1e-6)  # the same file under two ids
    b = scored(paths[:1] * 2, denoiser, DiffusionConfig(crop_size=16, noise="per_sample"), 8)
    assert b["i0"]["image_error"] != pytest.approx(b["i1"]["image_error"], rel=1e-4)
    c = scored(paths[:1], denoiser, DiffusionConfig(crop_size=16, seed=1), 8)
    assert c["i0"]["image_error"] != pytest.approx(a["i0"]["image_error"], rel=1e-4)
