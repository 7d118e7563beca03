"""Why GSAL ranks an image where it does, as plain values (docs/method.md section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gsal_fo.acquisition.base import Pool
from gsal_fo.acquisition.strategies.gsal.ablations import ablation_of
from gsal_fo.acquisition.strategies.gsal.rationale import concept_facts

if TYPE_CHECKING:
    from gsal_fo.acquisition.strategies.gsal.strategy import GsalRanked


def gsal_facts(pool: Pool, ranked: GsalRanked, row: int) -> dict[str, Any]:
    """JSON-able; None where there is no number.

    ``strategy``, ``seed``, ``difficulty_sd`` Z(G), ``rarity_sd`` Z(S), ``local_sd`` Z(L), ``image_sd`` Z(D),
    ``source``, ``screened`` (False: a screen left its crops out, and its proposals' difficulty comes from its map),
    ``rarity_rule``, ``uses_rarity``; where the image has a decisive proposal: ``proposal`` (1 is the image's first),
    ``box`` xywh_rel, ``detector_score``, ``proposal_sd`` Z(d), ``bonus``, ``prob``, ``margin``, and what
    ``rationale.concept_facts`` says of its concept.
    """
    scores, params, found, concepts = ranked.scores, ranked.params, pool.proposals, pool.concepts
    facts: dict[str, Any] = {
        "strategy": params.strategy,
        "seed": params.seed,
        "difficulty_sd": number(scores.difficulty[row]),
        "rarity_sd": number(scores.rarity[row]),
        "local_sd": number(scores.local[row]),
        "image_sd": number(scores.image[row]),
        "source": str(found.source[row]),
        "screened": not pool.difficulty.estimated[row],
        "rarity_rule": params.rarity,
        "uses_rarity": ablation_of(params).rarity,
    }
    position = int(scores.decisive[row])
    if position < 0:
        return facts
    return {
        **facts,
        "proposal": position - int(found.starts[row]) + 1,
        "box": [float(v) for v in found.boxes[position]],
        "detector_score": number(found.scores[position]),
        "proposal_sd": number(scores.proposal[position]),
        "bonus": float(ranked.bonus[position]),
        "prob": number(concepts.prob[position]),
        "margin": number(concepts.margin[position]),
        **_concept(ranked, int(concepts.fine[position])),
    }


def _concept(ranked: GsalRanked, fine: int) -> dict[str, Any]:
    """``concept_facts`` of an assigned index, worked out once per index and ranking."""
    known = ranked.detail
    if fine not in known:
        known[fine] = concept_facts(fine, ranked.graph, ranked.coverage, ranked.thresholds, ranked.params)
    found: dict[str, Any] = known[fine]
    return found


def number(value: Any) -> float | None:
    """A plain float, None where it is not finite."""
    return float(value) if np.isfinite(value) else None
