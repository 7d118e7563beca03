"""The sentence of METHOD.md section 6 and its variants, and the facts behind it."""

import re

import pytest
from runs import graph, image, write_run

from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.acquisition.strategies.gsal.rationale import concept_facts, reason, signed
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams

THIN_FILM = ConceptGraph.from_dict(
    {
        "concepts": {
            "void": {"coarse": "subsurface", "abstract": ["dark", "round"]},
            "petal": {"coarse": "surface", "abstract": ["bright"]},
            "scratch": {"coarse": "surface"},
        }
    }
)
LABELS = {"void": 2, "petal": 40, "scratch": 90}


def facts(fine: int = 2, labels: dict[str, int] | None = None, params: GsalParams | None = None, **changes) -> dict:
    """The example of METHOD.md; fine: petal 0, scratch 1, void 2."""
    params = params or GsalParams()
    coverage = THIN_FILM.coverage(LABELS if labels is None else labels)
    return {
        "rank": 3,
        "ranked": 412,
        "score": 2.714,
        "strategy": params.strategy,
        "seed": params.seed,
        "entropy": 0.4567,
        "rarity_rule": params.rarity,
        "uses_rarity": params.strategy not in ("diffusion_only", "no_rarity"),
        "source": "detector",
        "screened": True,
        "proposal": 4,
        "proposal_sd": 2.94,
        "image_sd": 1.06,
        "bonus": 1.0,
        **concept_facts(fine, THIN_FILM, coverage, THIN_FILM.thresholds(coverage, params), params),
        **changes,
    }


def test_the_example_of_the_method():
    labels = {"void": 2, "petal": 3, "scratch": 90}
    params = GsalParams(quantile=0.5)  # of 2, 3, 90 the middle one: 3
    assert reason(facts(labels=labels, params=params)) == (
        'proposal 4 looks like "void" (subsurface; dark, round), labeled 2 times (rare at <= 3), and is +2.9 sd hard '
        "to reconstruct; the image as a whole is +1.1 sd"
    )


VARIANTS = [
    (
        "no attributes, not rare",
        facts(1),
        'looks like "scratch" (surface), labeled 90 times (not rare, above 2), and is',
    ),
    ("counted once", facts(labels={**LABELS, "void": 1}), "labeled 1 time (rare at <= 1), and"),
    ("never labeled", facts(labels={}), "labeled 0 times (rare at <= 0), and"),
    ("background", facts(-1), "proposal 4 looks like background and is +2.9 sd"),
    ("unmatched", facts(-2), "proposal 4 looks like no labeled concept (counted as rare) and is"),
    ("unmatched, no bonus", facts(-2, bonus=0.0), "looks like no labeled concept (not counted as rare) and is"),
    ("whole image", facts(source="whole"), 'the whole image, having no proposals, looks like "void"'),
    ("cold start", facts(source="grid"), 'window 4 looks like "void"'),
    ("given boxes", facts(source="field"), 'proposal 4 looks like "void"'),
    ("graded", facts(params=GsalParams(rarity="graded")), "labeled 2 times (rarity 0.98), and"),  # 1 - 2/90
    # coverage: subsurface 2, surface 130; dark 2, round 2, bright 40
    ("family rare", facts(params=GsalParams(levels="C")), 'labeled 2 times ("subsurface" is rare, 2 <= 2), and'),
    (
        "several above",
        facts(params=GsalParams(levels="CA")),
        '("subsurface" is rare, 2 <= 2; "dark" is rare, 2 <= 2; "round" is rare, 2 <= 2), and',
    ),
    ("not rare above", facts(1, params=GsalParams(levels="C")), "labeled 90 times (not rare), and"),
    (
        "graded above",
        facts(params=GsalParams(rarity="graded", levels="C")),
        "labeled 2 times (rarity 0.98 of subsurface), and",  # 1 - 2/130
    ),
    (
        "rarity not used",
        facts(params=GsalParams(strategy="diffusion_only")),
        'proposal 4 looks like "void" (subsurface; dark, round), labeled 2 times, and is +2.9',
    ),
    ("unmatched, rarity not used", facts(-2, params=GsalParams(strategy="no_rarity")), "no labeled concept and is"),
    (
        "left out by the screen",
        facts(screened=False),
        "is +2.9 sd hard to reconstruct (estimated from the image's map); the image as a whole is +1.1 sd",
    ),
    (
        "easy, signs",
        facts(proposal_sd=-0.04, image_sd=-1.26),
        "is +0.0 sd hard to reconstruct; the image as a whole is -1.3",
    ),
]


