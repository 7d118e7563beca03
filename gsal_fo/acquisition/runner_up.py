"""Why the best image that was not picked was not: the comparison with the last pick, under every strategy."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gsal_fo.acquisition.picking import check_budget
from gsal_fo.acquisition.ranking import Ranking, rank


def best_left(ranking: Ranking, rows: Sequence[int]) -> int | None:
    """The best row that could be picked and is not among the picks; None where all of them were picked."""
    left = ranking.choice[~np.isin(ranking.choice, rows)]
    return int(left[0]) if len(left) else None


def reason(ranking: Ranking, rows: Sequence[int]) -> str:
    """One sentence about ``best_left`` and the last of ``rows``, the picks in order.

    Raises ValueError where nothing was picked.
    """
    check_budget(len(rows), len(ranking.choice))
    row = best_left(ranking, rows)
    if row is None:
        return f"all {len(rows)} images that could be picked were picked."
    table, params, last = ranking.table, ranking.params, rows[-1]
    name, place = str(table.ids[row]), int(ranking.rank[row])
    mine, its = float(ranking.scores.score[row]), float(ranking.scores.score[last])
    start = f"{name}, rank {place}, was not picked: "
    if params.strategy == "no_rarity" and place < int(ranking.rank[last]):
        concept = ranking.facts(row)
        what = f'"{concept["fine"]}"' if concept.get("fine") else "no concept"
        same = sum(ranking.facts(r).get("fine") == concept.get("fine") for r in rows)
        return f"{start}each concept has the same quota, and {same} of the {len(rows)} picks are {what} already."
    if params.batch == "greedy" and params.strategy not in ("no_rarity", "entropy", "random", "diffusion_only"):
        return start + _greedy(ranking, rows, row)
    if mine == its:
        return f"{start}its score {mine:+.2f} is that of the last pick, {table.ids[last]}, whose id comes first."
    if params.strategy == "entropy":
        return f"{start}its entropy of {mine:.2f} nats is below the {its:.2f} of the last pick, {table.ids[last]}."
    if params.strategy == "random":
        return f"{start}it drew {mine:.4f}, below the {its:.4f} of the last pick, {table.ids[last]}."
    terms = _terms(ranking, row, last)
    return f"{start}its score {mine:+.2f} is below the {its:+.2f} of the last pick, {table.ids[last]}{terms}."


def _terms(ranking: Ranking, row: int, last: int) -> str:
    """Where the difference comes from: Eq. 2 term by term."""
    scores, params = ranking.scores, ranking.params
    if params.strategy in ("symbolic_only", "diffusion_only", "no_rarity"):
        return ""  # one term alone
    hard = scores.difficulty[row] - scores.difficulty[last]
    rare = params.lam * (scores.rarity[row] - scores.rarity[last])
    return f" (difficulty {hard:+.2f}, rarity {rare:+.2f})"


def _greedy(ranking: Ranking, rows: Sequence[int], row: int) -> str:
    """The two at the turn of the last pick, the concepts of the picks before it counted as labeled."""
    turn = greedy_scores(ranking, rows[:-1])
    last = rows[-1]
    before = f"{float(ranking.scores.score[row]):+.2f} before the batch"
    then = f"with the concepts of the {len(rows) - 1} picks before the last counted as labeled"
    mine = f"{then} it scores {turn[row]:+.2f} ({before})"
    if turn[row] == turn[last]:
        return f"{mine}, as the last pick, {ranking.table.ids[last]}, whose id comes first."
    return f"{mine}, and the last pick, {ranking.table.ids[last]}, {turn[last]:+.2f}."


def greedy_scores(ranking: Ranking, rows: Sequence[int]) -> np.ndarray:
    """Scores (N,) of the pool once each concept of each of ``rows`` counts as labeled once more.

    As the greedy batch counts: a concept once per picked image; means and standard deviations stay those of the pool.
    """
    table, labels = ranking.table, dict(ranking.labels)
    for row in rows:
        own = table.fine[ranking.hard.used[table.proposal_image[ranking.hard.used] == row]]
        for index in sorted({int(f) for f in own if f >= 0}):
            name = ranking.graph.fine[index]
            labels[name] = labels.get(name, 0) + 1
    # The ranking's graph is already the shuffled one where the placebo asked for it.
    plain = replace(ranking.params, strategy="gsal") if ranking.params.strategy == "shuffled_graph" else ranking.params
    return rank(table, ranking.graph, labels, plain, keep=ranking.kept, rules=ranking.rules).scores.score
