"""Every sentence of a ranked pool, read back into facts and held against the stored columns: no word without a number
behind it. The facts are recomputed here from table, labels and ``slow``; ``Ranking.facts`` is not asked."""

import re

import numpy as np
import pytest
import slow
from runs import GRAPH, graph
from test_picking import table

from gsal_fo.acquisition.ranking import Ranking, rank
from gsal_fo.config import GsalParams
from gsal_fo.run_folder.pool_columns import PoolTable

LABELS = {"crack": 9, "dent": 4, "void": 1}
NODES = {f: (v["coarse"], v["abstract"]) for f, v in GRAPH["concepts"].items()}
COUNTS = slow.coverage(NODES, LABELS)
LEVELS = {
    "F": sorted(NODES),
    "C": sorted({c for c, _ in NODES.values()}),
    "A": sorted({a for _, own in NODES.values() for a in own}),
}
NUMBER = r"[+-]\d+\.\d"
SENTENCE = re.compile(
    rf"rank (?P<rank>\d+) of (?P<ranked>\d+)(?: by (?P<by>\w+))?, score (?P<score>[+-]\d+\.\d\d): "
    rf"(?:(?P<kind>proposal|window) (?P<place>\d+)|the whole image, having no proposals,) looks like "
    rf"(?:(?P<background>background)|"
    rf"(?P<unmatched>no labeled concept)(?: \((?P<counted>counted|not counted) as rare\))?|"
    rf'"(?P<fine>\w+)" \((?P<coarse>\w+)(?:; (?P<abstract>[\w, ]+))?\), labeled (?P<times>\d+) times?'
    rf"(?: \((?P<why>[^)]*)\))?,)(?: and)? (?:is (?P<hard>{NUMBER}) sd hard to reconstruct; the image as a whole is "
    rf"(?P<image>{NUMBER}) sd|drew (?P<noise>{NUMBER}) sd of noise in place of its difficulty; "
    rf"the image as a whole drew (?P<image_noise>{NUMBER}) sd)\."
)
STRATEGIES = ("gsal", "diffusion_only", "symbolic_only", "no_rarity", "image_only", "proposal_only", "noise_difficulty")
CASES = [GsalParams(strategy=s) for s in STRATEGIES] + [
    GsalParams(rarity="graded"),
    GsalParams(levels="C"),
    GsalParams(levels="CA"),
    GsalParams(levels="A", rarity="graded"),
    GsalParams(unmatched="none"),
    GsalParams(quantile=0.9, abstract="mean", image_rarity="max", p=np.inf),
]


def pool(seed: int) -> PoolTable:
    """Random, with windows, whole images and detector boxes."""
    base = table(seed, 40)
    sizes = np.bincount(base.proposal_image)
    source = np.array([["detector", "field", "grid"][i % 3] if k > 1 else "whole" for i, k in enumerate(sizes)], object)
    return PoolTable(**{**base.__dict__, "source": source})


def threshold(level: str, q: float) -> int:
    values = sorted(COUNTS[v] for v in LEVELS[level])
    return values[int(q * (len(values) - 1))]


def why(fine: str, params: GsalParams) -> str | None:
    """What the brackets after "labeled n times" must say, from counts alone."""
    if params.strategy in ("diffusion_only", "no_rarity"):
        return None
    family, attributes = NODES[fine]
    above = [("C", family), *(("A", a) for a in sorted(attributes))]
    above = [(level, node) for level, node in above if level in params.levels]
    if params.rarity == "graded":
        share = {v: 1 - COUNTS[v] / max(COUNTS[w] for w in LEVELS[level]) for level, v in [("F", fine), *above]}
        if "F" in params.levels:
            return f"rarity {share[fine]:.2f}"
        return "rarity " + ", ".join(f"{share[v]:.2f} of {v}" for _, v in above)
    tau = {level: threshold(level, params.quantile) for level in "FCA"}
    if "F" in params.levels and COUNTS[fine] <= tau["F"]:
        return f"rare at <= {tau['F']}"
    fired = [f'"{v}" is rare, {COUNTS[v]} <= {tau[level]}' for level, v in above if COUNTS[v] <= tau[level]]
    return "; ".join(fired) or (f"not rare, above {tau['F']}" if "F" in params.levels else "not rare")


