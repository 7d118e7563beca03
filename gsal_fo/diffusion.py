"""Diffusion math shared by every denoiser: reconstruction error E, denoising variance V, maps, and noise (METHOD.md
section 4).

Letters: ``z`` clean latent, ``z_hat`` its K predictions, ``t`` diffusion step, ``alpha_bar`` the cumulative product
of 1 - beta.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

TOP_SHARE = 0.05  # "topk": the mean over this share of the cells


def reconstruction_maps(z: Tensor, z_hat: Tensor) -> tuple[Tensor, Tensor]:
    """Per-cell error and variance.

    Args:
        z: clean latents (B, C, H, W), float.
        z_hat: K predictions of each (B, K, C, H, W).

    Returns:
        E and V maps, (B, H, W) each, float >= 0, unitless: the mean over channels of ``(z - zbar)^2`` and of the
        population variance over the K draws. Higher = harder. Their mean over cells is Eq. 5 and Eq. 6.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if z.ndim != 4 or z_hat.ndim != 5 or z_hat.shape[:1] + z_hat.shape[2:] != z.shape or not z_hat.shape[1]:
        raise ValueError(
            "z must be (B, C, H, W) and z_hat (B, K, C, H, W) with K >= 1; "
            f"got {tuple(z.shape)} and {tuple(z_hat.shape)}"
        )
    mean = z_hat.mean(1)  # (B, C, H, W)
    return (z - mean).square().mean(1), (z_hat - mean[:, None]).square().mean((1, 2))


def reconstruction_statistics(z: Tensor, z_hat: Tensor) -> tuple[Tensor, Tensor]:
    """E (Eq. 5) and V (Eq. 6), (B,) each; ``E + V`` is the mean squared error over the K draws. Shapes as
    ``reconstruction_maps``."""
    error, variance = reconstruction_maps(z, z_hat)
    return error.flatten(1).mean(1), variance.flatten(1).mean(1)


def _antithetic(half: Tensor) -> Tensor:
    return torch.stack([half, -half], 1).flatten(0, 1)  # eps_0, -eps_0, eps_1, -eps_1, ...


def _generator(*key: object) -> torch.Generator:
    text = ":".join(str(k) for k in key)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(seed)


