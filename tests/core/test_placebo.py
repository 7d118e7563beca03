"""The placebos: one signal replaced by nothing, the rest of the ranking unchanged."""

from pathlib import Path

import numpy as np
import pytest
from runs import GRAPH, graph, image, write_run

from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.acquisition.strategies.placebo import noise_difficulty, shuffled_graph
from gsal_fo.acquisition.table_pool import pool_of
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams

LABELS = {"crack": 5, "dent": 9, "void": 1}


def pool(folder: Path, ids: list[str], **changes: float):
    rng = np.random.default_rng(0)
    return load_pool(write_run(folder, [image(i, rng.integers(-2, 3, 3).tolist(), rng=rng, **changes) for i in ids]))


def columns(table, seed: int):
    everyone = np.ones(len(table.ids), dtype=bool)
    return noise_difficulty(pool_of(table, unlabeled=everyone, candidates=everyone), seed)


def test_noise_is_set_by_seed_and_id_alone(tmp_path: Path):
    all_of_them, two = pool(tmp_path / "a", ["s0", "s1", "s2", "s3"]), pool(tmp_path / "b", ["s3", "s1"])
    many, few = columns(all_of_them, 0), columns(two, 0)
    for row, sample_id in enumerate(two.ids):
        other = all_of_them.ids.tolist().index(sample_id)
        assert few.image_error[row] == many.image_error[other]
        own, others = two.proposal_image == row, all_of_them.proposal_image == other
        np.testing.assert_array_equal(few.variance[own], many.variance[others])
    assert len(set(many.error.tolist())) == len(many.error)
    assert (columns(pool(tmp_path / "c", ["s0"]), 1).image_error != many.image_error[:1]).all()


def test_noise_is_uniform(tmp_path: Path):
    drawn = columns(pool(tmp_path, [f"s{i}" for i in range(400)]), 0)
    for values in (drawn.image_error, drawn.image_variance, drawn.error, drawn.variance):
        assert abs(values.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(values))  # 5 sigma
        assert values.min() >= 0 and values.max() <= 1


def test_the_measured_difficulty_has_no_effect_on_the_placebo_but_stays_in_the_table(tmp_path: Path):
    params = GsalParams(strategy="noise_difficulty", seed=3)
    ids = [f"s{i}" for i in range(12)]
    one, other = pool(tmp_path / "a", ids), pool(tmp_path / "b", ids, image_error=0.25, image_variance=0.5)
    first, second = rank(one, graph(), LABELS, params), rank(other, graph(), LABELS, params)
    np.testing.assert_array_equal(first.scores.score, second.scores.score)
    assert (second.table.image_error == 0.25).all()
    assert "noise in place of its difficulty" in first.sentence(int(first.order[0]))
    assert "hard to reconstruct" not in first.sentence(int(first.order[0]))


def test_an_image_without_a_finite_difficulty_stays_unranked(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = [image(f"s{i}", [0, 1], rng=rng) for i in range(5)]
    rows[2]["image_error"] = float("nan")
    ranking = rank(load_pool(write_run(tmp_path, rows)), graph(), LABELS, GsalParams(strategy="noise_difficulty"))
    assert list(ranking.unranked) == ["s2"] and len(ranking.order) == 4


@pytest.mark.parametrize("seed", range(5))
def test_every_fine_node_gets_the_place_of_another_and_keeps_its_name(seed: int):
    before, after = graph(), shuffled_graph(graph(), seed)
    places = {f: (before.coarse_of(f), before.abstract_of(f)) for f in before.fine}
    got = {f: (after.coarse_of(f), after.abstract_of(f)) for f in after.fine}
    assert after.fine == before.fine
    assert sorted(got.values()) == sorted(places.values())
    assert all(got[f] != places[f] for f in before.fine)
    assert [after.prompts(f) for f in after.fine] == [before.prompts(f) for f in before.fine]
    assert shuffled_graph(graph(), seed).to_dict() == after.to_dict()


def test_one_fine_node_has_nowhere_to_go():
    single = ConceptGraph.from_dict({**GRAPH, "concepts": {"void": {"coarse": "subsurface"}}}, source="one.yaml")
    assert shuffled_graph(single, 0).to_dict()["concepts"] == single.to_dict()["concepts"]


@pytest.mark.parametrize("batch", ["static", "greedy"])
def test_a_shuffled_graph_changes_family_and_attribute_rarity_only(tmp_path: Path, batch: str):
    table = pool(tmp_path, [f"s{i}" for i in range(12)])
    fine_only = {"levels": "F", "batch": batch, "seed": 1}
    plain, placebo = (
        pick(rank(table, graph(), LABELS, GsalParams(strategy=s, **fine_only)), 6) for s in ("gsal", "shuffled_graph")
    )
    assert plain == placebo
    all_levels = rank(table, graph(), LABELS, GsalParams(strategy="shuffled_graph", seed=1))
    moved = shuffled_graph(graph(), 1)
    by_hand = moved.bonus(moved.coverage(LABELS), GsalParams())
    for position, fine in enumerate(table.fine):
        if fine >= 0:
            assert all_levels.bonus[position] == by_hand[graph().fine[fine]]
