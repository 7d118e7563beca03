"""Error maps of a run folder as pictures on one scale: where the diffusion model struggles."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gsal_fo.run_folder import shards

BLACK, WHITE = 0.98, 0.995  # quantiles: of a map's cells that stay black, of the maps' maxima that are not yet white


def read(run: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Id and E per cell (h, w) float32 of every image that has a map; one part in memory at a time."""
    for row in shards.iter_rows(run, "difficulty"):
        if row["map"] is not None and len(row["map"]) and row["map_width"]:
            yield row["id"], row["map"].astype(np.float32).reshape(-1, row["map_width"])


def scale(run: Path) -> tuple[float, float]:
    """Black and white, as logarithms: what 98 % of the cells of the median image stay below, and almost all maxima."""
    facts = [(np.nanquantile(m, BLACK), np.nanmax(m)) for _, m in read(run) if np.isfinite(m).any()]
    if not facts:
        return 0.0, 1.0
    usual, maxima = _log(np.array(facts)).T
    low, high = float(np.median(usual)), float(np.quantile(maxima, WHITE))
    return low, max(high, low + 1e-6)


def gray(cells: np.ndarray, low: float, high: float) -> np.ndarray:
    """Cells (h, w) as uint8, 0 at ``low`` and 255 at ``high``, both logarithms; a cell that is no number is black.

    Errors span three powers of ten: on a linear scale the few worst images would leave all others black.
    """
    share = np.nan_to_num((_log(cells) - low) / (high - low), nan=0.0).clip(0, 1)
    return (share * 255).round().astype(np.uint8)


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, 1e-12))
