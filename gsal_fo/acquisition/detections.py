"""Which proposals take part in a strategy that reads detections, and numbers of an image from numbers of its boxes."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Pool, Posterior

FLOOR = 0.05  # of the detection score: boxes below it take no part (STRATEGIES.md section 2)
DRAWN = ("detector", "field")  # sources whose proposals are guesses at a box; windows and whole images are not
AGGREGATES = ("sum", "mean", "max")


@dataclass(frozen=True)
class Detections:
    """The proposals that take part: ``place`` (J,) their positions in the pool's arrays, ``owner`` (J,) their rows,
    ``score`` (J,) confidences, ``starts`` (N + 1,) where each row's begin among them."""

    place: np.ndarray
    owner: np.ndarray
    score: np.ndarray
    starts: np.ndarray

    @property
    def has(self) -> np.ndarray:
        """(N,) bool: images with a detection."""
        return np.diff(self.starts) > 0

    def of(self, row: int) -> slice:
        """The image's detections among these."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))

    def image(self, values: np.ndarray, aggregate: str) -> np.ndarray:
        """(N,) float64: sum, mean or max of each image's values (J,); 0 where it has none."""
        counts = np.diff(self.starts)
        n = len(counts)
        if aggregate == "max":
            out = np.full(n, -np.inf)
            np.maximum.at(out, self.owner, values)
            return np.where(counts > 0, out, 0.0)
        total = np.bincount(self.owner, weights=values, minlength=n)
        return total / np.maximum(counts, 1) if aggregate == "mean" else total


def detections(pool: Pool, *, floor: float = FLOOR) -> Detections:
    """The detections of all rows with a score of at least ``floor``."""
    found = pool.proposals
    owner = found.owner
    drawn = np.isin(found.source, DRAWN)[owner] if len(owner) else np.empty(0, dtype=bool)
    place = np.flatnonzero(drawn & np.isfinite(found.scores) & (found.scores >= floor))
    counts = np.bincount(owner[place], minlength=len(pool))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Detections(place, owner[place], found.scores[place].astype(np.float64), starts)


def class_entropy(posterior: np.ndarray) -> np.ndarray:
    """(J,) float64 entropy in nats of rows (J, C + 1)."""
    p = np.asarray(posterior, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p), 0.0)
    return -terms.sum(axis=-1)


def binary_entropy(score: np.ndarray) -> np.ndarray:
    """(J,) float64: -s log s - (1 - s) log(1 - s) in nats."""
    s = np.clip(np.asarray(score, dtype=np.float64), 0.0, 1.0)
    return class_entropy(np.stack([s, 1 - s], axis=-1))


def confidence(posterior: Posterior, place: np.ndarray) -> np.ndarray:
    """(J,) float64: the largest foreground probability of the proposals at ``place``."""
    return posterior.values[place, 1:].max(axis=1).astype(np.float64) if len(place) else np.empty(0)
