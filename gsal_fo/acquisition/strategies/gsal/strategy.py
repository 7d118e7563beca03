"""GSAL as a strategy: stored statistics, labels and constants in; scores, batches and reasons out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gsal_fo.acquisition.base import (
    ConceptColumns,
    Context,
    DifficultyColumns,
    Picks,
    Pool,
    Ranked,
    Reason,
    Statistic,
    Strategy,
)
from gsal_fo.acquisition.quotas import quotas
from gsal_fo.acquisition.strategies.gsal.ablations import ablation_of
from gsal_fo.acquisition.strategies.gsal.facts import gsal_facts
from gsal_fo.acquisition.strategies.gsal.greedy import greedy
from gsal_fo.acquisition.strategies.gsal.rationale import reason
from gsal_fo.acquisition.strategies.gsal.scores import Difficulty, Scores, difficulty, fuse, fused_score
from gsal_fo.acquisition.strategies.gsal.terms import terms
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams


@dataclass(frozen=True, kw_only=True)
class GsalRanked(Ranked):
    """A pool ranked by GSAL.

    ``scores`` as ``gsal_scores`` returns them, NaN for images that took no part; ``hard``: the part that no label
    changes; ``bonus`` (P,) rarity bonus; ``graph``, ``coverage`` and ``thresholds`` (tau per level) as in
    ``ConceptGraph``; ``params`` in force; ``detail``: facts of concepts that were worked out already.
    """

    scores: Scores
    hard: Difficulty
    bonus: np.ndarray
    graph: ConceptGraph
    params: GsalParams
    coverage: Mapping[str, int]
    thresholds: Mapping[str, int]


class Gsal(Strategy):
    """Difficulty by a diffusion model and rarity over a concept graph, fused (Eq. 2 to 10)."""

    name, title = "gsal", "GSAL"
    paper = "Hard to See, Hard to Label, arXiv:2604.22990"
    needs = frozenset({Statistic.PROPOSALS, Statistic.DIFFICULTY, Statistic.CONCEPTS})
    cost = "detector, diffusion and encoder passes"
    Params = GsalParams

    def __init__(self, params: GsalParams | None = None) -> None:
        super().__init__(params if params is not None else GsalParams(strategy=self.name))

    @property
    def byline(self) -> str:
        """The method itself needs no name."""
        return "" if type(self) is Gsal else f" by {self.name}"

    @property
    def settings(self) -> GsalParams:
        """The constants with the levels that the switches set."""
        levels = ablation_of(self.params).levels
        return self.params if levels is None else replace(self.params, levels=levels)

    def shown_graph(self, graph: ConceptGraph) -> ConceptGraph:
        """The graph that rarity is read from."""
        return graph

    def measured(self, pool: Pool) -> DifficultyColumns:
        """E and V that the ranking goes by."""
        return pool.difficulty

    def rank(self, pool: Pool, context: Context) -> GsalRanked:
        """By A of Eq. 2; means and deviations are those of the unlabeled images.

        Raises:
            ValueError: no graph, one that the concepts were not assigned from, or contrasts that are missing.
        """
        if context.graph is None:
            raise ValueError(f"strategy {self.name} needs a concept graph")
        graph, params = self.shown_graph(context.graph), self.settings
        fine = pool.concepts.fine
        if len(fine) and not -2 <= fine.min() <= fine.max() < len(graph.fine):
            raise ValueError(
                f"the run assigned concept {fine.max()}, and the graph {graph.name} has {len(graph.fine)} fine nodes; "
                "rank with the graph that the run was scored with"
            )
        coverage = graph.coverage(context.labels)
        hard = difficulty_of(pool, self.measured(pool), pool.concepts, graph, params)
        own = pool.difficulty
        finite = np.isfinite(own.error) & np.isfinite(own.variance)
        bonus = np.where(finite, bonus_table(graph, coverage, params, context.rules)[fine], 0.0)
        scores = fuse(hard, bonus, params, ids=pool.ids)
        scores = replace(scores, order=scores.order[pool.candidates[scores.order]])
        return GsalRanked(
            order=scores.order,
            score=scores.score,
            unit="score",
            unranked=_unranked(pool, scores),
            detail={},
            scores=scores,
            hard=hard,
            bonus=bonus,
            graph=graph,
            params=params,
            coverage=coverage,
            thresholds=graph.thresholds(coverage, params),
        )

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """The top; uniform quotas where the ablation says so; or greedy, coverage re-counted after each pick."""
        assert isinstance(ranked, GsalRanked)
        switches, params, fine = ablation_of(self.params), self.settings, pool.concepts.fine
        if switches.quotas:
            decisive = ranked.scores.decisive
            return Picks(quotas(ranked.order, np.where(decisive >= 0, fine[decisive], -1))[:budget])
        if params.batch == "static" or not switches.rarity:
            return Picks(ranked.order[:budget])
        pickable = np.zeros(len(pool), dtype=bool)
        pickable[ranked.order] = True
        owner = pool.proposals.owner

        def bonus_of(added: Mapping[int, int]) -> np.ndarray:
            labels = counted(context.labels, ranked.graph, added)
            return bonus_table(ranked.graph, ranked.graph.coverage(labels), params, context.rules)

        return Picks(greedy(budget, ranked.hard, bonus_of, fine, owner, params, pool.ids, pickable=pickable))

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The decisive proposal, what is rare about it, and how hard it and the image are."""
        assert isinstance(ranked, GsalRanked)
        return Reason(reason(gsal_facts(pool, ranked, row)), terms(ranked, row), adds_up=True)

    def quantities(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> tuple[tuple[str, float], ...]:
        """The score as it adds up, Eq. 10 and 2."""
        assert isinstance(ranked, GsalRanked)
        s, switches = ranked.scores, ablation_of(self.params)
        how = f"times lambda {self.params.lam:g}" if switches.difficulty else "alone"
        how = how if switches.rarity else "not used"
        found = {
            "image difficulty Z(D)": s.image[row],
            "proposal difficulty and bonus Z(L)": s.local[row],
            f"difficulty in all Z(G){'' if switches.difficulty else ', not used'}": s.difficulty[row],
            f"rarity Z(S), {how}": s.rarity[row],
            "score A": s.score[row],
        }
        return tuple((name, float(value)) for name, value in found.items())

    def passed_over(self, pool: Pool, context: Context, ranked: Ranked, picks: Sequence[int], row: int) -> str:
        """Term by term, by the quotas, or by the scores of the greedy batch's last turn."""
        assert isinstance(ranked, GsalRanked)
        last, switches = int(picks[-1]), ablation_of(self.params)
        place = {int(r): k for k, r in enumerate(ranked.order)}
        if switches.quotas and place[row] < place[last]:
            concepts = [gsal_facts(pool, ranked, r).get("fine") for r in (row, *picks)]
            what = f'"{concepts[0]}"' if concepts[0] else "no concept"
            same = sum(c == concepts[0] for c in concepts[1:])
            return f"each concept has the same quota, and {same} of the {len(picks)} picks are {what} already"
        if self.settings.batch == "greedy" and switches.rarity:
            return self._greedy_turn(pool, context, ranked, picks, row)
        mine, its = float(ranked.scores.score[row]), float(ranked.scores.score[last])
        if mine == its:
            return f"its score {mine:+.2f} is that of the last pick, {pool.ids[last]}, whose id comes first"
        return f"its score {mine:+.2f} is below the {its:+.2f} of the last pick, {pool.ids[last]}" + (
            self._difference(ranked, row, last) if switches.rarity and switches.difficulty else ""
        )

    def _difference(self, ranked: GsalRanked, row: int, last: int) -> str:
        """Where the difference comes from: Eq. 2 term by term."""
        hard = ranked.scores.difficulty[row] - ranked.scores.difficulty[last]
        rare = self.params.lam * (ranked.scores.rarity[row] - ranked.scores.rarity[last])
        return f" (difficulty {hard:+.2f}, rarity {rare:+.2f})"

    def _greedy_turn(self, pool: Pool, context: Context, ranked: GsalRanked, picks: Sequence[int], row: int) -> str:
        """The two at the turn of the last pick, the concepts of the picks before it counted as labeled."""
        turn, last = self.scores_after(pool, context, ranked, picks[:-1]), int(picks[-1])
        before = f"{float(ranked.scores.score[row]):+.2f} before the batch"
        then = f"with the concepts of the {len(picks) - 1} picks before the last counted as labeled"
        mine = f"{then} it scores {turn[row]:+.2f} ({before})"
        if turn[row] == turn[last]:
            return f"{mine}, as the last pick, {pool.ids[last]}, whose id comes first"
        return f"{mine}, and the last pick, {pool.ids[last]}, {turn[last]:+.2f}"

    def scores_after(self, pool: Pool, context: Context, ranked: GsalRanked, picks: Sequence[int]) -> np.ndarray:
        """A (N,) once each concept of each of ``picks`` counts as labeled once more, as the greedy batch counts."""
        fine, owner = pool.concepts.fine, pool.proposals.owner
        added: dict[int, int] = {}
        for pick in picks:
            for index in {int(f) for f in fine[ranked.hard.used[owner[ranked.hard.used] == pick]] if f >= 0}:
                added[index] = added.get(index, 0) + 1
        labels = counted(context.labels, ranked.graph, added)
        table = bonus_table(ranked.graph, ranked.graph.coverage(labels), self.settings, context.rules)
        return fused_score(ranked.hard, table[fine], self.settings)


def counted(labels: Mapping[str, int], graph: ConceptGraph, added: Mapping[int, int]) -> dict[str, int]:
    """Labels per fine node with some more by index."""
    return {name: labels.get(name, 0) + added.get(i, 0) for i, name in enumerate(graph.fine)}


def bonus_table(graph: ConceptGraph, coverage: Mapping[str, int], params: GsalParams, rules: int) -> np.ndarray:
    """Bonus by assigned index (F + 2,): the fine nodes, then unmatched (index -2) and background (index -1, always 0).

    Unmatched counts as a fine node that nobody has labeled, where ``levels`` counts fine nodes at all.
    """
    bonus = graph.bonus(coverage, params)
    unmatched = params.unmatched == "rare" and (rules < 2 or "F" in params.levels)
    return np.array([*(bonus[name] for name in graph.fine), float(unmatched), 0.0])


def difficulty_of(
    pool: Pool, own: DifficultyColumns, concepts: ConceptColumns, graph: ConceptGraph, params: GsalParams
) -> Difficulty:
    """``difficulty`` over the unlabeled images alone, its rows and positions put back into those of the pool."""
    kept, found = pool.unlabeled, pool.proposals
    every = found.owner
    rows, positions = np.flatnonzero(kept), np.flatnonzero(kept[every])
    families = sorted({graph.coarse_of(name) for name in graph.fine})
    family = np.array([*(families.index(graph.coarse_of(name)) for name in graph.fine), -1, -1])[concepts.fine]
    owner = (np.cumsum(kept) - 1)[every[positions]]
    contrast = own.image_contrast[rows], own.contrast[positions]
    if params.correct != "none" and any(len(c) and not np.isfinite(c).any() for c in contrast):
        raise ValueError(
            f'correct="{params.correct}" needs the contrast of images and boxes, which this scoring did not store; '
            'score again, or rank with correct="none"'
        )
    part = difficulty(
        own.image_error[rows],
        own.image_variance[rows],
        owner,
        own.error[positions],
        own.variance[positions],
        params,
        image_group=_majority(owner, family[positions], len(rows), len(families)),
        proposal_group=family[positions],
        image_covariates=(contrast[0],),
        proposal_covariates=(found.boxes[positions, 2] * found.boxes[positions, 3], contrast[1]),
    )
    image, proposal = np.full(len(pool), np.nan), np.full(len(concepts.fine), np.nan)
    image[rows], proposal[positions] = part.image, part.proposal
    return Difficulty(
        image=image, proposal=proposal, used=positions[part.used], rows=rows[part.rows], starts=part.starts
    )


def _majority(owner: np.ndarray, group: np.ndarray, n: int, groups: int) -> np.ndarray:
    """(n,) the group that most proposals of each image are of, the first in a tie; -1 where none has one."""
    known = group >= 0
    votes = np.bincount(owner[known] * groups + group[known], minlength=n * groups).reshape(n, groups)
    return np.where(votes.any(1), votes.argmax(1), -1)


def _unranked(pool: Pool, scores: Scores) -> dict[int, str]:
    own = pool.difficulty
    finite = np.isfinite(own.image_error) & np.isfinite(own.image_variance)
    reasons = ("no proposal has a finite difficulty", "the difficulty of the image is not finite")
    return {int(row): reasons[int(not finite[row])] for row in scores.unranked if pool.candidates[row]}
