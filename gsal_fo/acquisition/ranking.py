"""The selection stage: stored statistics, the labels of today and the constants in; a ranking with its reasons out.

NumPy only. A rerun with other labels, constants or another strategy costs seconds and no model call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gsal_fo.acquisition import registry
from gsal_fo.acquisition.base import RULES, Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.stored import StoredStatistics
from gsal_fo.acquisition.strategies.gsal.facts import gsal_facts, number
from gsal_fo.acquisition.strategies.gsal.rationale import concept_facts
from gsal_fo.acquisition.strategies.gsal.scores import Difficulty, Scores
from gsal_fo.acquisition.strategies.gsal.strategy import Gsal, GsalRanked
from gsal_fo.acquisition.table_pool import pool_of
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams
from gsal_fo.run_folder.pool_columns import PoolTable, load_pool
from gsal_fo.user_files import shown

__all__ = ["RULES", "PoolTable", "Ranking", "check_budget", "load_pool", "rank"]


@dataclass(frozen=True)
class Ranking:
    """A ranked pool. Rows and positions are those of ``table``.

    ``params``: constants, strategy, its settings; ``labels``: label counts that coverage was made from; ``kept`` (N,)
    bool, the images whose means and standard deviations count; ``free`` (N,) bool, those of them that get a rank;
    ``pickable`` (N,) bool, those of them that a batch may take; ``ranked``: what the strategy made of the pool;
    ``gsal``: difficulty, rarity and concepts as GSAL sees them, shown whatever strategy ranks.
    """

    table: PoolTable
    params: GsalParams
    labels: Mapping[str, int]
    kept: np.ndarray
    free: np.ndarray
    pickable: np.ndarray
    strategy: Strategy
    pool: Pool
    context: Context
    ranked: Ranked
    gsal: GsalRanked

    @property
    def rules(self) -> int:
        """The rules that the ranking goes by."""
        return self.context.rules

    @property
    def scores(self) -> Scores:
        """GSAL's scores of images and proposals."""
        return self.gsal.scores

    @property
    def bonus(self) -> np.ndarray:
        """Rarity bonus of each proposal (P,)."""
        return self.gsal.bonus

    @property
    def hard(self) -> Difficulty:
        """The part of GSAL's scores that no label changes."""
        return self.gsal.hard

    @property
    def graph(self) -> ConceptGraph:
        """The graph that rarity was read from (a placebo shuffles it)."""
        return self.gsal.graph

    @property
    def coverage(self) -> Mapping[str, int]:
        """Labeled instances per node."""
        return self.gsal.coverage

    @property
    def thresholds(self) -> Mapping[str, int]:
        """tau per level."""
        return self.gsal.thresholds

    @cached_property
    def rare(self) -> dict[str, bool]:
        """Which nodes are rare by the quantile rule."""
        return self.graph.rare(self.coverage, self.params)

    @property
    def order(self) -> np.ndarray:
        """Rows best first, without the unranked."""
        return self.ranked.order

    @cached_property
    def score(self) -> np.ndarray:
        """(N,) float64, higher = label first, NaN without a rank: the strategy's own, or, of one that only builds
        batches, the share of the ranked images that come after the image."""
        if self.ranked.score is not None:
            return self.ranked.score
        out = np.full(len(self.table.ids), np.nan)
        out[self.order] = 1 - np.arange(len(self.order)) / max(1, len(self.order))
        return out

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
        return {**self.table.failed, **{str(self.table.ids[row]): why for row, why in self.ranked.unranked.items()}}

    @property
    def pickables(self) -> Ranked:
        """What the strategy made of the pool, with the order of what a batch may take."""
        return replace(self.ranked, order=self.choice)

    def reason(self, row: int) -> Reason:
        """Why a ranked row has its place."""
        return self.strategy.explain(self.declared, self.context, self.ranked, row)

    @cached_property
    def declared(self) -> Pool:
        """The pool with what the strategy declares and no more."""
        return self.pool.only(self.strategy.needed())

    def facts(self, row: int) -> dict[str, Any]:
        """Why this row has its rank: plain values for JSON, None where there is no number.

        ``id``, ``rank`` (None when unranked, then ``reason``), ``ranked`` (how many are), ``score``, ``unit``,
        ``entropy`` (the detector's, nats), and ``gsal_facts``, whatever strategy ranks. Source: docs/method.md, 6.
        """
        facts = {
            "id": str(self.table.ids[row]),
            "rank": int(self.rank[row]) or None,
            "ranked": len(self.order),
            "score": number(self.score[row]),
            "unit": self.ranked.unit,
            "entropy": number(self.table.entropy[row]),
            **gsal_facts(self.pool, self.gsal, row),
            "strategy": self.params.strategy,
        }
        return facts if facts["rank"] is not None else {**facts, "reason": self._why_unranked(row)}

    def sentence(self, row: int) -> str:
        """The place of a row and its reason as one English sentence.

        Example: ``rank 3 of 412, score +2.71: proposal 4 looks like "void" (subsurface; dark, round), labeled 2 times
        (rare at <= 3), and is +2.9 sd hard to reconstruct; the image as a whole is +1.1 sd.``
        """
        if not self.rank[row]:
            return f"not ranked: {self._why_unranked(row)}."
        place = f"rank {self.rank[row]} of {len(self.order)}{self.strategy.byline}"
        if isinstance(self.ranked, GsalRanked):
            place += f", score {self.score[row]:+.2f}"
        return f"{place}: {self.reason(row).sentence}."

    def concept(self, fine: int) -> dict[str, Any]:
        """``concept_facts`` of an assigned index."""
        gsal = self.gsal
        return concept_facts(fine, gsal.graph, gsal.coverage, gsal.thresholds, gsal.params)

    def _why_unranked(self, row: int) -> str:
        if not self.kept[row]:
            return "it took no part in this ranking"
        if not self.free[row]:
            return "it was not to be picked in this ranking"
        return self.ranked.unranked.get(row, "the strategy gives it no rank")


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
    more: Callable[[Statistic], Any] | None = None,
) -> Ranking:
    """Rank a scored pool with the labels that exist now, by the strategy that ``params`` names.

    Z is over the current unlabeled pool (docs/method.md section 4): an image that a round has picked and nobody has
    labeled yet is unlabeled, and a view restricts what can be picked; neither changes the scores of the others.

    Args:
        table: what ``load_pool`` read.
        graph: the graph that the pool was scored with.
        labels: labeled instances per label; those outside the graph are ignored, so count them by CLIP first
            (docs/method.md section 1).
        params: constants, strategy and its settings.
        keep: (N,) bool, the unlabeled images; means and standard deviations are taken over them alone. None: all.
        free: (N,) bool, those of them that get a rank: in no round yet. None: all of them.
        pickable: (N,) bool, those of them that ``pick`` may take. None: all of them.
        rules: of which ranking this is to be another; see ``RULES``.
        more: reads statistics that the table does not hold; None reads them from its run folder.

    Raises:
        ValueError: if a mask does not fit the table, the table's concepts do not fit the graph, or the strategy needs
            a statistic that the scoring did not make (StatisticMissing).
    """
    params = params or GsalParams()
    kept = _mask("keep", keep, np.ones(len(table.ids), dtype=bool))
    ranked_rows = _mask("free", free, kept)
    choice = _mask("pickable", pickable, ranked_rows)
    strategy = registry.of(params).as_of(rules)
    if more is None and table.run is not None:
        more = StoredStatistics(table.run, table)
    pool = pool_of(table, unlabeled=kept, candidates=ranked_rows, more=more)
    context = Context(labels=dict(labels), graph=graph, seed=params.seed, rules=rules)
    ranked = strategy.rank(pool.only(strategy.needed()), context)
    gsal = ranked if isinstance(ranked, GsalRanked) else Gsal(params).rank(pool, context)
    return Ranking(
        table=table,
        params=params,
        labels=dict(labels),
        kept=kept,
        free=ranked_rows,
        pickable=choice,
        strategy=strategy,
        pool=pool,
        context=context,
        ranked=ranked,
        gsal=gsal,
    )


def check_budget(budget: int, rankable: int) -> int:
    """The budget, if it is a whole number in [1, rankable]; raises ValueError otherwise."""
    if rankable == 0:
        raise ValueError(
            "no image of the pool can be ranked, so none can be picked; see the reasons of the unranked ones"
        )
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or not 1 <= budget <= rankable:
        raise ValueError(
            f"budget must be a whole number in [1, {rankable}], the images that can be ranked; got {shown(budget)}"
        )
    return int(budget)


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
