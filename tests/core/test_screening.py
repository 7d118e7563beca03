"""Screening: the choice depends on the pool alone; estimates are monotone, on the crops' scale, and worked by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import graph, image, write_run

from gsal_fo.acquisition.ranking import rank
from gsal_fo.acquisition.screening import (
    DRAWN,
    calibrated,
    calibration,
    choose,
    finish_run,
    screen_run,
    weighted_quantiles,
)
from gsal_fo.config import DiffusionConfig, GsalParams
from gsal_fo.run_folder import shards
from gsal_fo.run_folder.pool_columns import load_pool

SCORES = st.lists(st.integers(-3, 3) | st.just(math.nan), min_size=1, max_size=40)


@given(SCORES, st.floats(0.01, 1), st.integers(0, 9), st.randoms())
@settings(max_examples=150)
def test_the_choice_depends_on_ids_and_scores_not_on_their_order(scores, share, seed, random):
    ids, score = np.array([f"i{k:02d}" for k in range(len(scores))], dtype=object), np.array(scores, dtype=float)
    weight = choose(ids, score, share, seed=seed)
    finite = np.isfinite(score)
    assert (weight > 0).sum() == math.ceil(share * finite.sum() - 1e-9)
    assert not weight[~finite].any()
    assert weight.sum() == pytest.approx(finite.sum())  # the chosen stand for the pool
    order = np.array(random.sample(range(len(ids)), len(ids)))
    np.testing.assert_array_equal(choose(ids[order], score[order], share, seed=seed), weight[order])


def test_most_of_the_share_goes_to_the_highest_and_the_seed_moves_the_rest():
    ids = np.array([f"i{k:03d}" for k in range(200)], dtype=object)
    score = np.random.default_rng(0).permutation(200).astype(float)
    weights = [choose(ids, score, 0.25, seed=s) for s in (0, 1)]
    count, drawn = 50, round(DRAWN * 50)
    for weight in weights:
        np.testing.assert_array_equal(np.sort(score[weight == 1]), np.arange(200 - (count - drawn), 200))
        others = weight[weight > 1]
        assert len(others) == drawn and set(others) == {(200 - (count - drawn)) / drawn}
    assert (weights[0] != weights[1]).any()


def test_weighted_quantiles_by_hand():
    # weights 1, 1, 2 of 4: the values sit at 0.125, 0.375 and 0.75; half-way between the last two is 0.5625
    got = weighted_quantiles(np.array([3.0, 1.0, 2.0]), np.array([2.0, 1.0, 1.0]), np.array([0, 0.375, 0.5625, 1]))
    np.testing.assert_allclose(got, [1, 2, 2.5, 3])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_a_calibration_never_turns_an_order_and_stays_between_the_crops(seed):
    rng = np.random.default_rng(seed)
    source, target = rng.integers(0, 20, 60).astype(float), rng.gamma(1, 5, 60)
    knots = calibration(source, target, rng.choice([0.0, 1.0, 4.0], 60))
    if len(knots[0]):
        assert (np.diff(knots[0]) > 0).all() and (np.diff(knots[1]) >= 0).all()
        values = calibrated(np.linspace(-5, 30, 200), knots)
        assert (np.diff(values) >= 0).all()
        assert values.min() >= np.float32(target.min()) and values.max() <= np.float32(target.max())


def test_a_monotone_relation_is_found_and_weights_count():
    source = np.linspace(0, 1, 1000)
    weight = np.where(source > 0.8, 1.0, np.where(np.arange(1000) % 20 == 0, 20.0, 0.0))
    target = np.where(weight > 0, 3 + source**2, np.nan)  # unknown where not chosen
    got = calibrated(source, calibration(source, target, weight))
    np.testing.assert_allclose(got, 3 + source**2, atol=0.03)  # 20 of 1000 between two drawn ones


def pool_run(folder: Path, images: int = 10) -> Path:
    """Ten images with 2 proposals; their crops' values are 10 times and 100 times those of maps, plus 1."""
    rows = [image(f"i{k}", [k % 3, 0], rng=np.random.default_rng(k)) for k in range(images)]
    write_run(folder, rows, stages=("proposals", "screening", "assignment"))
    shards.write_json({"unknown": {"odd": {"void": 2}}}, folder / "assigned.json")
    return folder


def crops_of(table, ids, **changes):
    return [
        {
            "id": i,
            "proposal_error": 1 + 10 * table.proposal_error[own],
            "proposal_variance": 1 + 100 * table.proposal_variance[own],
            **changes,
        }
        for i in sorted(ids)
        for own in [table.proposal_image == np.flatnonzero(table.ids == i)[0]]
    ]


