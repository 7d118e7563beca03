"""From reconstruction statistics and rarity bonuses to a ranking: Eq. 7 to 10 and 2.

Letters: N images, P proposals; E error, V variance, D image difficulty, d proposal difficulty, b rarity bonus, u a
proposal's value, L local (pooled) value, G difficulty in all, S image rarity, A the score. Higher = more worth
labeling, throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gsal_fo.acquisition.correction import residual
from gsal_fo.acquisition.normalize import z_score, z_score_by_group
from gsal_fo.acquisition.ordering import best_first
from gsal_fo.acquisition.strategies.gsal.ablations import ablation_of, weights
from gsal_fo.config import GsalParams

CLIP_SD = 4.0  # Eq. 9: values are clipped at +-4 and shifted by 4, because a power mean needs values >= 0


Covariates = Sequence[np.ndarray]


@dataclass(frozen=True)
class Scores:
    """What ``gsal_scores`` returns; float64, in standard deviations over the pool, NaN for an unranked image or
    proposal.

    (N,): ``score`` A, ``difficulty`` Z(G), ``rarity`` Z(S), ``local`` Z(L), ``image`` Z(D), ``decisive`` int64
    position of the argmax proposal of u in the proposal arrays (-1 for an unranked image). ``order``: rows best first
    without the unranked. (P,): ``proposal`` Z(d), ``value`` u in [0, 8]. ``unranked``: rows without finite E and V, or
    without a proposal that has them. ``left_out``: positions of proposals without finite E, V and bonus, which nothing
    above has used.
    """

    score: np.ndarray
    difficulty: np.ndarray
    rarity: np.ndarray
    local: np.ndarray
    image: np.ndarray
    decisive: np.ndarray
    order: np.ndarray
    proposal: np.ndarray
    value: np.ndarray
    unranked: np.ndarray
    left_out: np.ndarray


@dataclass(frozen=True)
class Difficulty:
    """The part of a score that no label changes: Z(D_i) (N,), Z(d_ij) (P,), and which of both are in use.

    ``used`` (P,) positions of the proposals in use, sorted by image; ``rows`` (R,) their images; ``starts`` (R,) where
    each image's proposals begin in ``used``.
    """

    image: np.ndarray
    proposal: np.ndarray
    used: np.ndarray
    rows: np.ndarray
    starts: np.ndarray


def gsal_scores(
    image_error: np.ndarray,
    image_variance: np.ndarray,
    proposal_image: np.ndarray,
    proposal_error: np.ndarray,
    proposal_variance: np.ndarray,
    proposal_bonus: np.ndarray,
    params: GsalParams | None = None,
    *,
    ids: Sequence[str] | np.ndarray | None = None,
    image_group: np.ndarray | None = None,
    proposal_group: np.ndarray | None = None,
    image_covariates: Covariates = (),
    proposal_covariates: Covariates = (),
) -> Scores:
    """Score a pool.

    An image with non-finite E or V is unranked, and a proposal with a non-finite E, V or bonus is left out; an image
    that keeps no proposal is unranked too. What is unranked or left out takes part in no mean and no std [choice: so
    one broken image changes nobody else's score].

    Args:
        image_error: E of each image (N,).
        image_variance: V of each image (N,).
        proposal_image: row in [0, N) that each proposal belongs to (P,), in any order.
        proposal_error: E of each proposal (P,).
        proposal_variance: V of each proposal (P,).
        proposal_bonus: rarity bonus b of each proposal (P,), Eq. 4.
        params: constants; ``strategy`` may be "gsal" or an ablation ("no_rarity" quotas act in picking); any other
            scores as "gsal" here.
        ids: N sample ids that break ties of the score, smallest first; without them the lowest row comes first.
        image_group: (N,) coarse concept of each image as a whole number, negative for none: used, and needed, where
            ``params.normalize`` is "concept".
        proposal_group: (P,) the same for proposals.
        image_covariates: (N,) arrays whose power law is taken out of E and V, such as contrast: used, and needed, where
            ``params.correct`` is not "none". Where one is not finite, the image counts as if its E were not.
        proposal_covariates: (P,) arrays, the same for proposals.

    Raises:
        ValueError: if shapes do not fit, a proposal points outside [0, N), an image has no proposal, or groups or
            covariates are missing.

    Source: Eq. 2, 7 to 11 as in METHOD.md sections 4 and 5.
    """
    params = params or GsalParams()
    hard = difficulty(
        image_error,
        image_variance,
        proposal_image,
        proposal_error,
        proposal_variance,
        params,
        usable=np.isfinite(_floats(proposal_bonus)),
        image_group=image_group,
        proposal_group=proposal_group,
        image_covariates=image_covariates,
        proposal_covariates=proposal_covariates,
    )
    return fuse(hard, proposal_bonus, params, ids=ids)


def difficulty(
    image_error: np.ndarray,
    image_variance: np.ndarray,
    proposal_image: np.ndarray,
    proposal_error: np.ndarray,
    proposal_variance: np.ndarray,
    params: GsalParams,
    *,
    usable: np.ndarray | None = None,
    image_group: np.ndarray | None = None,
    proposal_group: np.ndarray | None = None,
    image_covariates: Covariates = (),
    proposal_covariates: Covariates = (),
) -> Difficulty:
    """Eq. 7 and 8: Z(D_i) and Z(d_ij). Arguments as in ``gsal_scores``; ``usable`` (P,) bool can leave out more."""
    e_i, v_i, e_ij, v_ij = map(_floats, (image_error, image_variance, proposal_error, proposal_variance))
    owner = np.asarray(proposal_image)
    n, count = len(e_i), len(owner)
    shapes = {len(v_i) == n, len(e_ij) == count, len(v_ij) == count, usable is None or len(usable) == count}
    if shapes != {True}:
        raise ValueError("image arrays must all be (N,) and proposal arrays all (P,); pass arrays of the same pool")
    if count and not (np.issubdtype(owner.dtype, np.integer) and owner.min() >= 0 and owner.max() < n):
        raise ValueError(f"proposal_image must hold rows in [0, {n}), the images given; got others")
    owned = np.bincount(owner, minlength=n) if count else np.zeros(n, dtype=np.int64)
    if (owned == 0).any():
        row = int(np.argmin(owned))
        raise ValueError(f"row {row} has no proposal; give an image without any its whole-image proposal first")
    if params.correct != "none":
        if not len(image_covariates) or not len(proposal_covariates):
            raise ValueError('correct="size_texture" needs image_covariates (N,) and proposal_covariates (P,)')
        e_i, v_i = (np.where(_all_finite(image_covariates), x, np.nan) for x in (e_i, v_i))
        e_ij, v_ij = (np.where(_all_finite(proposal_covariates), x, np.nan) for x in (e_ij, v_ij))
    good = np.isfinite(e_ij) & np.isfinite(v_ij)
    if usable is not None:
        good &= usable
    ranked = np.isfinite(e_i) & np.isfinite(v_i) & (np.bincount(owner[good], minlength=n) > 0)
    good &= ranked[owner]

    def z(values: np.ndarray, keep: np.ndarray, group: np.ndarray | None, covariates: Covariates) -> np.ndarray:
        values = np.where(keep, values, np.nan)
        if params.correct != "none":
            values = residual(values, *covariates)
        if params.normalize == "pool":
            return z_score(values)
        if group is None or len(group) != len(values):
            raise ValueError('normalize="concept" needs image_group (N,) and proposal_group (P,), the coarse concepts')
        return z_score_by_group(values, group, shrink=params.shrink)

    image, proposal = (
        params.alpha * z(e, keep, group, covariates) + params.beta * z(v, keep, group, covariates)
        for e, v, keep, group, covariates in (
            (e_i, v_i, ranked, image_group, image_covariates),
            (e_ij, v_ij, good, proposal_group, proposal_covariates),
        )
    )
    used = np.flatnonzero(good)
    if (np.diff(owner[used]) < 0).any():
        used = used[np.argsort(owner[used], kind="stable")]
    rows, starts = np.unique(owner[used], return_index=True)
    return Difficulty(image=z_score(image), proposal=z_score(proposal), used=used, rows=rows, starts=starts)


def fuse(
    hard: Difficulty, proposal_bonus: np.ndarray, params: GsalParams, *, ids: Sequence[str] | np.ndarray | None = None
) -> Scores:
    """Eq. 9, 10 and 2: rarity joins difficulty. ``proposal_bonus`` (P,) is read where ``hard.used`` says."""
    n, count = len(hard.image), len(hard.proposal)
    if len(_floats(proposal_bonus)) != count:
        raise ValueError(f"proposal_bonus must be ({count},), one per proposal; got {np.shape(proposal_bonus)}")
    used, rows, starts = hard.used, hard.rows, hard.starts
    raw, local, rarity, g, score = _combine(hard, _floats(proposal_bonus)[used], params)
    # The argmax before clipping is an argmax after it too, and tells apart the proposals that the clip makes equal.
    decisive = np.full(n, -1, dtype=np.int64)
    decisive[rows] = used[_first_argmax(raw, starts)]
    value = np.full(count, np.nan)
    value[used] = _shifted(raw)
    return Scores(
        score=score,
        difficulty=g,
        rarity=rarity,
        local=local,
        image=hard.image,
        decisive=decisive,
        order=best_first(score, ids),
        proposal=hard.proposal,
        value=value,
        unranked=np.flatnonzero(decisive < 0),
        left_out=np.flatnonzero(np.isnan(value)),
    )


def fused_score(hard: Difficulty, proposal_bonus: np.ndarray, params: GsalParams) -> np.ndarray:
    """A (N,) alone, for a loop that asks many times: the ``score`` of ``fuse``."""
    return _combine(hard, _floats(proposal_bonus)[hard.used], params)[-1]


def _combine(hard: Difficulty, b: np.ndarray, params: GsalParams) -> tuple[np.ndarray, ...]:
    """Of the proposals in use, with bonus ``b``: u before clip and shift; Z(L), Z(S), Z(G) and A of all images."""
    n, starts = len(hard.image), hard.starts
    gamma, lam, eta = weights(params)
    raw = hard.proposal[hard.used] + gamma * z_score(b)
    local = z_score(_spread(power_mean(_shifted(raw), starts, params.p), hard.rows, n))
    if params.image_rarity == "max":
        s = np.maximum.reduceat(b, starts) if len(starts) else b
    else:
        s = _sum(b, starts) / np.diff(starts, append=len(b))
    rarity = z_score(_spread(s, hard.rows, n))
    g = z_score(eta * local + (1 - eta) * hard.image)
    score = g + lam * rarity if ablation_of(params).difficulty else rarity
    return raw, local, rarity, g, score


def _shifted(raw: np.ndarray) -> np.ndarray:
    return np.clip(raw, -CLIP_SD, CLIP_SD) + CLIP_SD


def power_mean(values: np.ndarray, starts: np.ndarray, p: float) -> np.ndarray:
    """``(mean u^p)^(1/p)`` of each run of ``values`` (>= 0) that begins at ``starts``: p = 1 is the mean, large p the
    maximum.

    The run's maximum is taken out first, so that no power overflows or sinks to zero as a whole; ``p`` may be infinite.
    """
    if not len(starts):
        return np.empty(0)
    sizes = np.diff(starts, append=len(values))
    top = np.maximum.reduceat(values, starts)
    share = np.divide(values, np.repeat(top, sizes), out=np.zeros_like(values), where=np.repeat(top, sizes) > 0)
    return top * (_sum(share**p, starts) / sizes) ** (1 / p)


def _all_finite(arrays: Covariates) -> np.ndarray:
    return np.all([np.isfinite(_floats(a)) for a in arrays], axis=0)


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _spread(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    out = np.full(n, np.nan)
    out[rows] = values
    return out


def _sum(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) if len(starts) else np.empty(0)


def _first_argmax(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Position of the first maximum of each run."""
    if not len(starts):
        return np.empty(0, dtype=np.int64)
    top = np.flatnonzero(values == np.repeat(np.maximum.reduceat(values, starts), np.diff(starts, append=len(values))))
    return top[np.searchsorted(top, starts)]
