"""Scoring through the real process door, and what it leaves in a dataset."""

import errno
import json
import os
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import gsal_fo.fo as gfo
from gsal_fo.cli import main
from gsal_fo.config import GsalParams
from gsal_fo.fo import auditing
from gsal_fo.fo.dataset import fields
from gsal_fo.worker.process import WorkerError
from tests.fo_pool import box, picture


def values(dataset):
    """Everything that a person would miss, were it changed: all fields of all samples, tags, runs."""
    dataset.reload()
    return (
        json.loads(json.dumps([s.to_dict() for s in dataset], default=str)),
        dataset.list_runs(),
        sorted(dataset.get_field_schema()),
    )


def test_the_pool_gets_scores_ranks_and_reasons_and_labeled_images_none(dataset, graph, tiny):
    key = gfo.score(dataset, concepts=graph)
    labels, scores, ranks, reasons = dataset.values(["ground_truth", "gsal_score", "gsal_rank", "gsal_rationale"])
    pool = [i for i, label in enumerate(labels) if label is None]
    assert key == "gsal_score_001" and len(pool) == 9
    assert sorted(ranks[i] for i in pool) == list(range(1, 10))
    assert all(v[i] is None for i in range(3) for v in (scores, ranks, reasons))
    by_rank = sorted(pool, key=lambda i: ranks[i])
    assert [scores[i] for i in by_rank] == sorted((scores[i] for i in pool), reverse=True)
    assert all(reasons[i].startswith(f"rank {ranks[i]} of 9, score ") for i in pool)


def test_the_decisive_path_leads_and_every_node_of_an_image_can_be_filtered(dataset, graph, tiny):
    gfo.score(dataset, concepts=graph)
    for sample in dataset.exists("gsal_rank"):
        fine = sample.gsal_fine.label
        best = max(sample.gsal_proposals.detections, key=lambda d: d.score)
        assert fine == best.label and sample.gsal_path[: len(best.path)] == best.path
        assert sample.gsal_coarse.label == best.coarse
        assert [c.label for c in sample.gsal_abstract.classifications] == best.abstract
        assert set(sample.gsal_path) == {node for d in sample.gsal_proposals.detections for node in d.path}
    carried = [s.id for s in dataset if s.gsal_path and "round" in s.gsal_path]
    assert dataset.match(fo.ViewField("gsal_path").contains("round")).values("id") == carried


def test_the_record_holds_what_was_run_and_the_coverage_of_the_labels(dataset, graph, tiny):
    key = gfo.score(dataset, concepts=graph, params=GsalParams(lam=2.0))
    config = gfo.runs.load(dataset).config
    assert gfo.runs.load(dataset, key).config.params["lam"] == 2.0
    # By hand: two voids and one crack, so subsurface and dark 3, round 2, linear 1, and petal's other nodes 0.
    expected = {"void": 2, "crack": 1, "subsurface": 3, "dark": 3, "round": 2, "linear": 1}
    assert dict(config.coverage) == {**expected, "petal": 0, "surface": 0, "bright": 0}
    assert config.counts == {"pool": 9, "labeled": 3, "scored": 9, "failed": 0, "proposals": 18}
    assert set(config.rare) >= {"petal", "surface", "bright"} and config.run_dir.endswith(f"runs/{dataset.slug}/{key}")


def test_maps_share_one_scale_and_lie_in_the_run_folder(dataset, graph, tiny):
    key = gfo.score(dataset, concepts=graph)
    folder = Path(gfo.runs.load(dataset, key).config.run_dir)
    paths = [m.map_path for m in dataset.exists("gsal_map").values("gsal_map")]
    assert len(paths) == 9 and {Path(p).parent for p in paths} == {folder / "maps"}
    darkest, brightest = (f([f(np.asarray(Image.open(p))) for p in paths]) for f in (np.min, np.max))
    assert darkest == 0 and brightest == 255


def test_a_field_of_ours_that_a_person_made_stops_the_run_before_any_work(dataset, graph, tiny, home):
    dataset.set_values("gsal_score", [0.5] * 12)
    before = values(dataset)
    with pytest.raises(ValueError, match="already has a field gsal_score that GSAL did not write"):
        gfo.score(dataset, concepts=graph)
    assert values(dataset) == before and not (home / "runs").exists()


def test_an_owned_field_that_changed_its_type_is_refused(dataset, graph, tiny):
    gfo.score(dataset, concepts=graph)
    dataset.delete_sample_field("gsal_rationale")
    dataset.add_sample_field("gsal_rationale", fo.IntField)
    with pytest.raises(ValueError, match=r"gsal_rationale of dataset .* is IntField, not StringField"):
        gfo.score(dataset, concepts=graph)


