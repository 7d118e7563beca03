"""Why the best image that was not picked was not: each strategy's sentence against numbers worked out here."""

from pathlib import Path

import numpy as np
import pytest
from runs import graph, image, write_run

from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.acquisition.runner_up import best_left, reason
from gsal_fo.config import GsalParams

LABELS = {"crack": 5, "dent": 9, "void": 1}


def ranked(folder: Path, fines: list[list[int]], labels: dict[str, int] | None = None, **params):
    rng = np.random.default_rng(0)
    rows = [image(f"s{i:02}", fine, rng=rng) for i, fine in enumerate(fines)]
    return rank(load_pool(write_run(folder, rows)), graph(), LABELS if labels is None else labels, GsalParams(**params))


def test_the_difference_is_told_term_by_term(tmp_path: Path):
    ranking = ranked(tmp_path, [[0, 1], [2], [1, 1], [0], [2, 0]], lam=0.7)
    rows = pick(ranking, 2)
    left = best_left(ranking, rows)
    assert left == ranking.order[2]
    s, last = ranking.scores, rows[-1]
    hard, rare = s.difficulty[left] - s.difficulty[last], 0.7 * (s.rarity[left] - s.rarity[last])
    assert reason(ranking, rows) == (
        f"{ranking.table.ids[left]}, rank 3, was not picked: its score {s.score[left]:+.2f} is below the "
        f"{s.score[last]:+.2f} of the last pick, {ranking.table.ids[last]} "
        f"(difficulty {hard:+.2f}, rarity {rare:+.2f})."
    )
    assert hard + rare == pytest.approx(s.score[left] - s.score[last])


def test_a_tie_goes_by_id(tmp_path: Path):
    rows = [
        image(i, [0], image_error=1.0, image_variance=1.0, proposal_error=[1.0], proposal_variance=[1.0]) for i in "ab"
    ]
    ranking = rank(load_pool(write_run(tmp_path, rows)), graph(), LABELS)
    assert reason(ranking, pick(ranking, 1)).endswith("is that of the last pick, a, whose id comes first.")


def test_under_greedy_the_scores_are_those_of_the_last_turn(tmp_path: Path):
    """Six images of the rarest concept: after the first pick void counts 3 and crack, at 2, is the rarer one."""
    fines = [[2], [2], [2], [0], [0], [1], [1]]
    ranking = ranked(tmp_path, fines, {"crack": 2, "dent": 9, "void": 1}, batch="greedy", rarity="graded", lam=4.0)
    rows = pick(ranking, 3)
    left = best_left(ranking, rows)
    again = dict(ranking.labels)
    for row in rows[:2]:
        name = ranking.graph.fine[fines[row][0]]
        again[name] += 1
    turn = rank(ranking.table, graph(), again, ranking.params).scores.score
    after = ranking.strategy.scores_after(ranking.pool, ranking.context, ranking.ranked, rows[:2])
    assert np.allclose(after, turn)
    assert f"it scores {turn[left]:+.2f}" in reason(ranking, rows) and f"{turn[rows[-1]]:+.2f}." in reason(
        ranking, rows
    )
    assert turn[rows[-1]] >= turn[left], "greedy picked the best of its turn"


def test_a_quota_is_named_where_a_better_rank_was_passed_over(tmp_path: Path):
    """All voids hardest: two concepts with one image each still get their turn first."""
    fines = [[2], [2], [2], [0], [1]]
    rows = [image(f"s{i}", f, image_error=10.0 - i, image_variance=1.0) for i, f in enumerate(fines)]
    for i, row in enumerate(rows):
        row |= {"proposal_error": [10.0 - i], "proposal_variance": [1.0]}
    ranking = rank(load_pool(write_run(tmp_path, rows)), graph(), LABELS, GsalParams(strategy="no_rarity"))
    picked = pick(ranking, 3)
    assert [ranking.table.ids[r] for r in picked] == ["s0", "s3", "s4"]
    assert reason(ranking, picked) == (
        's1, rank 2, was not picked: each concept has the same quota, and 1 of the 3 picks are "void" already.'
    )


@pytest.mark.parametrize(("strategy", "words"), [("random", "its draw in [0, 1)"), ("symbolic_only", "its score")])
def test_other_strategies_speak_of_what_they_rank_by(tmp_path: Path, strategy: str, words: str):
    ranking = ranked(tmp_path, [[0], [2], [1]], strategy=strategy)
    text = reason(ranking, pick(ranking, 1))
    assert words in text and "difficulty" not in text


def test_all_picked(tmp_path: Path):
    ranking = ranked(tmp_path, [[0], [2]])
    assert best_left(ranking, pick(ranking, 2)) is None
    assert reason(ranking, pick(ranking, 2)) == "all 2 images that could be picked were picked."