def shared_noise(draws: int, shape: Sequence[int], *, seed: int) -> Tensor:
    """Standard normal noise (K, *shape), the same for every image, in antithetic pairs: common random numbers.

    Raises ValueError when ``draws`` is odd or below 2. Drawn on the CPU, so that every device sees the same numbers.
    """
    if draws < 2 or draws % 2:
        raise ValueError(f"draws must be even and at least 2, because noise comes in antithetic pairs; got {draws}")
    pairs = [torch.randn(tuple(shape), generator=_generator(seed, k, *shape)) for k in range(draws // 2)]
    return _antithetic(torch.stack(pairs))


def per_sample_noise(keys: Sequence[str], draws: int, shape: Sequence[int], *, seed: int) -> Tensor:
    """Standard normal noise (B, K, *shape) in antithetic pairs, set by (seed, key, draw) alone.

    A key names one image or one crop, for example ``"<sample id>"`` or ``"<sample id>:<box>"``.
    """
    if draws < 2 or draws % 2:
        raise ValueError(f"draws must be even and at least 2, because noise comes in antithetic pairs; got {draws}")
    rows = []
    for key in keys:
        pairs = [torch.randn(tuple(shape), generator=_generator(seed, key, k, *shape)) for k in range(draws // 2)]
        rows.append(_antithetic(torch.stack(pairs)))
    return torch.stack(rows)


def ddim_times(t: int, steps: int) -> list[int]:
    """``steps`` time steps from ``t`` down, evenly spaced and above 0: where the model is called."""
    return [round(t * (steps - i) / steps) for i in range(steps)]


def denoise(
    z: Tensor, noise: Tensor, *, t: int, steps: int, alpha_bar: Tensor, predict_x0: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """The model's clean predictions from noised latents.

    Args:
        z: clean latents (B, C, H, W).
        noise: (K, C, H, W), the same draws for all, or (B, K, C, H, W).
        t: diffusion step in [0, T).
        steps: 1 predicts once at ``t``; more walk deterministic DDIM (eta = 0) steps down to 0.
        alpha_bar: (T,) cumulative product of 1 - beta.
        predict_x0: maps noised latents (N, C, H, W) and the step to the clean prediction, same shape.

    Returns:
        (B, K, C, H, W). All draws of all latents go through the model in one call per step.

    Source: Ho et al. 2020 (arXiv:2006.11239) Eq. 4; Song et al. 2021 (arXiv:2010.02502) Eq. 12 with sigma = 0.
    """
    if not 0 <= t < len(alpha_bar):
        raise ValueError(f"t must be in [0, {len(alpha_bar)}), the model's diffusion steps; got {t}")
    noise = noise.to(z).expand(len(z), *noise.shape[-4:])  # (B, K, C, H, W)
    a = alpha_bar[t]
    x_t = (a.sqrt() * z[:, None] + (1 - a).sqrt() * noise).flatten(0, 1)  # (B K, C, H, W)
    times = ddim_times(t, steps)
    x0 = x_t
    for now, following in zip(times, [*times[1:], None], strict=True):
        x0 = predict_x0(x_t, now)
        if following is not None:
            a, b = alpha_bar[now], alpha_bar[following]
            eps = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
            x_t = b.sqrt() * x0 + (1 - b).sqrt() * eps
    return x0.unflatten(0, noise.shape[:2])


def reduce_map(values: Tensor, how: str) -> Tensor:
    """One number (B,) per map (B, H, W): "mean" (Eq. 5, 6), "max", or "topk", the mean of the largest 5 % of the
    cells."""
    flat = values.flatten(1)
    if how == "mean":
        return flat.mean(1)
    if how == "max":
        return flat.amax(1)
    if how == "topk":
        return flat.topk(max(1, round(TOP_SHARE * flat.shape[1])), dim=1).values.mean(1)
    raise ValueError(f"reduce must be mean, max or topk; got {how!r}")


def region_statistics(values: np.ndarray, boxes: np.ndarray, how: str) -> np.ndarray:
    """A map reduced inside boxes: ``regions="maps"``, no further model call.

    Args:
        values: map (H, W) of an image.
        boxes: (N, 4) ``xywh_rel``.
        how: "mean" (cells weighted by the area that the box covers of them), "max" or "topk" (over touched cells).

    Returns:
        (N,) float32. A box thinner than a cell reads the cells that it touches.
    """
    height, width = values.shape
    out = np.empty(len(boxes), dtype=np.float32)
    for i, (x, y, w, h) in enumerate(np.asarray(boxes, dtype=np.float64)):
        across, down = _overlap(x, x + w, width), _overlap(y, y + h, height)
        weight = down[:, None] * across[None, :]  # (H, W) share of each cell inside the box
        inside = values[weight > 0]
        if how == "mean":
            out[i] = (values * weight).sum() / weight.sum()
        elif how == "max":
            out[i] = inside.max()
        elif how == "topk":
            out[i] = np.sort(inside)[-max(1, round(TOP_SHARE * inside.size)) :].mean()
        else:
            raise ValueError(f"reduce must be mean, max or topk; got {how!r}")
    return out


def _overlap(low: float, high: float, cells: int) -> np.ndarray:
    """Share of each of ``cells`` equal cells of [0, 1] that [low, high] covers; a point covers the cell that it is
    in."""
    edges = np.arange(cells + 1) / cells
    cover = np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)
    if not (cover > 1e-9).any():
        cover[min(cells - 1, max(0, int((low + high) / 2 * cells)))] = 1.0
    return np.where(cover > 1e-9, cover, 0.0)