def test_a_worker_killed_in_any_stage_leaves_the_dataset_alone_and_the_same_call_goes_on(
    dataset, graph, tiny, monkeypatch
):
    dataset.delete_run(gfo.score(dataset, concepts=graph, run_key="reference"))
    before = values(dataset)
    fresh, events = {}, []
    for stage in ("proposals", "difficulty", "assignment"):
        monkeypatch.setenv("TINY_DIE", stage)
        with pytest.raises(WorkerError, match="killed by SIGKILL"):
            gfo.score(dataset, concepts=graph, on_event=events.append)
        assert values(dataset) == before
        fresh |= {e["stage"]: e["fresh"] for e in events if "fresh" in e}
    monkeypatch.delenv("TINY_DIE")
    assert gfo.score(dataset, concepts=graph, on_event=events.append) == "gsal_score_001", "the interrupted run goes on"
    fresh |= {e["stage"]: e["fresh"] for e in events if "fresh" in e}
    # Each kill came after the first 4 of what was left of 9: 5 the second time, or 0 where the stage was whole by then.
    assert fresh["assignment"] == 5
    scores = dataset.values("gsal_score")
    gfo.score(dataset, concepts=graph, run_key="reference")
    assert dataset.values("gsal_score") == scores


def test_a_failing_worker_is_one_sentence_and_changes_nothing(dataset, graph, tiny, monkeypatch):
    monkeypatch.setenv("TINY_FAIL", "the model folder has no unet; give another")
    before = values(dataset)
    with pytest.raises(WorkerError, match=r"^the model folder has no unet; give another$"):
        gfo.score(dataset, concepts=graph)
    assert values(dataset) == before


def test_a_rerun_replaces_only_our_own_output(dataset, graph, tiny):
    dataset.set_values("note", [f"mine {i}" for i in range(12)])
    dataset.tag_samples("mine")
    gfo.score(dataset, concepts=graph)
    first = dataset.exists("gsal_rank").first()
    first["ground_truth"] = fo.Detections(detections=[box("petal")])
    first.save()
    second = gfo.score(dataset, concepts=graph)
    dataset.reload()
    again = dataset[first.id]
    assert second == "gsal_score_002" and again.gsal_score is None and again.gsal_proposals is None
    assert dataset.values("note") == [f"mine {i}" for i in range(12)] and dataset.count_sample_tags() == {"mine": 12}
    dataset.delete_run("gsal_score_001")
    assert dataset.has_sample_field("gsal_score"), "the fields are the second run's by now"
    dataset.delete_run(second)
    assert not any(name.startswith("gsal_") for name in dataset.get_field_schema())


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_a_scoring_that_ends_while_it_writes_leaves_the_dataset_as_it_was(dataset, graph, tiny, again):
    """Nothing of the samples changes before all values lie beside them; the same call goes on from the run folder."""
    if again:
        gfo.score(dataset, concepts=graph)
    before = values(dataset)
    events = gfo.score_events(dataset, concepts=graph, params={"lam": 2.0}, run_key="mine" if again else None)
    for event in events:
        if event.get("stage") == "write" and event["done"]:
            break
    events.close()
    assert values(dataset) == before
    key = gfo.score(dataset, concepts=graph, params={"lam": 2.0}, run_key="mine" if again else None)
    assert key == ("mine" if again else "gsal_score_001") and len(dataset.exists("gsal_rank")) == 9


def test_a_disk_that_is_full_while_maps_are_written_leaves_the_earlier_scores(dataset, graph, tiny, monkeypatch):
    gfo.score(dataset, concepts=graph)
    before = values(dataset)
    real = Image.Image.save

    def full(self, path, *args, **kwargs):
        if "maps" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(ValueError, match=r"cannot write .*maps.*No space left on device; free space"):
            gfo.score(dataset, concepts=graph, detector="grid")
    assert values(dataset) == before
    assert gfo.score(dataset, concepts=graph, detector="grid") == "gsal_score_002"
    assert dataset.count("gsal_proposals.detections") == 90


def test_a_scoring_that_scores_nothing_is_an_error_and_the_earlier_scores_stay(dataset, graph, tiny, tmp_path, capsys):
    """The share with the images is not mounted; mounted again, the same command scores them."""
    gfo.score(dataset, concepts=graph)
    before = values(dataset)
    dataset.persistent = True
    command = ["score", dataset.name, "--concepts", str(graph), "--detector", "grid"]
    (tmp_path / "images").rename(tmp_path / "away")
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "none of the 9 images" in said and "the file is missing (9); the dataset is as it was" in said
    assert values(dataset) == before
    (tmp_path / "away").rename(tmp_path / "images")
    assert main(command) == 0
    assert "gsal_score_002: 9 of 9" in capsys.readouterr().out


