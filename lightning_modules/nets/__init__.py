"""Pretrained networks behind three doors: ``load_encoder``, ``load_clip``, ``load_denoiser``.

The only package that knows hub ids, local paths and file formats. Everything comes back frozen and in eval mode.
"""

from lightning_modules.nets.autoencoder import autoencoder_latent, autoencoder_picture, load_autoencoder
from lightning_modules.nets.base import EMBEDDED, Encoder, Frozen, weights_digest
from lightning_modules.nets.clip import Clip, load_clip
from lightning_modules.nets.denoiser import Denoiser, load_denoiser
from lightning_modules.nets.encoders import load_encoder, untrained
from lightning_modules.nets.files import embedded_folder
from lightning_modules.nets.spaces import FeatureSpace, joined_maps, pad_with

__all__ = [
    "EMBEDDED",
    "Clip",
    "Denoiser",
    "Encoder",
    "FeatureSpace",
    "Frozen",
    "autoencoder_latent",
    "autoencoder_picture",
    "embedded_folder",
    "joined_maps",
    "load_autoencoder",
    "load_clip",
    "load_denoiser",
    "load_encoder",
    "pad_with",
    "untrained",
    "weights_digest",
]
