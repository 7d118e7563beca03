"""The spaces that a fit works in: what turns images into latents, and how that is stored with the model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gsal_fo.fit_settings import FitSettings
from lightning_modules.data import to_float
from lightning_modules.nets import (
    Encoder,
    autoencoder_latent,
    joined_maps,
    load_autoencoder,
    load_encoder,
    pad_with,
)

Coder = Any  # an Encoder (features), a diffusers autoencoder (vae), or None (pixels)
PADDING = "replicate"  # of the encoder's convolutions: zeros make every border an outlier
FEWEST = 8  # images: below, a covariance of features means nothing


def load_coder(settings: FitSettings) -> Coder:
    """The frozen network between images and latents; None for pixels. Raises ValueError where it cannot be used."""
    if settings.space == "features":
        encoder = load_encoder(settings.encoder)
        pad_with(encoder, PADDING)
        stages_of(encoder, settings)
        return encoder
    return load_autoencoder(str(settings.vae)) if settings.space == "vae" else None


def stages_of(encoder: Encoder, settings: FitSettings) -> list[str]:
    """The encoder's stages to join; by default those at strides 8 and 16.

    Raises ValueError for a stage that the encoder lacks.
    """
    stages = list(settings.stages or (name for name, (_, stride) in encoder.stages.items() if stride in (8, 16)))
    has = ", ".join(f"{name} (stride {stride})" for name, (_, stride) in encoder.stages.items())
    if unknown := [s for s in stages if s not in encoder.stages]:
        raise ValueError(f"encoder {settings.encoder} has no stage {unknown[0]!r}; it has {has}")
    if not stages:
        raise ValueError(f"encoder {settings.encoder} has no stage at stride 8 or 16; name stages of {has}")
    return stages


@torch.no_grad()
def raw_latents(images: Sequence[Tensor], coder: Coder, settings: FitSettings) -> Tensor:
    """What an image is before axes are chosen: (B, D, h, w) float16 of images (3, S, S) uint8.

    Features: joined maps. Pixels: RGB in [-1, 1]. Autoencoder: the scaled posterior mean.
    """
    x = to_float(torch.stack(list(images)))
    if settings.space == "features":
        x = x.to(coder.mean.device)
        return joined_maps(coder, x, stages_of(coder, settings), settings.stride).half().cpu()
    if settings.space == "vae":
        device = next(coder.parameters()).device
        return autoencoder_latent(coder, x.to(device) * 2 - 1).half().cpu()
    return (x * 2 - 1).half()


def choose_axes(raw: Tensor, settings: FitSettings) -> dict[str, Tensor]:
    """What is learned of the space from the first images' raw latents: principal axes of features, or whether pixels
    are gray (``components`` of one row)."""
    if settings.space == "features":
        return principal_axes(raw, settings.components, settings.whiten)
    if settings.space == "pixels" and torch.equal(raw[:, 0], raw[:, 1]) and torch.equal(raw[:, 0], raw[:, 2]):
        return {"gray": torch.ones(1)}
    return {}


def project(raw: Tensor, axes: dict[str, Tensor]) -> Tensor:
    """Latents (B, C, h, w) float32 of raw ones, as the saved model computes them when it scores."""
    raw = raw.float()
    if "gray" in axes:
        return raw.mean(1, keepdim=True)
    if not axes:
        return raw
    z = (raw - axes["mean"].view(1, -1, 1, 1)) / axes["std"].view(1, -1, 1, 1)
    return torch.einsum("bdhw,cd->bchw", z, axes["components"]) / axes["scale"].view(1, -1, 1, 1)


def principal_axes(features: Tensor, components: int, whiten: float = 0.0) -> dict[str, Tensor]:
    """The feature space of maps (N, D, h, w): mean, std (D,), components (C, D), scale (C,).

    Channels are standardized; the axes are those of their covariance over all cells (PCA), largest first, signed so
    that the largest entry of each is positive. ``scale`` divides component ``c`` by ``lambda_c^(whiten / 2)``, and
    all by one number that brings the mean variance to 1.
    """
    depth = features.shape[1]
    components = min(components, depth)
    total, square = torch.zeros(depth, dtype=torch.float64), torch.zeros(depth, depth, dtype=torch.float64)
    cells = 0
    for part in features.split(64):
        x = part.permute(0, 2, 3, 1).reshape(-1, depth).double()
        total, square, cells = total + x.sum(0), square + x.T @ x, cells + len(x)
    mean = total / cells
    covariance = square / cells - mean[:, None] * mean[None]
    std = covariance.diagonal().clamp(min=0).sqrt().clamp(min=1e-6)
    values, vectors = torch.linalg.eigh(covariance / (std[:, None] * std[None]))
    values, axes = values.flip(0)[:components].clamp(min=1e-9), vectors.flip(1).T[:components]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    scale = values ** (whiten / 2)
    scale = scale * (values / scale**2).mean().sqrt()
    return {"mean": mean.float(), "std": std.float(), "components": axes.float().contiguous(), "scale": scale.float()}


def facts_of(coder: Coder, settings: FitSettings) -> dict[str, Any]:
    """What the model's ``gsal.json`` says about its space, for ``load_denoiser``."""
    facts: dict[str, Any] = {"space": settings.space, "input_size": settings.input_size}
    if settings.space == "features":
        facts |= {
            "encoder": settings.encoder,
            "encoder_digest": coder.digest,
            "stages": stages_of(coder, settings),
            "stride": settings.stride,
            "padding": PADDING,
        }
    return facts