def test_images_deleted_while_the_worker_runs_are_left_out_with_a_note(dataset, graph, tiny):
    """One of the labeled, which the counts are made from, and one of the pool."""
    events = gfo.score_events(dataset, concepts=graph, detector="grid")
    labeled, *_, unlabeled = dataset.values("id")
    said = []
    for event in events:
        if event.get("stage") == "proposals":
            dataset.delete_samples([labeled, unlabeled])
        said.append(event)
    config = gfo.runs.load(dataset).config
    assert "2 images were deleted from the dataset while it was scored, and left out" in config.notes
    assert dict(config.coverage)["void"] == 0, "the first image held the two voids"
    assert sorted(r for r in dataset.values("gsal_rank") if r) == list(range(1, 9))
    assert said[-1] == {"event": "done", "run_key": "gsal_score_001", **config.counts}


def test_two_scorings_at_once_have_two_keys_and_two_records(dataset, graph, tiny, tmp_path):
    first = gfo.score_events(dataset, concepts=graph, detector="grid", run_dir=tmp_path / "a")
    next(e for e in first if e["event"] == "progress")
    second = gfo.score(dataset, concepts=graph, detector="grid", run_dir=tmp_path / "b", params={"lam": 2.0})
    gfo.select(dataset, 2)
    *_, last = first
    assert (last["run_key"], second) == ("gsal_score_001", "gsal_score_002")
    records = {key: gfo.runs.load(dataset, key).config for key in gfo.runs.score_keys(dataset)}
    assert {k: (Path(c.run_dir).name, c.params["lam"]) for k, c in records.items()} == {
        "gsal_score_001": ("a", 1.0),
        "gsal_score_002": ("b", 2.0),
    }
    assert gfo.runs.load(dataset, "gsal_select_001").config.score_run == "gsal_score_002"
    assert list(auditing.verify(dataset).values()) == [[]]


def test_two_users_with_homes_of_their_own_do_not_share_a_key(dataset, graph, tiny, tmp_path, monkeypatch):
    first = gfo.score_events(dataset, concepts=graph, detector="grid")
    next(e for e in first if e["event"] == "progress")
    monkeypatch.setenv("GSAL_HOME", str(tmp_path / "another"))
    assert gfo.score(dataset, concepts=graph, detector="grid") == "gsal_score_002"
    *_, last = first
    assert last["run_key"] == "gsal_score_001"
    assert len({gfo.runs.load(dataset, key).config.run_dir for key in gfo.runs.score_keys(dataset)}) == 2


def test_the_same_scoring_twice_at_once_is_refused_and_says_who_does_it(dataset, graph, tiny):
    first = gfo.score_events(dataset, concepts=graph, detector="grid")
    next(e for e in first if e["event"] == "progress")
    with pytest.raises(ValueError, match=rf"works as gsal_score_001 already: score of .* \(process {os.getpid()} on "):
        gfo.score(dataset, concepts=graph, detector="grid")
    first.close()
    assert gfo.score(dataset, concepts=graph, detector="grid") == "gsal_score_001", "the key was given back"


def test_a_run_key_does_not_move_to_another_folder(dataset, graph, tiny, tmp_path):
    gfo.score(dataset, concepts=graph, detector="grid", run_key="mine")
    with pytest.raises(ValueError, match=r"mine is the scoring in .*mine; give another run_key, or delete that run"):
        gfo.score(dataset, concepts=graph, detector="grid", run_key="mine", run_dir=tmp_path / "other")


def test_one_run_key_is_one_run(dataset, graph, tiny):
    gfo.score(dataset, concepts=graph, run_key="mine")
    scores = dataset.values("gsal_score")
    assert gfo.score(dataset, concepts=graph, run_key="mine") == "mine" and dataset.values("gsal_score") == scores
    with pytest.raises(ValueError, match="other images or with another configuration; use another run_key"):
        gfo.score(dataset, concepts=graph, run_key="mine", assign="prototypes")
    with pytest.raises(ValueError, match="run_key must be letters"):
        gfo.score(dataset, concepts=graph, run_key="not a key")


def test_no_labels_at_all_is_a_cold_start_with_a_note(dataset, graph, tiny):
    events = []
    dataset.clear_sample_field("ground_truth")
    gfo.score(dataset, concepts=graph, on_event=events.append)
    assert any("cold start" in e.get("message", "") for e in events)
    assert dataset.distinct("gsal_proposals.detections.source") == ["grid"]
    assert len(dataset.exists("gsal_rank")) == 12


def test_a_view_of_unlabeled_images_uses_the_datasets_labels_and_says_so(dataset, graph, tiny):
    unlabeled = dataset.match(fo.ViewField("ground_truth") == None)  # noqa: E711
    gfo.score(unlabeled, concepts=graph)
    config = gfo.runs.load(dataset).config
    assert config.counts["labeled"] == 3 and "3 labeled ones of the dataset" in config.notes[0]


