"""The scoring worker as a process: results, resume after kill -9 in every stage, two ranks, bad images, bad models."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsal_fo.config import ConceptConfig, DiffusionConfig
from gsal_fo.run_folder import shards
from tests.modules.helpers import (
    BOXES,
    picks,
    run_here,
    run_worker,
    write_ddpm,
    write_images,
    write_run,
)
from tests.modules.processes import kill_at, run_ranks

STAGES = ("proposals", "difficulty", "concepts", "assignment")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_ddpm(tmp_path_factory.mktemp("models") / "ddpm")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 40)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, images, model):
    run = tmp_path_factory.mktemp("runs") / "one"
    write_run(run, images, model=model)
    done = run_worker(run)
    assert done.returncode == 0, done.stdout + done.stderr
    return run


def rows(run: Path, stage: str) -> dict[str, dict]:
    """Rows by id; fails on an id that is there twice."""
    found = list(shards.iter_rows(run, stage))
    by_id = {row["id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id


def assert_same(a: Path, b: Path) -> None:
    for stage in ("proposals", "difficulty", "assignment"):
        left, right = rows(a, stage), rows(b, stage)
        assert left.keys() == right.keys()
        for key, row in left.items():
            for name, value in row.items():
                other = right[key][name]
                if isinstance(value, np.ndarray) and name != "map":
                    np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-7 if name in ("prob", "margin") else 0)
                elif isinstance(value, float):
                    assert value == pytest.approx(other, rel=1e-5), (stage, key, name)
                elif name != "map":
                    assert value == other, (stage, key, name)


def test_every_pool_image_gets_statistics_and_concepts_for_each_proposal(scored):
    proposals, difficulty, assignment = (rows(scored, s) for s in ("proposals", "difficulty", "assignment"))
    assert sorted(proposals) == [f"img{i:04d}" for i in range(6, 40)]  # 6 of the 40 are labeled
    assert proposals.keys() == difficulty.keys() == assignment.keys()
    for key, row in proposals.items():
        n = len(row["boxes"]) // 4
        assert row["source"] == "grid" and n == 10  # no detector and no boxes: the cold start's windows
        assert len(difficulty[key]["proposal_error"]) == len(assignment[key]["fine"]) == n
        assert np.isfinite(difficulty[key]["proposal_error"]).all() and difficulty[key]["image_error"] > 0
        assert set(assignment[key]["fine"]) <= {0, 1, -2}


def test_whole_image_window_of_the_grid_scores_as_the_image_itself(scored):
    """The grid's first window is the whole image at the same 16 px, so its E and V are the image's."""
    for row in rows(scored, "difficulty").values():
        assert row["proposal_error"][0] == pytest.approx(row["image_error"], rel=1e-4)
        assert row["proposal_variance"][0] == pytest.approx(row["image_variance"], rel=1e-4)


def test_two_processes_give_the_same_scores_no_image_twice_none_lost(scored, images, model, tmp_path):
    write_run(tmp_path / "two", images, model=model)
    run_ranks(tmp_path / "two")
    assert {p.name[:8] for p in (tmp_path / "two" / "difficulty").glob("part-*")} == {"part-000", "part-001"}
    assert_same(scored, tmp_path / "two")
    assert picks(scored) == picks(tmp_path / "two")
    one, two = (json.loads((run / "result.json").read_text())["diffusion"] for run in (scored, tmp_path / "two"))
    assert one["scored"] == two["scored"] == 34 * 11  # pool images, each with ten windows, over both ranks
    assert one["elements"] == two["elements"] == 34 * 11 * 3 * 16 * 16 * 4


def test_a_pool_too_small_for_all_processes_is_scored_by_those_that_have_rows(images, model, tmp_path):
    for name in ("one", "two"):
        write_run(tmp_path / name, images[:8], model=model)
    assert run_here(tmp_path / "one").returncode == 0
    run_ranks(tmp_path / "two")
    assert_same(tmp_path / "one", tmp_path / "two")


def test_killed_in_every_stage_the_same_command_finishes_with_the_same_result(scored, images, model, tmp_path):
    run = tmp_path / "killed"
    write_run(run, images, model=model)
    for stage in STAGES:  # one run: each command goes on where the one before was killed
        kill_at(run, run / stage, GSAL_PART_ROWS="1")  # one row per part, so that there are parts to find half-way
        assert list((run / stage).glob("part-*")) and not (run / "result.json").exists()
        # what a kill inside a write leaves
        (run / stage / ".part-000-000099.parquet.1.tmp").write_bytes(b"PAR1 half a part")
    done = run_here(run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(scored, run)


def test_bad_images_are_listed_with_the_reason_and_odd_ones_are_scored(model, tmp_path):
    good = write_images(tmp_path / "images", 8)
    odd = tmp_path / "images"
    pixels = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 28
    Image.fromarray(pixels).save(odd / "deep.png")
    Image.new("CMYK", (48, 48), (10, 90, 30, 0)).save(odd / "cmyk.jpg")
    palette = Image.new("P", (48, 48), 1)
    palette.putpalette([0, 0, 0, 200, 30, 30] + [0] * 750)
    palette.save(odd / "palette.png", transparency=0)
    Image.new("L", (1, 1), 77).save(odd / "one.png")
    Image.new("L", (5000, 7), 77).save(odd / "wide.png")
    (odd / "empty.png").write_bytes(b"")
    (odd / "cut.png").write_bytes(good[0].read_bytes()[:900])
    (odd / "text.png").write_text("not an image")
    names = [
        "deep.png",
        "cmyk.jpg",
        "palette.png",
        "one.png",
        "wide.png",
        "empty.png",
        "cut.png",
        "text.png",
        "gone.png",
    ]
    write_run(tmp_path / "run", [*good, *(odd / n for n in names)], model=model)
    done = run_here(tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    ids = {f"img{8 + i:04d}": name for i, name in enumerate(names)}
    failed = {ids[e["id"]]: e["reason"] for e in events if e["event"] == "failed"}
    assert sorted(failed) == ["cut.png", "empty.png", "gone.png", "text.png"]
    assert "truncated" in failed["cut.png"] and "empty" in failed["empty.png"]
    assert "missing" in failed["gone.png"] and "not an image" in failed["text.png"]
    difficulty = rows(tmp_path / "run", "difficulty")
    for key, name in ids.items():
        assert (key in difficulty) == (name not in failed)
        if key in difficulty:
            assert np.isfinite(difficulty[key]["image_error"])


def test_an_image_deleted_after_detection_fails_alone(model, tmp_path):
    paths = write_images(tmp_path / "images", 10)
    write_run(tmp_path / "run", paths, model=model)
    assert run_here(tmp_path / "run").returncode == 0
    for stage in ("difficulty", "concepts"):
        for part in (tmp_path / "run" / stage).glob("part-*"):
            part.unlink()
    paths[9].unlink()
    done = run_here(tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads(s)["id"] for s in done.stdout.splitlines() if json.loads(s)["event"] == "failed"] == ["img0009"]
    assert "missing" in rows(tmp_path / "run", "difficulty")["img0009"]["error"]
    assert rows(tmp_path / "run", "difficulty")["img0008"]["error"] is None


def test_a_model_that_returns_nan_leaves_nan_not_a_number_that_ranks(images, tmp_path):
    nan = write_ddpm(tmp_path / "nan", nan=True)
    write_run(tmp_path / "run", images[:9], model=nan)
    done = run_here(tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(np.isnan(row["image_error"]) for row in rows(tmp_path / "run", "difficulty").values())


def test_parts_of_another_configuration_are_refused_in_one_sentence(images, model, tmp_path):
    write_run(tmp_path / "run", images[:8], model=model)
    assert run_here(tmp_path / "run").returncode == 0
    changed = DiffusionConfig(model=str(model), crop_size=16, draws=8)
    write_run(tmp_path / "run", images[:8], model=model, diffusion=changed)
    done = run_here(tmp_path / "run")
    assert done.returncode == 1
    error = json.loads(done.stdout.splitlines()[-1])
    assert error["event"] == "error" and "never mixed" in error["message"] and "\n" not in error["message"]


def test_a_second_run_over_the_same_images_does_no_diffusion_work(images, model, tmp_path):
    for name in ("first", "second"):
        write_run(tmp_path / name, images[:12], model=model, cache=str(tmp_path / "cache"))
        done = run_here(tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
    scored = [
        json.loads((tmp_path / n / "result.json").read_text())["diffusion"]["scored"] for n in ("first", "second")
    ]
    assert scored == [6 * 11, 0]  # 6 pool images, each with 10 windows
    for key, row in rows(tmp_path / "first", "difficulty").items():
        np.testing.assert_array_equal(
            row["proposal_error"], rows(tmp_path / "second", "difficulty")[key]["proposal_error"]
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_ends_in_one_sentence_and_goes_on_once_there_is_room(images, model, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        write_run(place / "run", images, model=model)
        (place / "filler").write_bytes(b"x" * 40_000)
        done = run_here(place / "run")
        assert done.returncode == 1
        message = json.loads(done.stdout.splitlines()[-1])["message"]
        assert "No space left" in message and "free space" in message
        subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)
        done = run_here(place / "run")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_label_outside_the_graph_is_counted_by_looks_and_reported(images, model, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_run(tmp_path / "run", images[:14], model=model)
    table = pq.read_table(tmp_path / "run" / "manifest.parquet").to_pylist()
    table[5]["labels"] = ["defect"]  # image 5 holds a disk
    shards.write_table(pa.Table.from_pylist(table, schema=shards.MANIFEST), tmp_path / "run" / "manifest.parquet")
    done = run_here(tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    notes = [json.loads(s)["message"] for s in done.stdout.splitlines() if json.loads(s)["event"] == "note"]
    assert any('"defect"' in n and "disk" in n for n in notes), notes
    assert json.loads((tmp_path / "run" / "assigned.json").read_text())["unknown"] == {"defect": {"disk": 1}}


def test_prototypes_without_a_known_label_say_what_to_use_instead(images, model, tmp_path):
    write_run(tmp_path / "run", images[:8], model=model, labeled=0)
    done = run_here(tmp_path / "run")
    assert done.returncode == 1
    assert 'use assign="clip"' in json.loads(done.stdout.splitlines()[-1])["message"]


def test_detector_assignment_without_a_detector_is_refused(images, model, tmp_path):
    write_run(tmp_path / "run", images[:8], model=model, concepts=ConceptConfig(assign="detector"))
    done = run_here(tmp_path / "run")
    assert done.returncode == 1 and "needs a trained detector" in json.loads(done.stdout.splitlines()[-1])["message"]


def test_auto_takes_what_the_labeled_crops_speak_for_and_says_so(images, model, tmp_path):
    """The worker's trial is the same as one made here by hand, and the concepts are the chosen method's."""
    from gsal_fo.concepts.auto_assign import choose
    from gsal_fo.concepts.graph import ConceptGraph
    from gsal_fo.concepts.similarity import background_embeddings, text_embeddings
    from gsal_fo.images import read_image
    from lightning_modules.data import crops, to_float
    from lightning_modules.nets import load_clip, load_encoder

    encoder = "mobilenet_v2:none"
    config = write_run(tmp_path / "run", images[:14], model=model, labeled=10, concepts=ConceptConfig(encoder=encoder))
    done = run_here(tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    choice = json.loads((tmp_path / "run" / "result.json").read_text())["choice"]

    graph, clip = ConceptGraph.load(config.graph), load_clip("embedded")
    seen: dict[str, dict[str, np.ndarray]] = {"clip": {}, "encoder": {}}
    with torch.inference_mode():
        for name, net in (("clip", clip), ("encoder", load_encoder(encoder))):
            for i in range(10):
                cut = crops(read_image(images[i])[0], np.array([BOXES[i % 2]]), pad=0.2, size=net.input_size)
                seen[name][f"img{i:04d}"] = net.embed(to_float(cut)).numpy().astype(np.float16).astype(np.float32)
        text, background = text_embeddings(graph, clip.encode_text), background_embeddings(graph, clip.encode_text)
    labels = {f"img{i:04d}": [("bar", "disk")[i % 2]] for i in range(10)}
    expected = choose(graph, labels, seen["clip"], seen["encoder"], text, background)
    assert choice == expected.to_dict() and expected.trial.crops == 10
    notes = [json.loads(s)["message"] for s in done.stdout.splitlines() if json.loads(s)["event"] == "note"]
    assert notes == [expected.why]
    assert json.loads((tmp_path / "run" / "assigned.json").read_text())["assign"] == expected.assign

    write_run(tmp_path / "cold", images[:4], model=model, labeled=0, concepts=ConceptConfig())
    done = run_here(tmp_path / "cold")
    assert done.returncode == 0, done.stdout + done.stderr
    choice = json.loads((tmp_path / "cold" / "result.json").read_text())["choice"]
    assert (choice["assign"], choice["trial"]) == ("clip", None)
