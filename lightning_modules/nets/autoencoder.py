"""Autoencoders of latent diffusion: loading, and images to latents and back."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_modules.nets.files import folder_of, from_folder, read_json


def load_autoencoder(name: str) -> Any:
    """A frozen AutoencoderKL or AutoencoderTiny: its own folder, a diffusers folder with ``vae/``, or a hub id.

    Raises ValueError where it is missing, of another kind, or cannot be downloaded.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
            raise ValueError(f'no autoencoder {name!r}: give an existing folder, or a hub id "owner/name"')
        folder = folder_of(name)
    if not (folder / "vae").is_dir() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no autoencoder: it has neither vae/ nor config.json; give one that diffusers saved"
        )
    sub = "vae" if (folder / "vae").is_dir() else None
    return read_autoencoder(folder, sub).requires_grad_(False).eval()


def downscale(coder: Any) -> int:
    """Pixels per latent cell: an autoencoder halves once per level after the first."""
    config = coder.config
    tiny = "encoder_block_out_channels" in config
    levels = config.encoder_block_out_channels if tiny else config.block_out_channels
    return 2 ** (len(levels) - 1)


def autoencoder_latent(coder: Any, x: Tensor) -> Tensor:
    """Latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]: posterior mean, scaled."""
    out = coder.encode(x)
    z = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latents
    return (z - (getattr(coder.config, "shift_factor", None) or 0.0)) * coder.config.scaling_factor


def autoencoder_picture(coder: Any, z: Tensor) -> Tensor:
    """Images (B, 3, H, W), about [-1, 1], of scaled latents."""
    return coder.decode(z / coder.config.scaling_factor + (getattr(coder.config, "shift_factor", None) or 0.0)).sample


def read_autoencoder(folder: Path, sub: str | None = "vae") -> Any:
    """The autoencoder of a diffusers folder; raises ValueError for another kind."""
    import diffusers

    where = folder / (sub or "")
    name = read_json(where / "config.json").get("_class_name", "AutoencoderKL")
    if name not in ("AutoencoderKL", "AutoencoderTiny"):
        raise ValueError(f"{where}: the autoencoder must be an AutoencoderKL or AutoencoderTiny; got {name}")
    return from_folder(getattr(diffusers, name), folder, sub)
