"""``load_denoiser``: a frozen diffusion model with its latent and its clean prediction."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gsal_fo.config import DiffusionConfig, GsalParams, from_dict
from gsal_fo.fit_settings import MOST_SIDE
from gsal_fo.settings import check_number
from gsal_fo.user_files import shown
from lightning_modules.nets.autoencoder import autoencoder_latent, downscale, load_autoencoder, read_autoencoder
from lightning_modules.nets.base import EMBEDDED, Frozen, side_of, weights_digest
from lightning_modules.nets.files import folder_of, read_json
from lightning_modules.nets.pipeline import empty_prompt, load_schedule, load_unet
from lightning_modules.nets.spaces import FeatureSpace, read_feature_space

DEFAULTS = {"t": 0.4, "reduce": "mean", "regions": "crops", "crop_size": 256, "draws": 4}  # METHOD.md, literal
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MIX = ("alpha", "beta")  # weights of E and V in the ranking, which a folder may ask for
FEATURE_DEFAULTS = {"t": 0.7, "reduce": "max", "regions": "maps"}  # measured there; a folder's own choice goes first


class Denoiser(Frozen):
    """A frozen diffusion model: its latent and its clean prediction.

    Attributes:
        space: "vae" (autoencoder latents), "features" (encoder maps) or "pixels".
        input_size: side in pixels of a whole image as fed to ``latent``; crops use ``defaults["crop_size"]``.
        alphas_cumprod: (T,) cumulative product of 1 - beta.
        defaults: t (share of T), reduce, regions, crop_size, draws.
        mix: alpha and beta of Eq. 7 that suit the model; empty where its folder names none. No score depends on it.
        digest: 16 hex characters of all weights and settings that a score depends on, precision included.

    Args:
        precision: "fp32" or "bf16": what the U-Net and the autoencoder compute in. Noising, the step from prediction
            to x0, the statistics, and a feature space's encoder stay float32.
    """

    alphas_cumprod: Tensor
    prompt: Tensor | None
    unet: Any
    coder: Any

    def __init__(
        self,
        unet: Any,
        *,
        space: str,
        alphas_cumprod: Tensor,
        prediction: str,
        input_size: int,
        defaults: Mapping[str, Any],
        coder: Any = None,
        prompt: Tensor | None = None,
        clip_range: float | None = None,
        precision: str = "fp32",
        mix: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"the scheduler's prediction_type must be epsilon, v_prediction or sample; got {prediction!r}"
            )
        self.unet, self.coder, self.space, self.prediction = unet, coder, space, prediction
        self.input_size, self.clip_range = input_size, clip_range
        self.mix = dict(mix or {})
        self.defaults = {**DEFAULTS, **(FEATURE_DEFAULTS if space == "features" else {}), **defaults}
        self.register_buffer("alphas_cumprod", alphas_cumprod.float())
        self.register_buffer("prompt", prompt)
        encoder_digest = coder.encoder.digest if isinstance(coder, FeatureSpace) else None
        rounding = [] if precision == "fp32" else [precision]
        border = [coder.padding] if isinstance(coder, FeatureSpace) and coder.padding != "zeros" else []
        settings = [space, prediction, input_size, clip_range, encoder_digest, *rounding, *border]
        self.digest = weights_digest(self, settings)
        self.dtype = PRECISIONS[precision]
        for net in (unet, coder if space == "vae" else None):
            if net is not None:
                nn.Module.to(net, self.dtype)  # diffusers' own `to` warns about an empty list of exceptions
        self.requires_grad_(False).eval()

    def latent(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w) of RGB images (B, 3, H, W) in [0, 1]: posterior mean, scaled (METHOD.md section 4)."""
        if self.space == "features":
            # Rounded there, features of a few cells move more than the whole U-Net's rounding moves a prediction.
            with torch.autocast(x.device.type, enabled=False):
                return self.coder(x)
        x = x * 2 - 1
        if self.space == "pixels":
            return x.mean(1, keepdim=True) if self.unet.config.in_channels == 1 else x
        return autoencoder_latent(self.coder, x.to(self.dtype)).float()

    def predict_x0(self, z_t: Tensor, t: int) -> Tensor:
        """The clean prediction from noised latents (N, C, h, w) at step ``t`` in [0, T).

        Source: Ho et al. 2020 (arXiv:2006.11239) Eq. 15 for epsilon; Salimans & Ho 2022 (arXiv:2202.00512) for v.
        """
        a = self.alphas_cumprod[t]
        times = torch.full((len(z_t),), t, device=z_t.device, dtype=torch.long)
        given = {}
        if self.prompt is not None:
            given["encoder_hidden_states"] = self.prompt.to(self.dtype).expand(len(z_t), -1, -1)
        out = self.unet(z_t.to(self.dtype), times, **given).sample.float()
        out = out[:, : z_t.shape[1]]  # a model that also predicts its variance has twice the channels
        if self.prediction == "epsilon":
            out = (z_t - (1 - a).sqrt() * out) / a.sqrt()
        elif self.prediction == "v_prediction":
            out = a.sqrt() * z_t - (1 - a).sqrt() * out
        return out if self.clip_range is None else out.clamp(-self.clip_range, self.clip_range)


