"""Diffusion backends and their options: autoencoders swapped, latent U-Nets, schedules, precision, layouts."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, DDPMScheduler
from scipy.stats import spearmanr
from transformers import CLIPTextModel, CLIPTokenizer

from gsal_fo.config import DiffusionConfig
from gsal_fo.diffusion import reduce_map
from gsal_fo.synthetic.thin_film import CLASSES, render
from lightning_modules.data import resized, to_float
from lightning_modules.nets import load_denoiser
from lightning_modules.stages.difficulty import DiffusionScorer, resolve, scorer_digest
from tests.modules.test_nets import save_pixels, save_stable_diffusion, tiny_kl, tiny_unet

SCHEDULES = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "zero_snr": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
                 "rescale_betas_zero_snr": True},
    "trained": {"trained_betas": np.linspace(1e-3, 0.3, 50).tolist(), "num_train_timesteps": 50},
}  # fmt: skip


def tiny_taesd(**more) -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=more.pop("latent_channels", 4), upsampling_scaling_factor=2, **more,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return save_stable_diffusion(tmp_path_factory.mktemp("sd"), tiny_kl())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_folder_s_schedule_and_prediction_are_diffusers_own(tmp_path, schedule, prediction):
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False, **SCHEDULES[schedule])
    model = load_denoiser(str(save_pixels(tmp_path, scheduler)))
    steps = scheduler.config.num_train_timesteps
    scheduler.set_timesteps(steps)
    torch.testing.assert_close(model.alphas_cumprod, scheduler.alphas_cumprod)
    z_t = torch.randn(2, 3, 16, 16)
    for t in (1, int(0.4 * steps), int(0.7 * steps)):
        with torch.no_grad():
            expected = scheduler.step(model.unet(z_t, t).sample, t, z_t).pred_original_sample
            torch.testing.assert_close(model.predict_x0(z_t, t), expected, rtol=1e-4, atol=1e-4)


def test_a_v_model_with_zero_terminal_snr_has_a_clean_prediction_at_its_last_step(tmp_path):
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, **SCHEDULES["zero_snr"])
    model = load_denoiser(str(save_pixels(tmp_path, scheduler)))
    z_t = torch.randn(1, 3, 16, 16)
    with torch.no_grad():  # alpha_bar is 0 there, so x0 = -v
        torch.testing.assert_close(model.predict_x0(z_t, 999), -model.unet(z_t, 999).sample, atol=1e-4, rtol=1e-4)


def test_another_autoencoder_takes_the_place_of_the_folder_s_own(tmp_path, sd):
    torch.manual_seed(1)
    vae, x = tiny_taesd(), torch.rand(1, 3, 16, 16)
    vae.save_pretrained(tmp_path / "taesd", safe_serialization=True)
    model = load_denoiser(str(sd), vae=str(tmp_path / "taesd"))
    with torch.no_grad():
        torch.testing.assert_close(model.latent(x), vae.encode(2 * x - 1).latents)
    assert model.digest != load_denoiser(str(sd)).digest and model.input_size == 16
    tiny_taesd(latent_channels=3).save_pretrained(tmp_path / "thin", safe_serialization=True)
    with pytest.raises(ValueError, match="gives 3 latent channels"):
        load_denoiser(str(sd), vae=str(tmp_path / "thin"))
    with pytest.raises(ValueError, match="works on pixels"):
        load_denoiser(str(save_pixels(tmp_path / "p", DDPMScheduler())), vae=str(tmp_path / "taesd"))


def test_an_unconditional_unet_works_on_an_autoencoder_s_latents(tmp_path):
    folder, vae = save_pixels(tmp_path, DDPMScheduler(clip_sample=True), tiny_unet(4)), tiny_kl().eval()
    vae.save_pretrained(folder / "vae", safe_serialization=True)
    model, x = load_denoiser(str(folder)), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        z = model.latent(x)
        torch.testing.assert_close(z, 0.3 * vae.encode(2 * x - 1).latent_dist.mean)
        a = model.alphas_cumprod[300]
        expected = (z - (1 - a).sqrt() * model.unet(z, 300).sample) / a.sqrt()  # latents are not clipped
        torch.testing.assert_close(model.predict_x0(z, 300), expected)
    assert (model.space, model.prompt, model.input_size) == ("vae", None, 32)


def test_the_empty_prompt_is_the_text_encoder_s_and_the_encoder_is_gone(sd):
    model = load_denoiser(str(sd))
    tokenizer, encoder = (
        k.from_pretrained(sd / d) for k, d in ((CLIPTokenizer, "tokenizer"), (CLIPTextModel, "text_encoder"))
    )
    ids = tokenizer("", padding="max_length", max_length=6, return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(model.prompt, encoder(ids).last_hidden_state)
    assert not any("text" in name for name, _ in model.named_modules())


def images(count: int = 24) -> torch.Tensor:
    """Flat to noisy images, so that their E differs."""
    g = torch.Generator().manual_seed(0)
    level = torch.linspace(0, 0.5, count).view(-1, 1, 1, 1)
    return (0.3 + level * torch.rand(count, 3, 16, 16, generator=g)).clamp(0, 1)


def errors(model, **config) -> np.ndarray:
    scorer = DiffusionScorer(model, resolve(DiffusionConfig(**config), model), batch_size=8)
    with torch.inference_mode():
        return scorer.maps(images(), [str(i) for i in range(24)])[:, 0].mean((1, 2)).numpy()


def test_bf16_ranks_a_pool_as_fp32_does():
    # The embedded model: with random weights all images have nearly one E, and its order is rounding.
    full, half = load_denoiser(), load_denoiser(precision="bf16")
    slices = [render(np.random.default_rng([7, i]), want=[CLASSES[i % 6]] * (i % 3)).image for i in range(24)]
    x = torch.stack([to_float(resized(np.repeat(s[..., None], 3, 2), full.input_size)) for s in slices])
    maps = []
    for model in (full, half):
        scorer = DiffusionScorer(model, resolve(DiffusionConfig(), model), batch_size=8)
        with torch.inference_mode():
            maps.append(torch.cat([scorer.maps(part, ["a"] * len(part)) for part in x.split(8)])[:, 0])
    assert not torch.equal(*maps)
    for reduce in ("mean", "max"):
        assert spearmanr(*(reduce_map(m, reduce).numpy() for m in maps)).statistic >= 0.999


def test_scores_of_two_precisions_are_never_mixed(sd):
    full, half = load_denoiser(str(sd)), load_denoiser(str(sd), precision="bf16")
    for net in (half.unet, half.coder):
        assert next(net.parameters()).dtype == torch.bfloat16
    settings = [resolve(DiffusionConfig(), m) for m in (full, half)]
    assert scorer_digest(settings[0], full, pad=0.2) != scorer_digest(settings[1], half, pad=0.2)
    np.testing.assert_allclose(errors(half), errors(full), rtol=0.02)


@pytest.mark.parametrize("option", ["channels_last", "attention_slicing"])
def test_layout_options_change_no_score_and_no_digest(sd, option):
    plain, other = load_denoiser(str(sd)), load_denoiser(str(sd), **{option: True})
    assert plain.digest == other.digest
    np.testing.assert_allclose(errors(other), errors(plain), rtol=1e-5)


def test_options_that_cannot_be_are_refused(sd):
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16; got 'fp8'"):
        load_denoiser(str(sd), precision="fp8")
    with pytest.raises(ValueError, match="precision must be one of"):
        DiffusionConfig(precision="half")
    with pytest.raises(ValueError, match='channels_last must be true or false; got "yes"'):
        DiffusionConfig(channels_last="yes")