def check(ranking: Ranking, row: int) -> None:
    stored, params, scores = ranking.table, ranking.params, ranking.scores
    text = ranking.sentence(row)
    said = SENTENCE.fullmatch(text)
    assert said, text
    order = sorted(range(len(stored.ids)), key=lambda r: (-scores.score[r], stored.ids[r]))
    assert (int(said["rank"]), int(said["ranked"])) == (order.index(row) + 1, len(order)), text
    assert said["by"] == (None if params.strategy == "gsal" else params.strategy), text
    assert said["score"] == f"{scores.score[row]:+.2f}", text
    own = np.flatnonzero(stored.proposal_image == row)
    best = own[np.argmax(scores.value[own])]
    if said["place"]:
        assert (said["kind"] == "window") == (stored.source[row] == "grid"), text
        mine = own[int(said["place"]) - 1]
        assert scores.value[mine] == scores.value[best], text
    else:
        assert stored.source[row] == "whole" and len(own) == 1, text
        mine = own[0]
    sd, image_sd = ("noise", "image_noise") if params.strategy == "noise_difficulty" else ("hard", "image")
    assert abs(float(said[sd]) - scores.proposal[mine]) <= 0.05001, text
    assert abs(float(said[image_sd]) - scores.image[row]) <= 0.05001, text
    fine = int(stored.fine[mine])
    assert bool(said["background"]) == (fine == -1) and bool(said["unmatched"]) == (fine == -2), text
    uses = params.strategy not in ("diffusion_only", "no_rarity")
    if fine == -2:
        rare = params.unmatched == "rare" and "F" in params.levels
        expected = ("counted" if rare else "not counted") if uses else None
        assert said["counted"] == expected, text
    if fine >= 0:
        name = sorted(NODES)[fine]
        family, attributes = NODES[name]
        assert (said["fine"], said["coarse"], said["abstract"]) == (name, family, ", ".join(sorted(attributes))), text
        assert int(said["times"]) == LABELS[name] and said["why"] == why(name, params), text


@pytest.mark.parametrize("params", CASES, ids=lambda p: f"{p.strategy}-{p.rarity}-{p.levels}-{p.unmatched}-{p.p}")
def test_every_sentence_reads_back_into_the_stored_facts(params):
    kinds = set()
    for seed in (0, 1):
        ranking = rank(pool(seed), graph(), LABELS, params)
        for row in ranking.order.tolist():
            check(ranking, row)
            kinds.add(int(ranking.table.fine[ranking.scores.decisive[row]]))
    assert kinds == {-2, -1, 0, 1, 2}, "the pool shows every kind of concept"


def test_the_placebo_graph_tells_the_paths_of_its_own_graph():
    params = GsalParams(strategy="shuffled_graph", seed=1)
    ranking = rank(pool(0), graph(), LABELS, params)
    for row in ranking.order.tolist():
        said = SENTENCE.fullmatch(ranking.sentence(row))
        assert said and said["by"] == "shuffled_graph"
        if said["fine"]:
            path = ranking.graph.path(said["fine"])
            assert [said["fine"], said["coarse"], *said["abstract"].split(", ")] == path != graph().path(said["fine"])


@pytest.mark.parametrize("strategy", ["random", "entropy"])
def test_baselines_say_what_they_used(strategy):
    ranking = rank(pool(0), graph(), LABELS, GsalParams(strategy=strategy, seed=4))
    for row in ranking.order.tolist():
        text = ranking.sentence(row)
        head = f"rank {ranking.rank[row]} of 40 by {strategy}: "
        if strategy == "random":
            assert text == f"{head}drawn at random with seed 4: {ranking.score[row]:.4f}."
        elif ranking.table.source[row] not in ("detector", "field"):
            assert text == f"{head}the detector sees nothing in it, so it comes after all others, in random order."
        else:
            told = re.fullmatch(re.escape(head) + r"\d+ detections? whose entropies add up to (\d+\.\d\d) nats\.", text)
            assert told and float(told[1]) == round(float(ranking.score[row]), 2)