def _facts(folder: Path) -> dict[str, Any]:
    """A folder's gsal.json, checked by the rules of the settings it speaks of, before any image is read."""
    path = folder / "gsal.json"
    about = read_json(path) if path.is_file() else {}
    try:
        defaults = about.get("defaults", {})
        if not isinstance(defaults, Mapping):
            raise ValueError("defaults must be a mapping")
        from_dict(DiffusionConfig, {k: v for k, v in defaults.items() if k in DEFAULTS})
        from_dict(GsalParams, {k: v for k, v in defaults.items() if k in MIX})
        for name in ("input_size", "stride"):
            if name in about:
                check_number(name, about[name], whole=True, low=1, high=MOST_SIDE)
        stages = about.get("stages") or []
        if not isinstance(stages, list) or not all(isinstance(s, str) for s in stages):
            raise ValueError("stages must be a list of names")
    except ValueError as error:
        raise ValueError(f"{path}: {error}; fit the model again") from error
    return about


def load_denoiser(
    name: str = EMBEDDED,
    *,
    vae: str | None = None,
    precision: str = "fp32",
    channels_last: bool = False,
    attention_slicing: bool = False,
    compiled: bool = False,
) -> Denoiser:
    """A frozen diffusion model from a diffusers folder.

    Args:
        name: "embedded", a folder, or a hub id ("owner/name", fetched once into the hub's cache). Layout: ``unet/`` and
            ``scheduler/`` (or a bare unconditional pipeline with the U-Net's files on top), optional ``vae/``,
            ``text_encoder/`` with ``tokenizer/``; and, for a model made by ``fit_diffusion``, ``gsal.json`` with
            ``features.safetensors``. Weights are safetensors only.
        vae: folder or hub id of an AutoencoderKL or AutoencoderTiny in place of the folder's own autoencoder. It must
            share its latent space: a tiny one distilled from it encodes at about a tenth of the work.
        precision: "bf16" halves memory and is faster on hardware with bfloat16 units (recent GPUs and server CPUs);
            elsewhere it is slower. Scores of two precisions are never mixed.
        channels_last, attention_slicing, compiled: layout and scheduling, the same scores up to rounding.
            ``channels_last`` helps convolutions in bf16 on a GPU; ``attention_slicing`` saves memory, at a cost in
            time, where 512 px and more do not fit otherwise; ``compiled`` (torch.compile) needs a C++ compiler and
            pays on pools of many minutes, since each shape of a batch is compiled once.

    Raises:
        ValueError: when it is missing, incomplete, of a kind that has no clean prediction, or cannot be downloaded.
    """
    folder = folder_of(name)
    about = _facts(folder)
    unet = load_unet(folder)
    alphas, prediction, clip_range = load_schedule(folder)
    defaults = {k: v for k, v in about.get("defaults", {}).items() if k in DEFAULTS}
    mix = {k: v for k, v in about.get("defaults", {}).items() if k in MIX}
    space, prompt = about.get("space"), None
    coder: Any = None
    if space is None:
        space = "vae" if (folder / "vae").is_dir() else "pixels"
    if space == "features":
        coder = read_feature_space(folder, about)
        size = int(about["input_size"])
    elif space == "vae":
        coder = load_autoencoder(vae) if vae else read_autoencoder(folder)
        if (given := coder.config.latent_channels) != unet.config.in_channels:
            raise ValueError(
                f"the autoencoder of {vae or folder} gives {given} latent channels, the U-Net of {folder} takes "
                f"{unet.config.in_channels}; give the autoencoder that it was trained with"
            )
        size = int(about.get("input_size") or side_of(unet.config.sample_size or 64) * downscale(coder))
    elif space == "pixels":
        size = int(about.get("input_size") or side_of(unet.config.sample_size or 256))
    else:
        raise ValueError(f"{folder}/gsal.json: space must be vae, features or pixels; got {shown(space)}")
    if vae and space != "vae":
        raise ValueError(f"{name} works on {space}, not on an autoencoder's latents; leave out the vae setting")
    if space == "pixels" and unet.config.in_channels not in (1, 3):
        raise ValueError(f"{folder}: a U-Net of {unet.config.in_channels} input channels needs its autoencoder in vae/")
    if getattr(unet.config, "cross_attention_dim", None):
        prompt = empty_prompt(folder)
    model = Denoiser(
        unet,
        space=space,
        alphas_cumprod=alphas,
        prediction=prediction,
        input_size=size,
        defaults={"crop_size": min(size, 256), **defaults},
        coder=coder,
        prompt=prompt,
        clip_range=clip_range if space == "pixels" else None,
        precision=precision,
        mix=mix,
    )
    if channels_last:
        unet.to(memory_format=torch.channels_last)
        if space == "vae":
            coder.to(memory_format=torch.channels_last)
    if attention_slicing:
        if not hasattr(unet, "set_attention_slice"):
            raise ValueError(f"{type(unet).__name__} of {folder} has no attention slicing; leave out attention_slicing")
        unet.set_attention_slice("auto")
    if compiled:
        model.unet = torch.compile(unet)
    return model
