"""A run folder to columns, and the ranking of its images."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import slow
from runs import graph, image, write_run

from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.preview import rivals
from gsal_fo.acquisition.ranking import PoolTable, load_pool, rank
from gsal_fo.acquisition.runner_up import best_left
from gsal_fo.config import GsalParams
from gsal_fo.run_folder import shards
from gsal_fo.run_folder.pool_columns import entropies
from gsal_fo.run_folder.shards import ShardError

LABELS = {"crack": 5, "dent": 9, "void": 1}


def rows(n: int = 8) -> list[dict]:
    """Images with 1 to 4 proposals each."""
    rng = np.random.default_rng(0)
    return [image(f"s{i}", rng.integers(-2, 3, 1 + i % 4).tolist(), rng=rng) for i in range(n)]


def test_columns_come_in_manifest_order_with_their_own_proposals(tmp_path: Path):
    written = rows()
    order = [f"s{i}" for i in (5, 0, 7, 2, 1, 6, 3, 4)]
    table = load_pool(write_run(tmp_path, written, manifest=order, part=3))
    assert table.ids.tolist() == order
    by_id = {row["id"]: row for row in written}
    for row, sample_id in enumerate(order):
        own = table.proposal_image == row
        known = by_id[sample_id]
        assert table.first_proposal(row) == np.flatnonzero(own)[0]
        assert table.image_error[row] == np.float32(known["image_error"])
        assert table.image_variance[row] == np.float32(known["image_variance"])
        np.testing.assert_array_equal(table.boxes[own].ravel(), np.float32(known["boxes"]))
        for name, column in [
            ("proposal_error", table.proposal_error),
            ("proposal_variance", table.proposal_variance),
            ("scores", table.proposal_score),
            ("prob", table.prob),
            ("margin", table.margin),
        ]:
            np.testing.assert_array_equal(column[own], np.float32(known[name]), err_msg=name)
        assert table.fine[own].tolist() == known["fine"]
    assert (np.diff(table.proposal_image) >= 0).all()


def test_the_parts_of_two_ranks_and_any_order_make_the_same_table(tmp_path: Path):
    written = rows()
    one = load_pool(write_run(tmp_path / "one", written))
    other = write_run(tmp_path / "other", [], manifest=[row["id"] for row in written])
    for stage in ("proposals", "difficulty", "assignment"):
        shards.write_part(other, stage, written[::-2], digest="e" * 16, rank=1)
        shards.write_part(other, stage, written[-2::-2], digest="e" * 16, rank=0)
    two = load_pool(other)
    for name in ("ids", "proposal_image", "boxes", "proposal_error", "fine", "image_error"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_failed_images_are_listed_with_their_first_reason_and_have_no_row(tmp_path: Path):
    written = rows()
    run = write_run(tmp_path, written[:5], manifest=[row["id"] for row in written])
    shards.write_part(run, "proposals", [{"id": "s5", "error": "truncated file"}], digest="d" * 16)
    shards.write_part(run, "proposals", written[6:], digest="d" * 16)
    shards.write_part(
        run, "difficulty", [{"id": "s6", "error": "gone"}, {"id": "s5", "error": "late"}], digest="d" * 16
    )
    shards.write_part(run, "difficulty", written[7:], digest="d" * 16)
    shards.write_part(run, "assignment", written[7:], digest="d" * 16)
    table = load_pool(run)
    assert table.failed == {"s5": "truncated file", "s6": "gone"}
    assert table.ids.tolist() == ["s0", "s1", "s2", "s3", "s4", "s7"]
    ranking = rank(table, graph(), LABELS)
    assert ranking.unranked == table.failed
    assert set(pick(ranking, 6)) == set(range(6))


def test_labeled_rows_are_no_part_of_the_pool(tmp_path: Path):
    written = rows()
    run = write_run(tmp_path, written)
    manifest = pq.read_table(run / "manifest.parquet").to_pylist()
    manifest[2]["role"] = "labeled"
    shards.write_table(pa.Table.from_pylist(manifest, schema=shards.MANIFEST), run / "manifest.parquet")
    assert "s2" not in load_pool(run).ids.tolist()


def test_an_empty_run_and_a_run_where_all_failed(tmp_path: Path):
    assert not len(load_pool(write_run(tmp_path / "empty", [])).ids)
    run = write_run(tmp_path / "failed", [], manifest=["a", "b"])
    shards.write_part(run, "proposals", [{"id": i, "error": "zero bytes"} for i in "ab"], digest="d" * 16)
    table = load_pool(run)
    ranking = rank(table, graph(), {})
    assert table.failed == {"a": "zero bytes", "b": "zero bytes"} and not len(ranking.order)
    with pytest.raises(ValueError, match="no image of the pool can be ranked"):
        pick(ranking, 1)


def test_a_run_that_is_not_finished_says_what_to_do(tmp_path: Path):
    written = rows()
    run = write_run(tmp_path, written[:6], manifest=[row["id"] for row in written])
    with pytest.raises(ShardError, match=r"2 images have no proposals yet, the first is s6; run the same"):
        load_pool(run)
    shards.write_part(run, "proposals", written[6:], digest="d" * 16)
    with pytest.raises(ShardError, match=r"2 images have no difficulty yet"):
        load_pool(run)


@pytest.mark.parametrize(
    ("column", "stage"),
    [
        ("proposal_error", "difficulty"),
        ("proposal_variance", "difficulty"),
        ("fine", "assignment"),
        ("prob", "assignment"),
    ],
)
def test_stages_that_disagree_on_an_images_proposals_are_refused_by_name(tmp_path: Path, column, stage):
    written = rows()
    written[3][column] = written[3][column][:-1]
    with pytest.raises(ShardError, match=rf"image s3 has another number of {column} than of proposals"):
        load_pool(write_run(tmp_path, written))


def test_boxes_missing_lists_and_images_without_proposals_are_refused_by_name(tmp_path: Path):
    for name, changes, message in [
        ("boxes", {"boxes": [0.0] * 3}, "image s3 has another number of boxes"),
        ("null", {"proposal_error": None}, "image s3 has another number of proposal_error"),
        ("none", {"boxes": [], "scores": [], "fine": []}, "image s3 has no proposal"),
    ]:
        written = rows()
        written[3] |= changes
        with pytest.raises(ShardError, match=message):
            load_pool(write_run(tmp_path / name, written))


def test_an_image_that_is_there_twice_is_refused(tmp_path: Path):
    run = write_run(tmp_path, rows())
    shards.write_part(run, "difficulty", rows()[2:3], digest="d" * 16, rank=1)
    with pytest.raises(
        ShardError,
        match=r"image s2 is there twice, in .*difficulty/part-000-000000.parquet and part-001-000000.parquet",
    ):
        load_pool(run)
    with pytest.raises(ShardError, match=r"manifest.parquet holds image s1 twice"):
        load_pool(write_run(tmp_path / "m", rows(), manifest=["s0", "s1", "s1"]))


def test_no_run_folder_and_two_configurations_are_refused(tmp_path: Path):
    with pytest.raises(ShardError, match="is not a GSAL run folder"):
        load_pool(tmp_path)
    run = write_run(tmp_path / "run", rows()[:4], manifest=[f"s{i}" for i in range(8)])
    shards.write_part(run, "difficulty", rows()[4:], digest="other" * 3)
    with pytest.raises(ShardError, match="never mixed"):
        load_pool(run)
    (tmp_path / "run" / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(ShardError, match="not a readable Parquet file"):
        load_pool(tmp_path / "run")


def test_entropy_by_hand():
    def h(*p):
        return -sum(v * math.log(v) for v in p if v)

    sure, open_, back = [0.0, 1.0, 0.0], [0.2, 0.4, 0.4], [0.96, 0.02, 0.02]
    posterior = np.array([*sure, *open_, *back, *sure, *back, 0.5, 0.5], dtype=np.float32)
    # Image 0: the largest of two; image 1 has no posterior; image 2: background is out, and its other proposal is sure;
    # image 3: background alone counts nothing; image 4 has one class only.
    got = entropies(posterior, np.array([6, 0, 6, 3, 2]), np.array([2, 3, 2, 1, 1]))
    np.testing.assert_allclose(got, [h(*open_), np.nan, 0, 0, h(0.5, 0.5)], rtol=1e-5)
    with pytest.raises(ShardError, match="posterior of 5 numbers does not fit 2 proposals"):
        entropies(np.zeros(5), np.array([5]), np.array([2]))


def test_entropy_is_zero_where_the_detector_found_nothing_and_nan_where_none_ran(tmp_path: Path):
    written = rows(4)
    written[1] |= {"posterior": [0.5, 0.5] * 2, "source": "detector"}
    written[2] |= image("s2", [0], source="whole")
    table = load_pool(write_run(tmp_path / "a", written))
    np.testing.assert_allclose(table.entropy[:3], [np.nan, math.log(2), 0], rtol=1e-6)
    written[1]["posterior"] = []
    table = load_pool(write_run(tmp_path / "b", written))
    assert np.isnan(table.entropy).all()
    with pytest.raises(ValueError, match="no detector ran"):
        rank(table, graph(), {}, GsalParams(strategy="entropy"), rules=2)


@pytest.mark.parametrize("unmatched", ["rare", "none"])
def test_the_ranking_of_a_folder_is_the_method_in_loops(tmp_path: Path, unmatched):
    written = rows(12)
    ranking = rank(load_pool(write_run(tmp_path, written)), graph(), LABELS, GsalParams(unmatched=unmatched))
    # By hand: coverage crack 5, dent 9, void 1; surface 14, subsurface 1; dark 6, linear 5, round 10. Rare: void,
    # subsurface, linear. Bonuses: crack 0.5 (linear), dent 0, void 2, unmatched 1 or 0, background 0.
    bonus = {0: 0.5, 1: 0.0, 2: 2.0, -2: 1.0 if unmatched == "rare" else 0.0, -1: 0.0}
    images = [
        (
            float(np.float32(row["image_error"])),
            float(np.float32(row["image_variance"])),
            [
                (float(np.float32(e)), float(np.float32(v)), bonus[f])
                for e, v, f in zip(row["proposal_error"], row["proposal_variance"], row["fine"], strict=True)
            ],
        )
        for row in written
    ]
    np.testing.assert_allclose(ranking.scores.score, slow.scores(images)["score"], atol=1e-5)
    assert ranking.bonus.tolist() == [b for _, _, proposals in images for _, _, b in proposals]
    assert {v for v, is_rare in ranking.rare.items() if is_rare} == {"void", "subsurface", "linear"}
    assert ranking.thresholds == {"fine": 1, "coarse": 1, "abstract": 5}
    assert sorted(ranking.rank.tolist()) == list(range(1, 13))
    assert (ranking.rank[ranking.order] == np.arange(1, 13)).all()


@pytest.mark.parametrize("normalize", ["pool", "concept"])
def test_images_that_left_the_pool_take_no_part(tmp_path: Path, normalize):
    written = rows(12)
    params = GsalParams(normalize=normalize)
    whole = load_pool(write_run(tmp_path / "whole", written))
    keep = np.array([i % 3 != 1 for i in range(12)])
    got = rank(whole, graph(), LABELS, params, keep=keep)
    rest = rank(
        load_pool(write_run(tmp_path / "rest", [written[i] for i in np.flatnonzero(keep)])), graph(), LABELS, params
    )
    np.testing.assert_allclose(got.scores.score[keep], rest.scores.score, atol=1e-12)
    assert np.isnan(got.scores.score[~keep]).all() and (got.rank[~keep] == 0).all()
    assert [whole.ids[row] for row in pick(got, 5)] == [rest.table.ids[row] for row in pick(rest, 5)]
    assert [got.sentence(int(row)) for row in got.order] == [rest.sentence(int(row)) for row in rest.order]
    assert got.unranked == {}
    with pytest.raises(ValueError, match=r"keep must be \(12,\) bool"):
        rank(whole, graph(), LABELS, params, keep=keep[:5])


def by_error(folder: Path, errors: list[float], fine: list[int] | None = None) -> PoolTable:
    """A pool whose images have these E and one proposal each."""
    concepts = fine or [0] * len(errors)
    return load_pool(write_run(folder, [image(f"s{i}", [concepts[i]], image_error=e) for i, e in enumerate(errors)]))


E_ALONE = GsalParams(alpha=1, beta=0, eta=0, lam=0)  # A = Z(E of the image)


def test_images_in_a_round_and_outside_the_view_count_in_z_and_are_not_picked(tmp_path: Path):
    """E = 1, 3, 5, 7 and 9: mean 5, std sqrt(8). The last is labeled by now: of the rest the mean is 4, std sqrt(5)."""
    table = by_error(tmp_path, [1, 3, 5, 7, 9])
    unlabeled, no_round, view = (np.isin(np.arange(5), rows) for rows in ([0, 1, 2, 3], [0, 1, 2], [0, 1, 4]))
    got = rank(table, graph(), LABELS, E_ALONE, keep=unlabeled, free=no_round, pickable=view)
    np.testing.assert_allclose(got.scores.score[:4] * 5**0.5, [-3, -1, 1, 3], atol=1e-6)
    assert np.isnan(got.scores.score[4])
    assert got.rank.tolist() == [3, 2, 1, 0, 0]
    assert got.choice.tolist() == [1, 0] and pick(got, 2) == [1, 0]
    assert best_left(got, [1]) == 0, "the best of all is outside the view"
    with pytest.raises(ValueError, match=r"budget must be a whole number in \[1, 2\]"):
        pick(got, 3)
    assert got.sentence(3) == "not ranked: it was not to be picked in this ranking."
    with pytest.raises(ValueError, match=r"pickable must be \(5,\) bool"):
        rank(table, graph(), LABELS, E_ALONE, pickable=view[:3])


@pytest.mark.parametrize("named", [{"batch": "greedy"}, {"strategy": "no_rarity"}, {"strategy": "random"}, {}])
def test_no_way_to_pick_takes_an_image_that_may_not_be_picked(tmp_path: Path, named: dict):
    table = load_pool(write_run(tmp_path, rows(12)))
    free, view = np.arange(12) > 2, np.arange(12) % 2 == 0
    got = rank(table, graph(), LABELS, GsalParams(**named), free=free, pickable=view)
    assert sorted(pick(got, 4)) == [4, 6, 8, 10]
    assert set(rivals(got, 9)["random"].tolist()) == {4, 6, 8, 10}


@pytest.mark.parametrize(
    ("levels", "bonus"), [("FCA", 1.0), ("F", 1.0), ("FA", 1.0), ("CA", 0.0), ("C", 0.0), ("A", 0.0)]
)
def test_unmatched_counts_as_an_unseen_fine_node_where_fine_nodes_count(tmp_path: Path, levels: str, bonus: float):
    table = by_error(tmp_path, [1, 2, 3], fine=[-2, 0, -1])
    got = rank(table, graph(), LABELS, GsalParams(levels=levels))
    assert got.bonus[0] == bonus and got.bonus[2] == 0


def test_non_finite_statistics_are_unranked_and_named(tmp_path: Path):
    written = rows(6)
    written[1]["image_error"] = float("nan")
    written[2] |= {"proposal_error": [float("inf")] * 3}
    written[3]["proposal_variance"][0] = float("nan")
    written[3]["fine"][0] = 2  # void, which would have a bonus
    ranking = rank(load_pool(write_run(tmp_path, written)), graph(), LABELS)
    assert list(ranking.unranked) == ["s1", "s2"]
    assert "not finite" in ranking.unranked["s1"] and "no proposal" in ranking.unranked["s2"]
    assert ranking.bonus[ranking.table.first_proposal(3)] == 0
    assert ranking.sentence(1) == "not ranked: the difficulty of the image is not finite."
    assert sorted(ranking.order.tolist()) == [0, 3, 4, 5]


def test_a_graph_with_fewer_concepts_than_the_run_is_refused(tmp_path: Path):
    table = load_pool(write_run(tmp_path, [image("a", [7]), image("b", [0])]))
    with pytest.raises(ValueError, match="assigned concept 7, and the graph six has 3 fine nodes"):
        rank(table, graph(), {})


def test_new_labels_change_the_ranking_without_a_new_score(tmp_path: Path):
    table = load_pool(write_run(tmp_path, rows(12)))
    before, after = (rank(table, graph(), labels) for labels in ({"crack": 1}, {"void": 9}))
    np.testing.assert_array_equal(before.scores.image, after.scores.image)
    assert not np.allclose(before.scores.rarity, after.scores.rarity)


def test_every_fact_is_plain_json(tmp_path: Path):
    written = rows(8)
    written[2]["prob"] = [float("nan")] * 3
    written[4]["image_error"] = float("nan")
    table = load_pool(write_run(tmp_path, written))
    for strategy in ("gsal", "random", "symbolic_only"):
        ranking = rank(table, graph(), LABELS, GsalParams(strategy=strategy))
        for row in range(8):
            json.loads(json.dumps(ranking.facts(row), allow_nan=False))
