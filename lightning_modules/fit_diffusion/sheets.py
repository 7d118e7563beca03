"""Pictures of a fit: the loss curve, and held-out images beside what the model makes of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsal_fo.diffusion import denoise, reconstruction_maps, reduce_map, shared_noise
from lightning_modules.data import to_float
from lightning_modules.nets import Denoiser, autoencoder_picture

ROWS = 8
DRAWS = 4


@torch.no_grad()
def error_maps(denoiser: Denoiser, images: Iterable[Tensor], share: float, draws: int = DRAWS) -> tuple[Tensor, Tensor]:
    """E and V maps (N, h, w) of images (3, S, S) uint8 at ``t = share T``."""
    parts = [_predict(denoiser, batch, share, draws) for batch in torch.stack(list(images)).split(16)]
    maps = [reconstruction_maps(z, z_hat) for z, _, z_hat in parts]
    return torch.cat([e for e, _ in maps]), torch.cat([v for _, v in maps])


def _predict(denoiser: Denoiser, images: Tensor, share: float, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (B, C, h, w), the first draw's noised ones, and clean predictions (B, K, C, h, w)."""
    z = denoiser.latent(to_float(images)).float()
    noise = shared_noise(draws, z.shape[1:], seed=0)
    steps, alpha_bar = len(denoiser.alphas_cumprod), denoiser.alphas_cumprod
    t = min(round(share * steps), steps - 1)
    z_hat = denoise(z, noise, t=t, steps=1, alpha_bar=alpha_bar, predict_x0=denoiser.predict_x0)
    noised = alpha_bar[t].sqrt() * z + (1 - alpha_bar[t]).sqrt() * noise[0]
    return z, noised, z_hat


@torch.no_grad()
def draw_sheet(denoiser: Denoiser, pictures: np.ndarray, path: Path) -> None:
    """PNG of held-out images (P, 3, S, S) uint8, hardest first: of many the four hardest and the four easiest.

    Pixels and autoencoder: input, noised, predicted, E. Features have no picture of their own: input, E, V.
    """
    from matplotlib.figure import Figure

    share, how = float(denoiser.defaults["t"]), str(denoiser.defaults["reduce"])
    z, noised, z_hat = _predict(denoiser, torch.from_numpy(pictures), share, DRAWS)
    error, variance = reconstruction_maps(z, z_hat)
    values = reduce_map(error, how)
    order = values.argsort(descending=True).tolist()
    order = order if len(order) <= ROWS else order[: ROWS // 2] + order[-ROWS // 2 :]
    columns: list[tuple[str, Any]] = [("held-out image", pictures.transpose(0, 2, 3, 1))]
    if denoiser.space != "features":
        columns += [(f"noised, t = {share:g} T", _pictures(denoiser, noised))]
        columns += [(f"predicted, mean of {DRAWS}", _pictures(denoiser, z_hat.mean(1)))]
    maps = [("error E", error.numpy()), ("variance V", variance.numpy())]
    columns += maps if denoiser.space == "features" else maps[:1]
    figure = Figure(figsize=(2.2 * len(columns), 2.2 * len(order)), layout="constrained")
    axes = figure.subplots(len(order), len(columns), squeeze=False)
    for row, i in enumerate(order):
        for column, (title, content) in enumerate(columns):
            axis = axes[row, column]
            axis.set_xticks([])
            axis.set_yticks([])
            if content.ndim == 3:  # a map: one scale for all images, so that rows can be compared
                axis.imshow(content[i], cmap="magma", vmin=0, vmax=float(np.quantile(content, 0.999)) or 1.0)
            else:
                axis.imshow(content[i])
            if row == 0:
                axis.set_title(title, fontsize=9)
        axes[row, 0].set_ylabel(f"{how} E {values[i]:.2f}", fontsize=8)
    figure.savefig(path, dpi=80)


def _pictures(denoiser: Denoiser, z: Tensor) -> np.ndarray:
    """(B, H, W, 3) uint8 of latents."""
    x = z if denoiser.space == "pixels" else autoencoder_picture(denoiser.coder, z)
    x = ((x.expand(-1, 3, -1, -1) + 1) * 127.5).clamp(0, 255).round().byte()
    return x.permute(0, 2, 3, 1).numpy()


def draw_curve(curve: list[dict[str, float]], best_step: int, guard: float, path: Path) -> None:
    """PNG of training and held-out loss over the steps; the guard's level is thick, the kept weights a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    steps = [row["step"] for row in curve]
    axis.plot(steps, [row["train"] for row in curve], color="gray", linestyle=":", label="training, all t")
    for name in (k for k in curve[0] if k.startswith("t=")):
        width = 2.5 if name == f"t={guard:g}" else 1
        axis.plot(steps, [row[name] for row in curve], linewidth=width, label=f"held out, {name} T")
    axis.axvline(best_step, color="black", linewidth=0.8, label=f"kept: step {best_step}")
    axis.set_xlabel("step")
    axis.set_ylabel("mean squared error of the prediction")
    axis.set_yscale("log")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)
