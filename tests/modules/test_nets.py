"""The three doors to pretrained networks, with tiny models written by the libraries' own save functions."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from torchvision.models import mobilenet_v2

from lightning_modules.fit_diffusion.spaces import principal_axes, project
from lightning_modules.nets import (
    FeatureSpace,
    joined_maps,
    load_clip,
    load_denoiser,
    load_encoder,
    pad_with,
)

SHARED = Path(__file__).parents[2] / "../shared"


def tiny_unet(channels: int = 3, **more) -> UNet2DModel:
    return UNet2DModel(
        sample_size=16, in_channels=channels, out_channels=channels, block_out_channels=(8, 8), layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        **more,
    )  # fmt: skip


def save_pixels(folder: Path, scheduler, unet: UNet2DModel | None = None) -> Path:
    torch.manual_seed(0)
    (unet or tiny_unet()).save_pretrained(folder / "unet", safe_serialization=True)
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    torch.manual_seed(1)
    model = open_clip.CLIP(**config).eval()
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder, model


# ---- encoders


def test_mobilenet_maps_and_embeddings_are_torchvision_s_own(tmp_path):
    torch.manual_seed(2)
    net = mobilenet_v2().eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    encoder = load_encoder(f"mobilenet_v2:{tmp_path / 'w.safetensors'}")
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        maps, features = encoder.maps(x), net.features(x * 2 - 1)
        torch.testing.assert_close(maps["features.6"], net.features[:7](x * 2 - 1))
        torch.testing.assert_close(maps["features.18"], features)
        torch.testing.assert_close(encoder.embed(x), F.normalize(features.mean((2, 3)), dim=1))
    for name, (channels, stride) in encoder.stages.items():
        assert maps[name].shape == (2, channels, 96 // stride, 96 // stride)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_a_weights_file_may_ask_for_imagenet_normalization(tmp_path):
    net = mobilenet_v2().eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors", metadata={"input": "imagenet"})
    encoder, x = load_encoder(str(tmp_path / "w.safetensors")), torch.full((1, 3, 32, 32), 0.5)
    # (0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225
    torch.testing.assert_close(
        encoder.normalized(x)[0, :, 0, 0], torch.tensor([0.0655, 0.1964, 0.4178]), atol=1e-4, rtol=0
    )


def test_an_encoder_above_which_train_is_called_stays_frozen(clip_folder):
    encoder = load_clip(str(clip_folder[0])).encoder
    before = encoder.tower.bn1.running_mean.clone()
    torch.nn.Sequential(encoder).train()
    encoder.maps(torch.rand(2, 3, 64, 64))
    assert not encoder.tower.bn1.training and torch.equal(encoder.tower.bn1.running_mean, before)


def test_equal_weights_have_equal_digests_and_one_changed_weight_another(tmp_path):
    torch.manual_seed(3)
    state = mobilenet_v2().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    save_file({**state, "features.0.0.weight": state["features.0.0.weight"] + 1e-3}, tmp_path / "b.safetensors")
    a, again, b = (load_encoder(str(tmp_path / f"{n}.safetensors")).digest for n in "aab")
    assert a == again != b and len(a) == 16


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    digests = {load_encoder("mobilenet_v2:none").digest for _ in range(2)}
    assert len(digests) == 1 and torch.equal(torch.rand(1), expected)


@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="needs the real weights beside the repository")
def test_the_real_mobilenet_file_recognizes_structure():
    encoder = load_encoder(f"mobilenet_v2:{next((SHARED / 'weights').glob('mobilenet_v2*.safetensors'))}")
    x = torch.rand(1, 3, 96, 96)
    flat = torch.full((1, 3, 96, 96), 0.5)
    a, b, c = (encoder.embed(v) for v in (x, x + 0.02 * torch.rand_like(x), flat))
    assert (a * b).sum() > (a * c).sum()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet9000", "unknown encoder"),
        ("mobilenet_v2:/nowhere/w.safetensors", "does not exist"),
        ("/nowhere/w.safetensors", "does not exist"),
    ],
)
def test_an_encoder_that_is_not_there_is_refused_with_a_cure(name, says):
    with pytest.raises(ValueError, match=says):
        load_encoder(name)


def test_a_file_of_other_weights_or_of_none_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ValueError, match="no MobileNetV2 weights"):
        load_encoder(str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="no readable safetensors"):
        load_encoder(str(tmp_path / "broken.safetensors"))


# ---- CLIP


def test_clip_embeds_as_open_clip_called_by_hand_does(clip_folder):
    folder, model = clip_folder
    clip, x = load_clip(str(folder)), torch.rand(3, 3, 32, 32)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)
    texts = ["a void", "a crack in a film"]
    with torch.no_grad():
        image = F.normalize(model.encode_image((x - mean) / std), dim=1)
        text = F.normalize(model.encode_text(open_clip.SimpleTokenizer(context_length=16)(texts)), dim=1)
        torch.testing.assert_close(clip.embed(x), image)
        torch.testing.assert_close(clip.encoder.embed(x), image)
        torch.testing.assert_close(clip.encode_text(texts), text)
    assert clip.input_size == 32 and clip.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)  # open_clip's initial scale


def test_clip_resizes_what_is_not_its_input_size(clip_folder):
    clip, x = load_clip(str(clip_folder[0])), torch.rand(1, 3, 50, 40)
    small = F.interpolate(x, (32, 32), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(clip.embed(x), clip.embed(small))


def test_the_clip_tower_has_maps_at_four_strides(clip_folder):
    encoder = load_encoder(str(clip_folder[0]))
    with torch.no_grad():
        maps = encoder.maps(torch.rand(1, 3, 96, 64))
    assert {n: tuple(m.shape[1:]) for n, m in maps.items()} == {
        "layer1": (32, 24, 16), "layer2": (64, 12, 8), "layer3": (128, 6, 4), "layer4": (256, 3, 2),
    }  # fmt: skip
    assert {n: (c, 96 // s) for n, (c, s) in encoder.stages.items()} == {n: m.shape[1:3] for n, m in maps.items()}


def test_clip_folders_and_names_that_cannot_work_are_refused_with_a_cure(tmp_path, clip_folder):
    (tmp_path / "open_clip_config.json").write_text((clip_folder[0] / "open_clip_config.json").read_text())
    with pytest.raises(ValueError, match=r"has no open_clip_model\.safetensors"):
        load_clip(str(tmp_path))
    with pytest.raises(ValueError, match="needs pretrained"):
        load_clip("RN50")
    with pytest.raises(ValueError, match="no CLIP model"):
        load_clip("my-clip")
    save_file({"x": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_clip(str(tmp_path))


# ---- denoisers


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_clean_predictions_are_those_of_diffusers_schedulers(tmp_path, prediction, schedule):
    scheduler = DDIMScheduler(prediction_type=prediction, beta_schedule=schedule, clip_sample=False)
    model = load_denoiser(str(save_pixels(tmp_path, scheduler)))
    scheduler.set_timesteps(1000)
    z_t = torch.randn(2, 3, 16, 16)
    for t in (1, 400, 900):
        with torch.no_grad():
            expected = scheduler.step(model.unet(z_t, t).sample, t, z_t).pred_original_sample
            torch.testing.assert_close(model.predict_x0(z_t, t), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.alphas_cumprod, scheduler.alphas_cumprod)


def test_a_pixel_model_clips_its_prediction_as_its_scheduler_does(tmp_path):
    scheduler = DDPMScheduler(clip_sample=True)
    model = load_denoiser(str(save_pixels(tmp_path, scheduler)))
    z_t = 3 * torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = scheduler.step(model.unet(z_t, 700).sample, 700, z_t).pred_original_sample
        torch.testing.assert_close(model.predict_x0(z_t, 700), expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().max() == 1


def test_a_pixel_model_s_latent_is_the_image_in_minus_one_to_one(tmp_path):
    x = torch.rand(1, 3, 16, 16)
    model = load_denoiser(str(save_pixels(tmp_path / "rgb", DDPMScheduler())))
    torch.testing.assert_close(model.latent(x), 2 * x - 1)
    gray = load_denoiser(str(save_pixels(tmp_path / "gray", DDPMScheduler(), tiny_unet(1))))
    torch.testing.assert_close(gray.latent(x), 2 * x.mean(1, keepdim=True) - 1)
    assert model.space == "pixels" and model.input_size == 16 and model.defaults["t"] == 0.4


def save_stable_diffusion(folder: Path, vae) -> Path:
    """A Stable Diffusion folder in miniature, text encoder and tokenizer included."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(5)
    vae.save_pretrained(folder / "vae", safe_serialization=True)
    UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4,
    ).save_pretrained(folder / "unet", safe_serialization=True)  # fmt: skip
    PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True
    ).save_pretrained(folder / "scheduler")
    vocabulary = {"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=6).save_pretrained(
        folder / "tokenizer"
    )
    config = CLIPTextConfig(
        vocab_size=3, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=6, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder / "text_encoder", safe_serialization=True)
    return folder


