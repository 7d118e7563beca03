"""Fits a small diffusion model on a pool, without labels: over encoder features, pixels or autoencoder latents
(METHOD.md section 4).

    python -m lightning_modules.fit_diffusion --run-dir DIR      # a user's pool
    python -m lightning_modules.fit_diffusion --embedded OUT     # the embedded model, from synthetic slices

The result is a diffusers folder with ``gsal.json`` (and ``features.safetensors``), which ``nets.load_denoiser`` reads.
"""

from gsal_fo.fit_settings import FitSettings
from lightning_modules.fit_diffusion.fitting import fit
from lightning_modules.fit_diffusion.latents import Latents, collect
from lightning_modules.fit_diffusion.measuring import auroc
from lightning_modules.fit_diffusion.sheets import error_maps
from lightning_modules.fit_diffusion.spaces import load_coder

__all__ = ["FitSettings", "Latents", "auroc", "collect", "error_maps", "fit", "load_coder"]
