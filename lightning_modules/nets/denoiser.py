"""``load_denoiser``: a frozen diffusion model with its latent and its clean prediction."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_modules.nets.autoencoder import autoencoder_latent, read_autoencoder
from lightning_modules.nets.base import EMBEDDED, Frozen, side_of, weights_digest
from lightning_modules.nets.files import folder_of, read_json
from lightning_modules.nets.pipeline import empty_prompt, load_schedule, load_unet
from lightning_modules.nets.spaces import FeatureSpace, read_feature_space

DEFAULTS = {"t": 0.4, "reduce": "mean", "regions": "crops", "crop_size": 256, "draws": 4}  # METHOD.md, literal
FEATURE_DEFAULTS = {"t": 0.7, "reduce": "max", "regions": "maps"}  # measured there; a folder's own choice goes first


class Denoiser(Frozen):
    """A frozen diffusion model: its latent and its clean prediction.

    Attributes:
        space: "vae" (autoencoder latents), "features" (encoder maps) or "pixels".
        input_size: side in pixels of a whole image as fed to ``latent``; crops use ``defaults["crop_size"]``.
        alphas_cumprod: (T,) cumulative product of 1 - beta.
        defaults: t (share of T), reduce, regions, crop_size, draws.
        digest: 16 hex characters of all weights and settings that a score depends on.
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
    ) -> None:
        super().__init__()
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"the scheduler's prediction_type must be epsilon, v_prediction or sample; got {prediction!r}"
            )
        self.unet, self.coder, self.space, self.prediction = unet, coder, space, prediction
        self.input_size, self.clip_range = input_size, clip_range
        self.defaults = {**DEFAULTS, **(FEATURE_DEFAULTS if space == "features" else {}), **defaults}
        self.register_buffer("alphas_cumprod", alphas_cumprod.float())
        self.register_buffer("prompt", prompt)
        encoder_digest = coder.encoder.digest if isinstance(coder, FeatureSpace) else None
        self.digest = weights_digest(self, [space, prediction, input_size, clip_range, encoder_digest])
        self.requires_grad_(False).eval()

    def latent(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w) of RGB images (B, 3, H, W) in [0, 1]: posterior mean, scaled (METHOD.md section 4)."""
        if self.space == "features":
            return self.coder(x)
        x = x * 2 - 1
        if self.space == "pixels":
            return x.mean(1, keepdim=True) if self.unet.config.in_channels == 1 else x
        return autoencoder_latent(self.coder, x)

    def predict_x0(self, z_t: Tensor, t: int) -> Tensor:
        """The clean prediction from noised latents (N, C, h, w) at step ``t`` in [0, T).

        Source: Ho et al. 2020 (arXiv:2006.11239) Eq. 15 for epsilon; Salimans & Ho 2022 (arXiv:2202.00512) for v.
        """
        a = self.alphas_cumprod[t]
        times = torch.full((len(z_t),), t, device=z_t.device, dtype=torch.long)
        if self.prompt is None:
            out = self.unet(z_t, times).sample
        else:
            out = self.unet(z_t, times, encoder_hidden_states=self.prompt.expand(len(z_t), -1, -1)).sample
        out = out[:, : z_t.shape[1]]  # a model that also predicts its variance has twice the channels
        if self.prediction == "epsilon":
            out = (z_t - (1 - a).sqrt() * out) / a.sqrt()
        elif self.prediction == "v_prediction":
            out = a.sqrt() * z_t - (1 - a).sqrt() * out
        return out if self.clip_range is None else out.clamp(-self.clip_range, self.clip_range)


def load_denoiser(name: str = EMBEDDED) -> Denoiser:
    """A frozen diffusion model from a diffusers folder.

    Args:
        name: "embedded", a folder, or a hub id ("owner/name", fetched once into the hub's cache). Layout: ``unet/`` and
            ``scheduler/`` (or a bare unconditional pipeline with the U-Net's files on top), optional ``vae/``,
            ``text_encoder/`` with ``tokenizer/``; and, for a model made by ``fit_diffusion``, ``gsal.json`` with
            ``features.safetensors``. Weights are safetensors only.

    Raises:
        ValueError: when it is missing, incomplete, of a kind that has no clean prediction, or cannot be downloaded.
    """
    folder = folder_of(name)
    about: dict[str, Any] = {}
    if (folder / "gsal.json").is_file():
        about = read_json(folder / "gsal.json")
    unet = load_unet(folder)
    alphas, prediction, clip_range = load_schedule(folder)
    defaults = {k: v for k, v in about.get("defaults", {}).items() if k in DEFAULTS}
    space, prompt = about.get("space"), None
    coder: Any = None
    if space is None:
        space = "vae" if (folder / "vae").is_dir() else "pixels"
    if space == "features":
        coder = read_feature_space(folder, about)
        size = int(about["input_size"])
    elif space == "vae":
        coder = read_autoencoder(folder)
        # The autoencoder halves once per level after the first.
        factor = 2 ** (len(getattr(coder.config, "block_out_channels", (1,) * 4)) - 1)
        if hasattr(coder.config, "encoder_block_out_channels"):
            factor = 2 ** (len(coder.config.encoder_block_out_channels) - 1)
        size = int(about.get("input_size") or side_of(unet.config.sample_size or 64) * factor)
    elif space == "pixels":
        size = int(about.get("input_size") or side_of(unet.config.sample_size or 256))
    else:
        raise ValueError(f"{folder}/gsal.json: space must be vae, features or pixels; got {space!r}")
    if space == "pixels" and unet.config.in_channels not in (1, 3):
        raise ValueError(f"{folder}: a U-Net of {unet.config.in_channels} input channels needs its autoencoder in vae/")
    if getattr(unet.config, "cross_attention_dim", None):
        prompt = empty_prompt(folder)
    return Denoiser(
        unet,
        space=space,
        alphas_cumprod=alphas,
        prediction=prediction,
        input_size=size,
        defaults={"crop_size": min(size, 256), **defaults},
        coder=coder,
        prompt=prompt,
        clip_range=clip_range if space == "pixels" else None,
    )