def tiny_kl() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=4, scaling_factor=0.3,
    )  # fmt: skip


def test_a_stable_diffusion_folder_encodes_to_the_scaled_posterior_mean_and_takes_the_empty_prompt(tmp_path):
    vae = tiny_kl().eval()
    model, x = load_denoiser(str(save_stable_diffusion(tmp_path, vae))), torch.rand(2, 3, 16, 16)
    assert model.space == "vae" and model.input_size == 16  # 8 latent cells, halved once
    with torch.no_grad():
        torch.testing.assert_close(model.latent(x), 0.3 * vae.encode(2 * x - 1).latent_dist.mean)
        z_t = torch.randn(2, 4, 8, 8)
        noise = model.unet(z_t, 300, encoder_hidden_states=model.prompt.expand(2, -1, -1)).sample
        scheduler = DDIMScheduler.from_pretrained(tmp_path / "scheduler", clip_sample=False)
        a = scheduler.alphas_cumprod[300]
        torch.testing.assert_close(model.predict_x0(z_t, 300), (z_t - (1 - a).sqrt() * noise) / a.sqrt())
    assert model.prompt.shape == (1, 6, 16)


def test_a_tiny_autoencoder_works_in_its_place(tmp_path):
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4, upsampling_scaling_factor=2,
    ).eval()  # fmt: skip
    model, x = load_denoiser(str(save_stable_diffusion(tmp_path, vae))), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.latent(x), vae.encode(2 * x - 1).latents)


