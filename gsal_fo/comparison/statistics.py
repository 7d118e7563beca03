"""What paired seeds say of strategies: areas under budget curves, intervals, paired tests with Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST = 6  # pairs from which Wilcoxon's test can fall below 0.05 at all: 2 / 2^6 = 0.031
TIE = 1e-12


@dataclass(frozen=True)
class Interval:
    """Mean of seeds with its 95 % interval by Student's t; ``low`` and ``high`` are NaN for a single seed."""

    mean: float
    low: float
    high: float
    worst: float
    count: int


def interval(values: Sequence[float]) -> Interval:
    """Of finite values, one per seed; raises ValueError where there is none."""
    x = np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64)
    if not len(x):
        raise ValueError("no seed has a value, so there is no mean")
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, float("nan"), float("nan"), mean, 1)
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, float(x.min()), len(x))


def area(x: Sequence[float], y: Sequence[float], *, low: float, high: float) -> float:
    """Mean height of a budget curve over ``[low, high]`` of its axis: the area under straight lines between its points,
    divided by the width.

    Args:
        x: budgets spent (images, boxes or minutes), rising.
        y: what was reached at each.
        low, high: the common part of the axis; the curve is flat outside its own points.

    Raises:
        ValueError: no point, points that do not rise, or no width.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if not len(a) or len(a) != len(b) or (np.diff(a) <= 0).any():
        raise ValueError("a budget curve needs points whose budgets rise; got other ones")
    if not high > low:
        raise ValueError(f"the axis must have a width; got [{low:g}, {high:g}]")
    inside = a[(a > low) & (a < high)]
    grid = np.concatenate([[low], inside, [high]])
    return float(np.trapezoid(np.interp(grid, a, b), grid) / (high - low))


@dataclass(frozen=True)
class Paired:
    """One strategy against another over the seeds that both have.

    ``difference``: mean and interval of the paired differences; ``p``: two-sided Wilcoxon signed-rank test, NaN below
    ``FEWEST`` pairs; ``adjusted``: after Holm's correction; ``wins``, ``ties``, ``losses`` by seed.
    """

    difference: Interval
    p: float
    adjusted: float
    wins: int
    ties: int
    losses: int

    @property
    def indicative(self) -> bool:
        """Too few seeds for a test: the numbers are a hint."""
        return self.difference.count < FEWEST


def paired(values: Mapping[str, Mapping[int, float]], reference: str) -> dict[str, Paired]:
    """Every other strategy against ``reference``.

    Args:
        values: strategy -> {seed: value}, higher = better.
        reference: the strategy that the others are compared with.

    Raises:
        ValueError: the reference is not among them, or shares no seed with a strategy.
    """
    if reference not in values:
        raise ValueError(f"{reference} was not compared; compared were {', '.join(sorted(values))}")
    base = values[reference]
    raw: dict[str, tuple[np.ndarray, float]] = {}
    for name in sorted(set(values) - {reference}):
        seeds = sorted(set(values[name]) & set(base))
        if not seeds:
            raise ValueError(f"{name} and {reference} share no seed; compare them with the same --seeds")
        difference = np.array([values[name][s] - base[s] for s in seeds])
        difference[np.abs(difference) <= TIE] = 0.0
        raw[name] = difference, wilcoxon(difference)
    adjusted = holm({name: p for name, (_, p) in raw.items()})
    return {
        name: Paired(
            interval(d.tolist()), p, adjusted[name], int((d > 0).sum()), int((d == 0).sum()), int((d < 0).sum())
        )
        for name, (d, p) in raw.items()
    }


def wilcoxon(difference: np.ndarray) -> float:
    """Two-sided p of paired differences; 1 where all are 0, NaN below ``FEWEST`` pairs."""
    if len(difference) < FEWEST:
        return float("nan")
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference, zero_method="pratt").pvalue)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p; NaN stays NaN and takes no part.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    known = sorted((v, k) for k, v in p.items() if np.isfinite(v))
    out = {k: float("nan") for k in p}
    highest = 0.0
    for place, (value, name) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - place)))
        out[name] = highest
    return out


def win_matrix(values: Mapping[str, Mapping[int, float]]) -> dict[str, dict[str, tuple[int, int, int]]]:
    """Strategy -> other -> (wins, ties, losses) over the seeds that both have."""
    out: dict[str, dict[str, tuple[int, int, int]]] = {}
    for a, mine in values.items():
        out[a] = {}
        for b, theirs in values.items():
            d = np.array([mine[s] - theirs[s] for s in mine if s in theirs])
            out[a][b] = int((d > TIE).sum()), int((np.abs(d) <= TIE).sum()), int((d < -TIE).sum())
    return out
