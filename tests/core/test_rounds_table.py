"""Five rounds on the synthetic pool, its true boxes as labels: a table worked by hand, and every batch in loops."""

from fractions import Fraction as F

import numpy as np
import pytest
import slow

from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import rank
from gsal_fo.boxes import WHOLE_IMAGE
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams
from gsal_fo.run_folder.pool_columns import PoolTable
from gsal_fo.synthetic.thin_film import plan, render_planned

SLICES, ROUNDS, PER_ROUND = 50, 5, 10
NODES = {"inclusion": ("subsurface", []), "petal": ("surface", ["round"]), "void": ("subsurface", ["round"])}
GRAPH = ConceptGraph.from_dict({"concepts": {f: {"coarse": c, "abstract": a} for f, (c, a) in NODES.items()}})

# Labeled instances after slices 0-9, 10-19, ... of the generator's plan(60, seed 7), added up round by round.
#          inclusion petal void | subsurface surface | round
COUNTS = [
    (4, 2, 3, 7, 2, 5),
    (9, 4, 7, 16, 4, 11),
    (15, 5, 12, 27, 5, 17),
    (16, 6, 16, 32, 6, 22),
    (18, 6, 20, 38, 6, 26),
]
# tau: of three fine nodes the smallest at q = 0.2, the middle one at q = 0.5; of two families the smaller; of one
# attribute its own count, so that "round" is always rare.
TAU = {0.2: [(2, 2, 5), (4, 4, 11), (5, 5, 17), (6, 6, 22), (6, 6, 26)],
       0.5: [(3, 2, 5), (7, 4, 11), (12, 5, 17), (16, 6, 22), (18, 6, 26)]}  # fmt: skip
BONUS = {  # inclusion, petal, void
    ("quantile", 0.2): [(0, F(5, 2), F(1, 2))] * 5,
    ("quantile", 0.5): [
        (0, F(5, 2), F(3, 2)),
        (0, F(5, 2), F(3, 2)),
        (0, F(5, 2), F(3, 2)),
        (1, F(5, 2), F(3, 2)),  # inclusion and void tie at 16
        (1, F(5, 2), F(1, 2)),  # void has overtaken inclusion
    ],
    # 1 - n / max per level; "round" is its level's largest, so it adds nothing
    ("graded", 0.2): [
        (0, F(1, 2) + F(5, 7), F(1, 4)),
        (0, F(5, 9) + F(3, 4), F(2, 9)),
        (0, F(2, 3) + F(22, 27), F(1, 5)),
        (0, F(5, 8) + F(13, 16), 0),
        (F(1, 10), F(7, 10) + F(16, 19), 0),
    ],
}


@pytest.fixture(scope="module")
def slices() -> list[list[str]]:
    """The labels of each slice that the graph knows."""
    wanted = plan(60, 7)
    return [[v for v in render_planned(7, i, wanted[i]).labels if v in NODES] for i in range(SLICES)]


def count(slices: list[list[str]], rows) -> dict[str, int]:
    labels = dict.fromkeys(NODES, 0)
    for row in rows:
        for label in slices[row]:
            labels[label] += 1
    return labels


@pytest.mark.parametrize(("rule", "q"), BONUS)
def test_coverage_thresholds_and_bonuses_are_the_table(slices, rule, q):
    params = GsalParams(rarity=rule, quantile=q)
    start = GRAPH.coverage({})
    assert set(start.values()) == {0} and set(GRAPH.rare(start, params).values()) == {True}
    assert GRAPH.bonus(start, params) == {"inclusion": 2, "petal": 2.5, "void": 2.5}
    for done in range(ROUNDS):
        covered = GRAPH.coverage(count(slices, range((done + 1) * PER_ROUND)))
        names = ("inclusion", "petal", "void", "subsurface", "surface", "round")
        assert tuple(covered[v] for v in names) == COUNTS[done]
        assert tuple(GRAPH.thresholds(covered, params).values()) == TAU[q][done]
        got = GRAPH.bonus(covered, params)
        assert [got[v] for v in NODES] == pytest.approx([float(b) for b in BONUS[rule, q][done]])


def pool(slices: list[list[str]]) -> PoolTable:
    """Every true box a proposal; a slice without any is its own, background. E and V are drawn."""
    rng = np.random.default_rng(1)
    names = [labels or [""] for labels in slices]
    owner = np.repeat(np.arange(len(names)), [len(v) for v in names])
    fine = np.array([GRAPH.fine.index(v) if v else -1 for labels in names for v in labels], dtype=np.int16)
    n, p = len(names), len(owner)
    return PoolTable(
        ids=np.array([f"slice{i:02d}" for i in range(n)], dtype=object),
        failed={},
        image_error=rng.random(n),
        image_variance=rng.random(n),
        entropy=np.full(n, np.nan, np.float32),
        source=np.array(["field"] * n, dtype=object),
        screened=np.ones(n, dtype=bool),
        proposal_image=owner,
        boxes=np.repeat(WHOLE_IMAGE, p, axis=0),
        proposal_score=np.ones(p),
        proposal_error=rng.random(p),
        proposal_variance=rng.random(p),
        fine=fine,
        prob=np.ones(p),
        margin=np.ones(p),
        image_contrast=np.ones(n),
        contrast=np.ones(p),
    )


def slow_picks(table: PoolTable, left: list[int], labels: dict[str, int], rule: str, batch: str) -> list[int]:
    """The next four of ``left``: scored in loops; greedy counts each pick's concepts once and scores all again, on the
    statistics of the pool before the batch."""
    labels, picks = dict(labels), []
    while len(picks) < 4:
        bonus = slow.bonus(NODES, labels, rarity=rule)
        images = []
        for i in left:
            own = [j for j in range(len(table.fine)) if table.proposal_image[j] == i]
            b = [bonus[GRAPH.fine[table.fine[j]]] if table.fine[j] >= 0 else 0.0 for j in own]
            rows = [(table.proposal_error[j], table.proposal_variance[j], v) for j, v in zip(own, b, strict=True)]
            images.append((table.image_error[i], table.image_variance[i], rows))
        score = dict(zip(left, slow.scores(images)["score"], strict=True))
        order = sorted((i for i in left if i not in picks), key=lambda i: (-round(score[i], 9), table.ids[i]))
        if batch == "static":
            return order[:4]
        picks.append(order[0])
        for index in {int(f) for f in table.fine[table.proposal_image == order[0]] if f >= 0}:
            labels[GRAPH.fine[index]] += 1
    return picks


@pytest.mark.parametrize("batch", ["static", "greedy"])
@pytest.mark.parametrize("rule", ["quantile", "graded"])
def test_five_rounds_pick_what_loops_pick(slices, rule, batch):
    table, known = pool(slices), [0, 1]
    params = GsalParams(rarity=rule, batch=batch)
    for _ in range(ROUNDS):
        labels = count(slices, known)
        left = [i for i in range(SLICES) if i not in known]
        ranking = rank(table, GRAPH, labels, params, keep=np.isin(np.arange(SLICES), left))
        assert ranking.coverage == slow.coverage(NODES, labels)
        assert GRAPH.bonus(ranking.coverage, params) == pytest.approx(slow.bonus(NODES, labels, rarity=rule))
        picks = pick(ranking, 4)
        assert picks == slow_picks(table, left, labels, rule, batch)
        known += picks
    assert len(set(known)) == 2 + 4 * ROUNDS