@pytest.mark.parametrize(("given", "expected"), [v[1:] for v in VARIANTS], ids=[v[0] for v in VARIANTS])
def test_variants(given, expected):
    text = reason(given)
    assert expected in text
    assert text.endswith(" sd") and "\n" not in text and "  " not in text and "()" not in text and "None" not in text


@pytest.mark.parametrize(("value", "text"), [(0.0, "+0.0"), (-0.04, "+0.0"), (-0.05001, "-0.1"), (2.94, "+2.9")])
def test_signs(value, text):
    assert signed(value) == text


def test_indicators_name_counts_thresholds_and_what_fired():
    got = facts()
    assert got["path"] == ["void", "subsurface", "dark", "round"]
    assert got["indicators"][0] == {
        "node": "void",
        "level": "fine",
        "count": 2,
        "threshold": 2,
        "value": 1.0,
        "used": True,
        "fired": True,
    }
    assert [i["fired"] for i in facts(0)["indicators"]] == [False, False, False]
    graded = facts(0, params=GsalParams(rarity="graded", levels="FA"))["indicators"]
    # petal 40 of at most 90; surface 130 of 130, not among the levels; bright 40 of 40
    assert [(i["node"], i["count"], i["threshold"], i["used"], i["fired"]) for i in graded] == [
        ("petal", 40, 90, True, True),
        ("surface", 130, 130, False, False),
        ("bright", 40, 40, True, False),
    ]
    assert graded[0]["value"] == pytest.approx(1 - 40 / 90)


def test_what_fired_adds_up_to_the_bonus():
    for params in (GsalParams(), GsalParams(levels="FA"), GsalParams(rarity="graded", delta=2)):
        coverage = THIN_FILM.coverage(LABELS)
        for index, name in enumerate(THIN_FILM.fine):
            weights = {"fine": 1, "coarse": 1, "abstract": params.delta}
            fired = [i for i in facts(index, params=params)["indicators"] if i["fired"]]
            total = sum(weights[i["level"]] * i["value"] for i in fired)
            assert total == pytest.approx(THIN_FILM.bonus(coverage, params)[name])


def test_the_sentence_of_a_real_ranking_tells_its_own_facts(tmp_path):
    rows = [image(f"s{i:02d}", [i % 3, (i + 1) % 3]) for i in range(9)]
    rows[4] |= {"fine": [0, 2], "proposal_error": [0.1, 9.0], "proposal_variance": [0.1, 9.0], "image_error": 3.0}
    ranking = rank(load_pool(write_run(tmp_path, rows)), graph(), {"crack": 5, "dent": 9, "void": 1})
    told = ranking.facts(4)
    assert told["rank"] == 1 and told["proposal"] == 2 and told["fine"] == "void"
    assert told["box"] == pytest.approx(ranking.table.boxes[9].tolist())
    pattern = (
        r'rank 1 of 9, score \+(\d\.\d\d): proposal 2 looks like "void" \(subsurface; dark, round\), labeled 1 time '
        r"\(rare at <= 1\), and is \+(\d\.\d) sd hard to reconstruct; the image as a whole is \+(\d\.\d) sd\."
    )
    found = re.fullmatch(pattern, ranking.sentence(4))
    assert found
    score, proposal, whole = map(float, found.groups())
    assert score == pytest.approx(ranking.scores.score[4], abs=0.005)
    assert proposal == pytest.approx(ranking.scores.proposal[9], abs=0.05)
    assert whole == pytest.approx(ranking.scores.image[4], abs=0.05)