def test_the_feature_space_is_sklearn_s_pca_of_standardized_maps(clip_folder):
    encoder = load_encoder(str(clip_folder[0]))
    torch.manual_seed(6)
    with torch.no_grad():
        features = joined_maps(encoder, torch.rand(12, 3, 64, 64), ["layer1", "layer3"], 16)
    cells = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double().numpy()
    standard = (cells - cells.mean(0)) / np.maximum(cells.std(0), 1e-6)
    pca = PCA(5).fit(standard)
    space = principal_axes(features, 5)
    for ours, theirs in zip(space["components"].numpy(), pca.components_, strict=True):
        assert abs(ours @ theirs) == pytest.approx(1, abs=1e-4)
    z = project(features, space).permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    expected = pca.transform(standard)
    expected = expected / np.sqrt((expected**2).mean())  # one scale for all: mean variance 1
    np.testing.assert_allclose(np.abs(z), np.abs(expected), atol=2e-3)
    whitened = project(features, principal_axes(features, 5, whiten=1.0))
    torch.testing.assert_close(
        whitened.transpose(0, 1).flatten(1).var(1, correction=0), torch.ones(5), atol=1e-3, rtol=0
    )


def test_a_feature_folder_computes_the_latent_that_it_was_fitted_on(tmp_path, clip_folder):
    encoder = load_encoder(str(clip_folder[0]))
    x = torch.rand(9, 3, 64, 64)
    with torch.no_grad():
        features = joined_maps(encoder, x, ["layer2"], 8)
    space = principal_axes(features, 4)
    save_pixels(tmp_path, DDPMScheduler(clip_sample=False), tiny_unet(4))
    save_file(space, tmp_path / "features.safetensors")
    about = {"space": "features", "encoder": str(clip_folder[0]), "encoder_digest": encoder.digest,
             "stages": ["layer2"], "stride": 8, "input_size": 64, "defaults": {"t": 0.6, "reduce": "topk"}}  # fmt: skip
    (tmp_path / "gsal.json").write_text(json.dumps(about))
    model = load_denoiser(str(tmp_path))
    torch.testing.assert_close(model.latent(x), project(features, space))
    assert (model.defaults["t"], model.defaults["reduce"], model.defaults["regions"]) == (0.6, "topk", "maps")
    assert model.latent(torch.rand(1, 3, 128, 64)).shape == (1, 4, 16, 8)
    (tmp_path / "gsal.json").write_text(json.dumps({**about, "encoder_digest": "0" * 16}))
    with pytest.raises(ValueError, match="other weights"):
        load_denoiser(str(tmp_path))


def test_a_replicated_border_makes_an_even_image_even_in_features_and_zeros_do_not():
    x = torch.full((1, 3, 96, 64), 0.3)
    spread = {}
    for padding in ("zeros", "replicate"):
        encoder = load_encoder("mobilenet_v2:none")
        pad_with(encoder, padding)
        with torch.no_grad():
            maps = joined_maps(encoder, x, ["features.6", "features.13"], 8)
        spread[padding] = float((maps - maps[:, :, :1, :1]).abs().max() / maps.abs().max())
    assert spread["replicate"] < 1e-4 < 1e-2 < spread["zeros"]
    with pytest.raises(ValueError, match="zeros, replicate; got 'circular'"):
        pad_with(encoder, "circular")