def test_chosen_images_keep_their_crops_values_and_the_rest_is_carried_over(tmp_path):
    run = pool_run(tmp_path)
    screen = screen_run(run, graph(), 0.5, seed=0)
    assert len(screen.ids) == 5
    shards.write_part(run, "crops", crops_of(screen.table, screen.ids), digest="c" * 16)
    # An image that an earlier choice has measured, and this one has not chosen, changes nothing.
    stranger = sorted(set(screen.table.ids) - screen.ids)[:1]
    odd = crops_of(screen.table, stranger, proposal_error=[99, 99])
    shards.write_part(run, "crops", odd, digest="c" * 16, rank=1)
    facts = finish_run(run, screen, digest="f" * 16)
    table = load_pool(run)
    assert (facts["pool"], facts["screened"], facts["drawn"]) == (10, 5, 2)
    assert set(table.ids[table.screened]) == screen.ids
    chosen = table.screened[table.proposal_image]
    np.testing.assert_allclose(table.proposal_error[chosen], 1 + 10 * screen.table.proposal_error[chosen])
    np.testing.assert_allclose(table.proposal_variance[chosen], 1 + 100 * screen.table.proposal_variance[chosen])
    known = np.sort(screen.table.proposal_error[chosen])
    inside = ~chosen & (screen.table.proposal_error > known[0]) & (screen.table.proposal_error < known[-1])
    assert inside.any()  # the relation is a line, so the quantile map finds it between the extremes
    np.testing.assert_allclose(table.proposal_error[inside], 1 + 10 * screen.table.proposal_error[inside], rtol=0.05)
    np.testing.assert_array_equal(table.image_error, screen.table.image_error)
    fact = rank(table, graph(), {}).facts(int(np.flatnonzero(~table.screened)[0]))
    assert fact["screened"] is False


def test_the_choice_reads_the_labels_of_the_run_and_the_constants_of_the_ranking(tmp_path):
    run = pool_run(tmp_path)
    table = load_pool(run, statistics="screening")
    weights = []
    for params in (GsalParams(), GsalParams(rarity="graded", alpha=1, beta=0)):
        want = rank(table, graph(), {"void": 2}, params).scores.score  # "odd" looks like void, twice
        got = screen_run(run, graph(), 0.5, seed=3, params=params).weight
        np.testing.assert_array_equal(got, choose("file " + table.ids, want, 0.5, seed=3))
        weights.append(got)
    assert (weights[0] != weights[1]).any(), "the constants decide, too"
    np.testing.assert_array_equal(screen_run(run, graph(), 0.5, seed=3).weight, weights[0])


def test_the_same_images_are_chosen_whatever_their_ids_and_order(tmp_path):
    """Equal scores all over, so that content alone decides which are highest and which are drawn."""
    chosen = []
    for name, ids in (("one", range(10)), ("two", [7, 3, 9, 0, 2, 8, 5, 1, 6, 4])):
        rows = [image("same", [0, 0]) | {"id": f"{name}{k}", "content": f"file {i}"} for k, i in enumerate(ids)]
        write_run(tmp_path / name, rows, stages=("proposals", "screening", "assignment"))
        shards.write_json({"unknown": {}}, tmp_path / name / "assigned.json")
        weight = dict(zip(ids, screen_run(tmp_path / name, graph(), 0.5, seed=3).weight, strict=True))
        chosen.append(weight)
    assert chosen[0] == chosen[1] and sorted(chosen[0].values()) == [0] * 5 + [1] * 3 + [3.5] * 2


def test_a_run_that_knows_no_digest_of_a_file_is_not_screened(tmp_path):
    write_run(tmp_path, [image("old", [0, 0]) | {"content": None}], stages=("proposals", "screening", "assignment"))
    shards.write_json({"unknown": {}}, tmp_path / "assigned.json")
    with pytest.raises(shards.ShardError, match="image old has no digest of its file; delete"):
        screen_run(tmp_path, graph(), 0.5, seed=0)


def test_an_image_whose_crops_fail_fails_alone_and_says_why(tmp_path):
    run = pool_run(tmp_path)
    screen = screen_run(run, graph(), 0.5, seed=0)
    gone, *others = sorted(screen.ids)
    shards.write_part(run, "crops", [{"id": gone, "error": "the file is missing"}], digest="c" * 16)
    shards.write_part(run, "crops", crops_of(screen.table, others), digest="c" * 16)
    finish_run(run, screen, digest="f" * 16)
    table = load_pool(run)
    assert table.failed == {gone: "the file is missing"} and len(table.ids) == 9
    assert np.isfinite(table.proposal_error).all()


def test_parts_of_before_there_was_a_screen_read_as_screened(tmp_path):
    import pyarrow.parquet as pq

    run = write_run(tmp_path, [image("a", [0]), image("b", [1, 2])])
    for path in (run / "difficulty").glob("*"):
        table = pq.read_table(path).drop(["screened"])
        pq.write_table(table.replace_schema_metadata({"gsal_digest": table.schema.metadata[b"gsal_digest"]}), path)
    assert load_pool(run).screened.tolist() == [True, True]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"screen": 0}, "above 0"), ({"screen": 1.5}, "[0, 1]"), ({"screen": 0.5, "regions": "maps"}, "saves nothing")],
)
def test_a_screen_that_cannot_be_meant_is_refused(settings, words):
    with pytest.raises(ValueError, match="screen") as refused:
        DiffusionConfig(**settings)
    assert words in str(refused.value)
