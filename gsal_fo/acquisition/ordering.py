"""From scores to an order: ties by id, draws set by the seed and the id alone, images without detections last."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gsal_fo.acquisition.base import Pool, Ranked
from gsal_fo.acquisition.detections import Detections


def best_first(score: np.ndarray, ids: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
    """Rows (R,) int64 of finite scores, highest first; equal scores by id, smallest first, or by row without ids.

    Raises ValueError if there is not one id per row.
    """
    if ids is not None and len(ids) != len(score):
        raise ValueError(f"ids must hold one id per row, {len(score)} in all; got {len(ids)}")
    rows = np.flatnonzero(np.isfinite(score))
    order = rows[np.argsort(-score[rows], kind="stable")]
    if ids is None or len(order) < 2:
        return order
    same = score[order[1:]] == score[order[:-1]]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))  # only these need their ids compared
    run = np.cumsum(~np.append(False, same))[tied]
    order[tied] = order[tied][np.lexsort((np.asarray([str(ids[row]) for row in order[tied]]), run))]
    return order


def uniform(ids: np.ndarray, seed: int, *, purpose: str = "") -> np.ndarray:
    """(n,) float64 in [0, 1), set by the seed, the purpose and each id alone: neither order nor the rest of the pool
    acts on it."""
    keys = [f"{seed}:{purpose}:{i}".encode() for i in ids]
    raw = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in keys)
    return (np.frombuffer(raw, dtype="<u8") >> np.uint64(11)).astype(np.float64) / 2.0**53


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for one purpose of one seed."""
    digest = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def by_id(pool: Pool) -> np.ndarray:
    """(R,) the candidates' rows in the order of their ids: where a draw or a loop starts, whatever the rows' order."""
    rows = pool.rows
    return rows[np.argsort(pool.ids[rows].astype(str), kind="stable")]


def ranked_by(pool: Pool, score: np.ndarray, unit: str, *, reason: str, detail: Any = None) -> Ranked:
    """Candidates by a score; one whose score is not finite has no rank, for ``reason``."""
    kept = np.where(pool.candidates & np.isfinite(score), score, np.nan)
    lost = {int(row): reason for row in np.flatnonzero(pool.candidates & ~np.isfinite(score))}
    return Ranked(best_first(kept, pool.ids), kept, unit, lost, detail)


def ranked_by_detections(
    pool: Pool, score: np.ndarray, found: Detections, unit: str, seed: int, *, reason: str, detail: Any = None
) -> Ranked:
    """Candidates by a score of their detections; those without any score 0 and come after all others, in seeded random
    order. ``detail`` of the result is (found, detail).

    Source: STRATEGIES.md section 2.
    """
    has = found.has
    ranked = ranked_by(pool, np.where(has, score, 0.0), unit, reason=reason)
    assert ranked.score is not None
    with_any = best_first(np.where(has, ranked.score, np.nan), pool.ids)
    empty = np.flatnonzero(pool.candidates & ~has)
    empty = empty[np.lexsort((pool.ids[empty].astype(str), uniform(pool.ids[empty], seed, purpose="empty")))]
    return Ranked(np.concatenate([with_any, empty]), ranked.score, unit, ranked.unranked, (found, detail))