def test_a_folder_s_padding_decides_its_latents_and_its_digest(tmp_path):
    encoder, x = load_encoder("mobilenet_v2:none"), torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        zeros = joined_maps(encoder, x, ["features.6"], 8)
        space = principal_axes(zeros, 4)
        pad_with(encoder, "replicate")
        replicated = joined_maps(encoder, x, ["features.6"], 8)
    save_pixels(tmp_path, DDPMScheduler(clip_sample=False), tiny_unet(4))
    save_file(space, tmp_path / "features.safetensors")
    about = {"space": "features", "encoder": "mobilenet_v2:none", "stages": ["features.6"], "stride": 8,
             "input_size": 64}  # fmt: skip
    models = {}
    for key, more in {"older": {}, "zeros": {"padding": "zeros"}, "new": {"padding": "replicate"}}.items():
        (tmp_path / "gsal.json").write_text(json.dumps({**about, **more}))
        models[key] = load_denoiser(str(tmp_path))
    torch.testing.assert_close(models["older"].latent(x), project(zeros, space))
    torch.testing.assert_close(models["new"].latent(x), project(replicated, space))
    assert models["older"].digest == models["zeros"].digest != models["new"].digest


def test_a_folder_may_name_the_weights_of_the_ranking_and_no_score_depends_on_them(tmp_path):
    save_pixels(tmp_path, DDPMScheduler(clip_sample=False), tiny_unet(3))
    digests = set()
    for mix in ({}, {"alpha": 1.0, "beta": 0.0}):
        (tmp_path / "gsal.json").write_text(json.dumps({"space": "pixels", "defaults": {"t": 0.3, **mix}}))
        model = load_denoiser(str(tmp_path))
        assert model.mix == mix and model.defaults["t"] == 0.3
        digests.add(model.digest)
    assert len(digests) == 1
    for wrong in (-1, "much", None, 1e400):
        (tmp_path / "gsal.json").write_text(json.dumps({"space": "pixels", "defaults": {"alpha": wrong}}))
        with pytest.raises(ValueError, match=r"gsal\.json: alpha must be a number in"):
            load_denoiser(str(tmp_path))


ODD_FACTS = {
    "a list": ([], "expected a JSON object"),
    "defaults that are a list": ({"defaults": [1]}, "defaults must be a mapping"),
    "an infinite level": ({"defaults": {"t": 1e400}}, "t must be a number in"),
    "a crop without a size": ({"defaults": {"crop_size": "wide"}}, "crop_size must be a whole number"),
    "an unknown way to reduce": ({"defaults": {"reduce": ["max"]}}, "reduce must be one of"),
    "a huge side": ({"space": "pixels", "input_size": 10**30}, "input_size must be a whole number"),
    "a side that is text": ({"space": "pixels", "input_size": "64"}, "input_size must be a whole number"),
    "a space that is a mapping": ({"space": {"a": 1}}, "space must be vae, features or pixels; got a mapping"),
    "stages that are text": ({"space": "features", "stages": "layer2"}, "stages must be a list of names"),
}


@pytest.mark.parametrize(("facts", "said"), ODD_FACTS.values(), ids=ODD_FACTS.keys())
def test_odd_facts_of_a_folder_are_one_sentence(tmp_path, facts, said):
    save_pixels(tmp_path, DDPMScheduler(clip_sample=False), tiny_unet(3))
    (tmp_path / "gsal.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=rf"gsal\.json: {said}"):
        load_denoiser(str(tmp_path))


def test_stages_of_another_width_than_fitted_are_refused(clip_folder):
    with pytest.raises(ValueError, match="fitted on 3"):
        FeatureSpace(
            load_encoder(str(clip_folder[0])), stages=["layer1"], stride=8, mean=torch.zeros(3), std=torch.ones(3),
            components=torch.eye(3), scale=torch.ones(3),
        )  # fmt: skip


def test_denoiser_folders_that_cannot_work_are_refused_with_a_cure(tmp_path):
    with pytest.raises(ValueError, match="no diffusion model"):
        load_denoiser("/nowhere/at/all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no unet/config\.json"):
        load_denoiser(str(tmp_path / "empty"))
    flow = save_pixels(tmp_path / "flow", FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="no betas"):
        load_denoiser(str(flow))
    odd = save_pixels(tmp_path / "latent", DDPMScheduler(), tiny_unet(4))
    with pytest.raises(ValueError, match="needs its autoencoder"):
        load_denoiser(str(odd))
    (tmp_path / "latent" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match="no usable UNet2DModel"):
        load_denoiser(str(odd))
    thin = save_stable_diffusion(tmp_path / "sd", tiny_kl())
    (thin / "tokenizer").rename(thin / "lost")
    with pytest.raises(ValueError, match="text_encoder/ and tokenizer/"):
        load_denoiser(str(thin))


def test_a_hub_model_without_a_network_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="give a local folder"):
        load_denoiser("nobody/no-such-model")