def test_a_view_with_labels_keeps_the_rest_out(dataset, graph, tiny):
    gfo.score(dataset[1:8], concepts=graph)
    config = gfo.runs.load(dataset).config
    assert config.counts["labeled"] == 2 and dict(config.coverage)["void"] == 0, "image 0 is outside the view"


def test_bad_images_are_listed_with_a_reason_and_never_ranked(dataset, graph, tiny, tmp_path):
    (tmp_path / "images" / "empty.png").touch()
    nan = picture(tmp_path / "images" / "nan.png", 99)
    bad = [fo.Sample(str(tmp_path / "images" / n)) for n in ("gone.png", "empty.png")] + [fo.Sample(nan)]
    dataset.add_samples(bad)
    gfo.score(dataset, concepts=graph)
    dataset.reload()
    reasons = {Path(s.filepath).name: (s.gsal_error, s.gsal_rank, s.gsal_score) for s in dataset.exists("gsal_error")}
    assert reasons == {
        "gone.png": ("the file is missing", None, None),
        "empty.png": ("the file is no image", None, None),
        "nan.png": ("the difficulty of the image is not finite", None, None),
    }
    assert gfo.runs.load(dataset).config.counts["failed"] == 2


def test_proposals_come_from_a_field_and_no_detector_is_trained(dataset, graph, tiny):
    preds = [fo.Detections(detections=[box("x", confidence=0.7)] if i % 2 else []) for i in range(12)]
    dataset.set_values("preds", preds)
    events = []
    gfo.score(dataset, concepts=graph, proposals="preds", on_event=events.append)
    assert not any(e.get("stage") == "train" for e in events)
    got = {s.id: s.gsal_proposals.detections for s in dataset.exists("gsal_rank")}
    assert {d.source for boxes in got.values() for d in boxes} == {"field", "whole"}
    assert dataset.count("gsal_proposals.detections") == 9 and dataset[-1:].first().gsal_proposals.detections[
        0
    ].confidence == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proposals": "nowhere"}, 'no field "nowhere"'),
        ({"proposals": "filepath"}, "not Detections"),
        ({"proposals": "ground_truth"}, "cannot both be"),
        ({"label_field": "filepath"}, "not Detections"),
        ({"detector": "/nowhere"}, "holds no detector.json"),
        ({"processes": 0}, "processes must be a whole number in"),
        ({"concepts": "/nowhere.yaml"}, "cannot read the concept graph"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_in_a_sentence(dataset, graph, tiny, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        gfo.score(dataset, **{"concepts": graph, **change})
    assert "\n" not in str(caught.value)


def test_what_is_no_pool_of_images_is_refused(dataset, graph, tiny, tmp_path):
    with pytest.raises(ValueError, match="expected a FiftyOne dataset or view, got list"):
        gfo.score([], concepts=graph)
    with pytest.raises(ValueError, match=r"the view of .* is empty"):
        gfo.score(dataset.match_tags("nobody"), concepts=graph)
    with pytest.raises(ValueError, match="holds patches"):
        gfo.score(dataset.to_patches("ground_truth"), concepts=graph)
    with pytest.raises(ValueError, match="all 3 images have labels"):
        gfo.score(dataset.exists("ground_truth"), concepts=graph)
    with pytest.raises(ValueError, match='assign="prototypes" knows only concepts that have labels'):
        dataset.clear_sample_field("ground_truth")
        gfo.score(dataset, concepts=graph, assign="prototypes")
    video = fo.Dataset()
    video.add_sample(fo.Sample(str(tmp_path / "film.mp4")))
    with pytest.raises(ValueError, match="holds video"):
        gfo.score(video, concepts=graph)


def test_a_full_or_unwritable_run_folder_is_a_sentence(dataset, graph, tiny, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(ValueError, match=r"cannot write to .*choose another run folder"):
        gfo.score(dataset, concepts=graph, run_dir=blocked / "run")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("keep me")
    with pytest.raises(ValueError, match="holds files that are no GSAL run"):
        gfo.score(dataset, concepts=graph, run_dir=foreign)
    assert [p.name for p in foreign.iterdir() if p.name != ".lock"] == ["thesis.txt"]


def test_every_field_that_is_written_is_in_the_table_and_shown_by_the_schema(dataset, graph, tiny):
    gfo.score(dataset, concepts=graph)
    schema = dataset.get_field_schema(flat=True)
    table = {f.name: f for f in fields.SAMPLE_FIELDS + fields.PROPOSAL_FIELDS if f.owner == "score"}
    assert set(table) <= set(schema) and all(schema[n].description == f.meaning for n, f in table.items())
    assert {n for n in dataset.get_field_schema() if n.startswith("gsal_")} == set(fields.SCORE_FIELDS)
    assert not dataset.get_dynamic_field_schema(), "an undeclared attribute would be invisible in the App"
