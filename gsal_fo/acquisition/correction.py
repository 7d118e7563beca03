"""Difficulty without what size and texture explain: the residual of log E on log box area and log local contrast.

Optional (``GsalParams.correct``): a busy or a large crop is harder to reconstruct whether it holds a defect or not.
"""

import numpy as np

HUBER = 1.345  # of the residuals' robust standard deviation: beyond it a point pulls with constant force
MAD_TO_SD = 1.4826  # median absolute deviation of a normal distribution to its standard deviation
ROUNDS = 50
FLOOR = 1e-12  # below, a statistic, an area or a contrast counts as this: log of 0


def local_contrast(gray: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Mean absolute difference between neighboring pixels, right and down, inside boxes: how busy they are.

    Args:
        gray: image (H, W), any range; H, W >= 2.
        boxes: (N, 4) ``xywh_rel``.

    Returns:
        (N,) float32 >= 0, in the unit of ``gray`` per pixel. A box thinner than a pixel reads the pixel that it is in.
    """
    g = np.asarray(gray, dtype=np.float64)
    if g.ndim != 2 or min(g.shape) < 2:
        raise ValueError(f"gray must be an image (H, W) of at least 2 x 2 pixels; got shape {g.shape}")
    height, width = g.shape
    step = np.zeros_like(g)
    step[:, :-1] += np.abs(np.diff(g, axis=1))
    step[:-1] += np.abs(np.diff(g, axis=0))
    total = np.zeros((height + 1, width + 1))
    total[1:, 1:] = step.cumsum(0).cumsum(1)
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    x0 = np.clip(np.floor(b[:, 0] * width).astype(int), 0, width - 1)
    y0 = np.clip(np.floor(b[:, 1] * height).astype(int), 0, height - 1)
    x1 = np.clip(np.ceil((b[:, 0] + b[:, 2]) * width).astype(int), x0 + 1, width)
    y1 = np.clip(np.ceil((b[:, 1] + b[:, 3]) * height).astype(int), y0 + 1, height)
    inside = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
    return (np.maximum(inside, 0) / ((x1 - x0) * (y1 - y0))).astype(np.float32)


def residual(values: np.ndarray, *covariates: np.ndarray) -> np.ndarray:
    """What a power law in the covariates leaves of log ``values``: ``log E - (a + sum_k b_k log x_k)``.

    The coefficients are Huber's M-estimate over the pool (iteratively reweighted least squares from the least squares
    fit, scale by the median absolute deviation in each round), so that the few hard ones do not bend the law.

    Args:
        values: E or V (N,), >= 0. Non-finite ones stay NaN and are left out, and so are those with a non-finite
            covariate.
        covariates: (N,) each, >= 0, such as box area and local contrast. One that is constant explains nothing.

    Returns:
        (N,) float64, natural log; 0 = as hard as its size and texture suggest. Higher = harder. Any factor on
        ``values`` or a covariate changes nothing.

    Source: Huber 1981, Robust Statistics, section 7; the form of the law is our choice (docs/difficulty.md).
    """
    y = _log(values)
    columns = [_log(x) for x in covariates]
    if any(c.shape != y.shape for c in columns):
        raise ValueError(f"covariates must have the shape of values, {y.shape}; got {[c.shape for c in columns]}")
    good = np.isfinite(y) & np.all([np.isfinite(c) for c in columns], axis=0) if columns else np.isfinite(y)
    out = np.full(y.shape, np.nan)
    if not good.any():
        return out
    centered = [c[good] - c[good].mean() for c in columns if np.ptp(c[good]) > 0]
    design = np.stack([np.ones(int(good.sum())), *(c / c.std() for c in centered)], 1)
    out[good] = y[good] - design @ _huber(design, y[good])
    return out


def _log(values: np.ndarray) -> np.ndarray:
    v = np.asarray(values, dtype=np.float64)
    return np.log(np.where(np.isfinite(v), np.maximum(v, FLOOR), np.nan))


def _huber(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients (D,) of Huber's estimate."""
    fit = np.linalg.lstsq(design, y, rcond=None)[0]
    for _ in range(ROUNDS):
        left = y - design @ fit
        scale = MAD_TO_SD * np.median(np.abs(left - np.median(left)))
        if scale < FLOOR:  # at least half lies on the law already
            break
        root = np.sqrt(np.minimum(1.0, HUBER * scale / np.maximum(np.abs(left), FLOOR)))
        better = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
        done = np.abs(better - fit).max() < 1e-10
        fit = better
        if done:
            break
    return fit
