"""The selection stage: stored statistics, the labels of today and the constants in; a ranking with its reasons out.

NumPy only. A rerun with other labels or constants costs seconds and no model call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gsal_fo.acquisition.picking import check_budget, entropy_scores, greedy, quotas, random_scores
from gsal_fo.acquisition.strategies.gsal.rationale import concept_facts, sentence
from gsal_fo.acquisition.strategies.gsal.scores import Difficulty, Scores, best_first, difficulty, fuse
from gsal_fo.acquisition.strategies.placebo import noise_difficulty, shuffled_graph
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams
from gsal_fo.run_folder.pool_columns import PoolTable, load_pool

__all__ = ["RULES", "PoolTable", "Ranking", "load_pool", "pick", "rank"]

# Which rules a ranking goes by; an entry of the ledger names them, so that older ones are derived as they were made.
# 1: crops that match no concept earn their bonus whatever ``levels`` says. 2: only where ``levels`` holds F.
RULES = 2


@dataclass(frozen=True)
class Ranking:
    """A ranked pool. Rows and positions are those of ``table``.

    ``labels``: label counts that coverage was made from; ``coverage``, ``thresholds`` (tau per level) and ``rare`` as
    in ``ConceptGraph``; ``bonus`` (P,) rarity bonus of each proposal; ``kept`` (N,) bool, the images whose means and
    standard deviations count; ``free`` (N,) bool, those of them that get a rank; ``pickable`` (N,) bool, those of them
    that a batch may take; ``scores`` as ``gsal_scores`` returns them, NaN for images that took no part, ``order``
    without those that get no rank. Under the baselines "entropy" and "random" ``scores.score`` is the entropy (nats) or
    the draw in [0, 1), and the rest is GSAL's.
    """

    table: PoolTable
    graph: ConceptGraph
    params: GsalParams
    labels: Mapping[str, int]
    coverage: Mapping[str, int]
    thresholds: Mapping[str, int]
    rare: Mapping[str, bool]
    bonus: np.ndarray
    kept: np.ndarray
    free: np.ndarray
    pickable: np.ndarray
    scores: Scores
    hard: Difficulty
    rules: int = RULES

    @property
    def order(self) -> np.ndarray:
        """Rows best first, without the unranked."""
        return self.scores.order

    @cached_property
    def choice(self) -> np.ndarray:
        """Rows that a batch may take, best first."""
        return self.order[self.pickable[self.order]]

    @cached_property
    def rank(self) -> np.ndarray:
        """(N,) int64: 1 for the best, 0 for an image without a rank."""
        out = np.zeros(len(self.table.ids), dtype=np.int64)
        out[self.order] = np.arange(1, len(self.order) + 1)
        return out

    @cached_property
    def unranked(self) -> dict[str, str]:
        """id -> reason of every image that was asked for and cannot be ranked, failed ones first."""
        rows = [int(row) for row in self.scores.unranked if self.kept[row]]
        return {**self.table.failed, **{str(self.table.ids[row]): self._reason(row) for row in rows}}

    def facts(self, row: int) -> dict[str, Any]:
        """Why this row has its rank: plain values for JSON, None where there is no number. Source: METHOD.md section 6.

        ``id``, ``rank`` (None when unranked, then ``reason``), ``ranked`` (how many are), ``score``, ``strategy``,
        ``seed``, ``entropy``, ``difficulty_sd`` Z(G), ``rarity_sd`` Z(S), ``local_sd`` Z(L), ``image_sd`` Z(D),
        ``screened`` (False: a screen left its crops out, and its proposals' difficulty is estimated from its map); of
        the decisive proposal: ``proposal`` (1 is the image's first), ``box`` xywh_rel, ``source``, ``detector_score``,
            ``proposal_sd``
        Z(d), ``bonus``, ``prob``, ``margin``, and what ``rationale.concept_facts`` says of its concept.
        """
        table, scores, params = self.table, self.scores, self.params
        facts: dict[str, Any] = {
            "id": str(table.ids[row]),
            "rank": int(self.rank[row]) or None,
            "ranked": len(self.order),
            "score": _number(scores.score[row]),
            "strategy": params.strategy,
            "seed": params.seed,
            "entropy": _number(table.entropy[row]),
            "difficulty_sd": _number(scores.difficulty[row]),
            "rarity_sd": _number(scores.rarity[row]),
            "local_sd": _number(scores.local[row]),
            "image_sd": _number(scores.image[row]),
            "source": str(table.source[row]),
            "screened": bool(table.screened[row]),
            "rarity_rule": params.rarity,
            "uses_rarity": params.strategy not in ("diffusion_only", "no_rarity"),
        }
        position = int(scores.decisive[row])
        if facts["rank"] is None or position < 0:
            return {**facts, "rank": None, "reason": self._reason(row)}
        return {
            **facts,
            "proposal": position - table.first_proposal(row) + 1,
            "box": [float(v) for v in table.boxes[position]],
            "detector_score": _number(table.proposal_score[position]),
            "proposal_sd": _number(scores.proposal[position]),
            "bonus": float(self.bonus[position]),
            "prob": _number(table.prob[position]),
            "margin": _number(table.margin[position]),
            **self.concept(int(table.fine[position])),
        }

    def sentence(self, row: int) -> str:
        """The facts of a row as one English sentence."""
        return sentence(self.facts(row))

    def concept(self, fine: int) -> dict[str, Any]:
        """``rationale.concept_facts`` of an assigned index, worked out once per index."""
        if fine not in self._concepts:
            self._concepts[fine] = concept_facts(fine, self.graph, self.coverage, self.thresholds, self.params)
        return self._concepts[fine]

    @cached_property
    def _concepts(self) -> dict[int, dict[str, Any]]:
        return {}

    def _reason(self, row: int) -> str:
        table = self.table
        if not self.kept[row]:
            return "it took no part in this ranking"
        if not self.free[row]:
            return "it was not to be picked in this ranking"
        if not (np.isfinite(table.image_error[row]) and np.isfinite(table.image_variance[row])):
            return "the difficulty of the image is not finite"
        if row in self.scores.unranked:
            return "no proposal has a finite difficulty"
        return "the detector gave it no class posterior"


def rank(
    table: PoolTable,
    graph: ConceptGraph,
    labels: Mapping[str, int],
    params: GsalParams | None = None,
    *,
    keep: np.ndarray | None = None,
    free: np.ndarray | None = None,
    pickable: np.ndarray | None = None,
    rules: int = RULES,
) -> Ranking:
    """Rank a scored pool with the labels that exist now.

    Z is over the current unlabeled pool (METHOD.md section 4): an image that a round has picked and nobody has labeled
    yet is unlabeled, and a view restricts what can be picked; neither changes the scores of the others.

    Args:
        table: what ``load_pool`` read.
        graph: the graph that the pool was scored with.
        labels: labeled instances per label; those outside the graph are ignored, so count them by CLIP first (METHOD.md
            section 1).
        params: constants, switches, strategy.
        keep: (N,) bool, the unlabeled images; means and standard deviations are taken over them alone. None: all.
        free: (N,) bool, those of them that get a rank: in no round yet. None: all of them.
        pickable: (N,) bool, those of them that ``pick`` may take. None: all of them.
        rules: of which ranking this is to be another; see ``RULES``.

    Raises:
        ValueError: if a mask does not fit the table, the table's concepts do not fit the graph, or the strategy is
            "entropy" and no detector ran.
    """
    params = params or GsalParams()
    n = len(table.ids)
    kept = _mask("keep", keep, np.ones(n, dtype=bool))
    ranked = _mask("free", free, kept)
    choice = _mask("pickable", pickable, ranked)
    if len(table.fine) and not -2 <= table.fine.min() <= table.fine.max() < len(graph.fine):
        raise ValueError(
            f"the run assigned concept {table.fine.max()}, and the graph {graph.name} has {len(graph.fine)} fine "
            "nodes; rank with the graph that the run was scored with"
        )
    measured = noise_difficulty(table, params.seed) if params.strategy == "noise_difficulty" else table
    if params.strategy == "shuffled_graph":
        graph = shuffled_graph(graph, params.seed)
    coverage = graph.coverage(labels)
    finite = np.isfinite(table.proposal_error) & np.isfinite(table.proposal_variance)
    bonus = np.where(finite, bonus_table(graph, coverage, params, rules)[table.fine], 0.0)
    hard = _difficulty_of(measured, graph, params, kept)
    scores = fuse(hard, bonus, params, ids=table.ids)
    if params.strategy in ("entropy", "random"):
        score = (
            random_scores(table.ids, hard.rows, params.seed)
            if params.strategy == "random"
            else entropy_scores(table.entropy, hard.rows)
        )
        scores = replace(scores, score=score, order=best_first(score, table.ids))
    scores = replace(scores, order=scores.order[ranked[scores.order]])
    return Ranking(
        table=table,
        graph=graph,
        params=params,
        labels=dict(labels),
        coverage=coverage,
        thresholds=graph.thresholds(coverage, params),
        rare=graph.rare(coverage, params),
        bonus=bonus,
        kept=kept,
        free=ranked,
        pickable=choice,
        scores=scores,
        hard=hard,
        rules=rules,
    )


def pick(ranking: Ranking, budget: int) -> list[int]:
    """Rows of the next batch in the order picked; ties go to the smallest id.

    ``params.strategy="no_rarity"`` fills uniform quotas over the decisive proposals' concepts;
    ``params.batch="greedy"`` re-counts coverage after each pick, where the strategy reads coverage; all else takes the
    top of the ranking.

    Raises ValueError if the budget is not in [1, images that can be picked].
    """
    params, table = ranking.params, ranking.table
    budget = check_budget(budget, len(ranking.choice))
    if params.strategy == "no_rarity":
        concept = np.where(ranking.scores.decisive >= 0, table.fine[ranking.scores.decisive], -1)
        return quotas(ranking.choice, concept)[:budget].tolist()
    reads_coverage = params.strategy not in ("diffusion_only", "no_rarity", "entropy", "random")
    if params.batch == "static" or not reads_coverage:
        return ranking.choice[:budget].tolist()

    def bonus_of(added: Mapping[int, int]) -> np.ndarray:
        names = ranking.graph.fine
        labels = {name: ranking.labels.get(name, 0) + added.get(i, 0) for i, name in enumerate(names)}
        return bonus_table(ranking.graph, ranking.graph.coverage(labels), params, ranking.rules)

    among = np.zeros(len(table.ids), dtype=bool)
    among[ranking.choice] = True
    picks = greedy(budget, ranking.hard, bonus_of, table.fine, table.proposal_image, params, table.ids, pickable=among)
    return picks.tolist()


def bonus_table(graph: ConceptGraph, coverage: Mapping[str, int], params: GsalParams, rules: int = RULES) -> np.ndarray:
    """Bonus by assigned index (F + 2,): the fine nodes, then unmatched (index -2) and background (index -1, always 0).

    Unmatched counts as a fine node that nobody has labeled, where ``levels`` counts fine nodes at all.
    """
    bonus = graph.bonus(coverage, params)
    unmatched = params.unmatched == "rare" and (rules < 2 or "F" in params.levels)
    return np.array([*(bonus[name] for name in graph.fine), float(unmatched), 0.0])


def _mask(name: str, given: np.ndarray | None, within: np.ndarray) -> np.ndarray:
    """``given`` where it is also ``within``; all of that where nothing is given."""
    if given is None:
        return within
    mask = np.asarray(given)
    if mask.shape != within.shape or mask.dtype != np.bool_:
        raise ValueError(
            f"{name} must be ({len(within)},) bool, one per image of the pool table; got {mask.shape} {mask.dtype}"
        )
    return mask & within


def _difficulty_of(table: PoolTable, graph: ConceptGraph, params: GsalParams, kept: np.ndarray) -> Difficulty:
    """``difficulty`` over the kept images alone, its rows and positions put back into those of the table."""
    rows, positions = np.flatnonzero(kept), np.flatnonzero(kept[table.proposal_image])
    families = sorted({graph.coarse_of(name) for name in graph.fine})
    family = np.array([*(families.index(graph.coarse_of(name)) for name in graph.fine), -1, -1])[table.fine]
    owner = (np.cumsum(kept) - 1)[table.proposal_image[positions]]
    contrast = table.image_contrast[rows], table.contrast[positions]
    if params.correct != "none" and any(len(c) and not np.isfinite(c).any() for c in contrast):
        raise ValueError(
            f'correct="{params.correct}" needs the contrast of images and boxes, which this scoring did not store; '
            'score again, or rank with correct="none"'
        )
    part = difficulty(
        table.image_error[rows],
        table.image_variance[rows],
        owner,
        table.proposal_error[positions],
        table.proposal_variance[positions],
        params,
        image_group=_majority(owner, family[positions], len(rows), len(families)),
        proposal_group=family[positions],
        image_covariates=(contrast[0],),
        proposal_covariates=(table.boxes[positions, 2] * table.boxes[positions, 3], contrast[1]),
    )
    image, proposal = np.full(len(table.ids), np.nan), np.full(len(table.fine), np.nan)
    image[rows], proposal[positions] = part.image, part.proposal
    return Difficulty(
        image=image, proposal=proposal, used=positions[part.used], rows=rows[part.rows], starts=part.starts
    )


def _majority(owner: np.ndarray, group: np.ndarray, n: int, groups: int) -> np.ndarray:
    """(n,) the group that most proposals of each image are of, the first in a tie; -1 where none has one."""
    known = group >= 0
    votes = np.bincount(owner[known] * groups + group[known], minlength=n * groups).reshape(n, groups)
    return np.where(votes.any(1), votes.argmax(1), -1)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
