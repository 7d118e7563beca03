"""Z-scores over the current unlabeled pool (Eq. 11), for all of it or per concept."""

import numpy as np

EPSILON = 1e-8  # added to the standard deviation, Eq. 11
FLAT = 1e-12  # below this standard deviation all values count as equal


def z_score(values: np.ndarray) -> np.ndarray:
    """``(s - mean) / (std + 1e-8)``.

    Args:
        values: (N,) of any unit. Non-finite ones stay NaN and are left out of mean and std.

    Returns:
        (N,) float64 in (population) standard deviations; all zero where std < 1e-12.

    Source: Eq. 11.
    """
    s = np.asarray(values, dtype=np.float64)
    good = np.isfinite(s)
    if not good.any():
        return np.full(s.shape, np.nan)
    mean, std = moments(s if good.all() else s[good])
    if std < FLAT:
        return np.where(good, 0.0, np.nan)
    return (np.where(good, s, np.nan) - mean) / (std + EPSILON)


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and population std of finite values; std exactly 0 for a constant, where rounding would leave a rest."""
    if values.min() == values.max():
        return float(values[0]), 0.0
    return float(values.mean()), float(values.std())


def z_score_by_group(values: np.ndarray, groups: np.ndarray, *, shrink: float) -> np.ndarray:
    """Z-scores with the mean and variance of each value's group, shrunk toward the pool's: "hard for its kind".

    Args:
        values: (N,) of any unit. Non-finite ones stay NaN and are left out.
        groups: (N,) whole numbers; a negative one means no group: the pool's mean and variance.
        shrink: k >= 0; a group of n values gets mean ``(n mean_g + k mean) / (n + k)``, and its variance likewise.

    Returns:
        (N,) float64, 0 where the shrunk std < 1e-12.

    Source: METHOD.md section 4, ``normalize="concept"``.
    """
    s, groups = np.asarray(values, dtype=np.float64), np.asarray(groups)
    good = np.isfinite(s)
    out = np.full(s.shape, np.nan)
    if not good.any():
        return out
    pool_mean, pool_std = moments(s[good])
    for group in np.unique(groups[good]):
        members = good & ((groups == group) if group >= 0 else (groups < 0))
        mean, variance = pool_mean, pool_std**2
        if group >= 0:
            n, (own_mean, own_std) = members.sum(), moments(s[members])
            mean = (n * own_mean + shrink * pool_mean) / (n + shrink)
            variance = (n * own_std**2 + shrink * variance) / (n + shrink)
        std = np.sqrt(variance)
        out[members] = 0.0 if std < FLAT else (s[members] - mean) / (std + EPSILON)
    return out
