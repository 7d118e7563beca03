"""Grouped datasets: every command works on the slice that is named, whichever is active, and changes neither."""

import json

import fiftyone as fo
import pyarrow.parquet as pq
import pytest
from fiftyone import ViewField as F

import gsal_fo.fo as gfo
from gsal_fo.cli import main
from gsal_fo.fo.app import forms, live, why
from gsal_fo.fo.app.saved_views import OURS
from gsal_fo.fo.console import batch_of, open_samples
from tests.fo_pool import box, picture

GROUPS = 8
LABELED = {"left": {0: "void", 1: "crack"}, "right": {2: "petal", 3: "petal", 4: "void"}}


@pytest.fixture
def grouped(tmp_path, request):
    """Eight groups of two cameras and a video. On the left two images are labeled, on the right three; no slice of
    images is the default one."""
    dataset = fo.Dataset(f"grouped-{request.node.name[:40]}", overwrite=True)
    dataset.add_group_field("group", default="movie")
    samples = []
    for k in range(GROUPS):
        group = fo.Group()
        samples.append(fo.Sample(str(tmp_path / f"{k}.mp4"), group=group.element("movie")))
        for side, labels in LABELED.items():
            path = picture(tmp_path / side / f"{k}.png", seed=k + 100 * (side == "left"))
            sample = fo.Sample(path, group=group.element(side))
            sample["boxes"] = fo.Detections(detections=[box("x", confidence=0.9), box("x", x=0.6, confidence=0.8)])
            if k in labels:
                sample["ground_truth"] = fo.Detections(detections=[box(labels[k])])
            samples.append(sample)
    dataset.add_samples(samples)
    dataset.persistent = True
    yield dataset
    dataset.delete()


def slice_of(dataset, sample_ids) -> set[str]:
    flat = dataset.select_group_slices(_allow_mixed=True)
    return set(flat.select(list(sample_ids)).values("group.name"))


def with_field(dataset, name) -> list[str]:
    """Ids of the samples of all slices that have a value in a field."""
    return dataset.select_group_slices(_allow_mixed=True).exists(name).values("id")


def chosen(dataset) -> tuple[str, str]:
    return dataset.group_slice, dataset.default_group_slice


@pytest.mark.parametrize("active", ["movie", "left", "right"])
def test_a_round_of_one_slice_from_score_to_cancel(grouped, graph, tiny, tmp_path, active):
    grouped.group_slice = active
    before = chosen(grouped)
    left = grouped.select_group_slices("left")
    key = gfo.score(left, concepts=graph, proposals="boxes")
    record = gfo.runs.load(grouped, key).config
    assert record.counts["pool"] == 6 and record.counts["labeled"] == 2 and record.slices == ["left"]
    assert {name: n for name, n in record.coverage if name in ("void", "crack", "petal")} == {
        "void": 1,
        "crack": 1,
        "petal": 0,
    }, "the labels on the right are no labels of this slice"
    scored = with_field(grouped, "gsal_rank")
    assert len(scored) == 6 and slice_of(grouped, scored) == {"left"}

    batch = gfo.select(left, 2)
    assert batch.media_type == "image" and batch.values("gsal_round") == [1, 1]
    assert slice_of(grouped, batch.values("id")) == {"left"}
    assert gfo.status(grouped) == gfo.status(left)
    assert [(r["images"], r["picked"]) for r in gfo.status(grouped)] == [(2, 2)]

    grouped.reload()
    names = gfo.setup_views(grouped)
    shown = {n: grouped.load_saved_view(n) for n in names}
    sizes = {n.removeprefix(OURS): len(shown[n]) for n in names}
    assert (sizes["top of pool"], sizes["latest round"], sizes["failed"]) == (4, 2, 0)
    assert sizes["crops, hardest first"] == 8, "two proposals of each of four images"

    nodes = {r["node"]: r for r in gfo.coverage(grouped)}
    assert nodes["subsurface"]["labeled"] == 2 and nodes["petal"]["labeled"] == 0
    now = live.of(grouped)
    assert int(now.state.free.sum()) == 4 and int(now.state.picked.sum()) == 2 and now.state.labeled == 2
    shown_why = why.why(grouped, batch.values("id")[0])
    assert shown_why.round == 1 and shown_why.filepath == batch.values("filepath")[0]
    assert forms.rounds_of(grouped) == {"gsal_round_001": "2 picked"}

    second = gfo.select(grouped, 1)
    assert slice_of(grouped, second.values("id")) == {"left"}, "the dataset stands for all that was scored"
    assert gfo.cancel(grouped)["images"] == 1
    assert gfo.cancel(left)["images"] == 2
    assert with_field(grouped, "gsal_round") == [] if grouped.has_sample_field("gsal_round") else True
    assert chosen(grouped) == before


def test_the_latest_scoring_of_the_slice_that_is_asked_for(grouped, graph, tiny):
    left, right = (grouped.select_group_slices(s) for s in ("left", "right"))
    first = gfo.score(left, concepts=graph, proposals="boxes")
    second = gfo.score(right, concepts=graph, proposals="boxes")
    assert slice_of(grouped, gfo.select(left, 1).values("id")) == {"left"}
    assert slice_of(grouped, gfo.select(right, 1).values("id")) == {"right"}
    runs = [gfo.runs.load(grouped, k).config for k in gfo.runs.select_keys(grouped)]
    assert [r.score_run for r in runs] == [first, second] and [r.round for r in runs] == [1, 2]
    with pytest.raises(ValueError, match="budget 1 is above the 0 images"):
        gfo.select(left, 1, run_key=second)
    grouped.delete_run(first)
    with pytest.raises(ValueError, match=rf"has images of slice left \({second}: right\); score that slice first"):
        gfo.select(left, 1)


def test_labels_of_the_other_slice_start_no_warm_run(grouped, graph, tiny):
    """A view without labels takes the dataset's labeled images: those of its own slice."""
    grouped.select_group_slices("left").clear_sample_field("ground_truth")
    notes = []
    key = gfo.score(
        grouped.select_group_slices("left"), concepts=graph, proposals="boxes", on_event=lambda e: notes.append(e)
    )
    assert gfo.runs.load(grouped, key).config.counts["labeled"] == 0
    some = grouped.select_group_slices("right").match(F("ground_truth") == None)  # noqa: E711
    key = gfo.score(some, concepts=graph, proposals="boxes")
    record = gfo.runs.load(grouped, key).config
    assert record.counts["labeled"] == 3 and dict(record.coverage)["petal"] == 2
    assert any("the 3 labeled ones of the dataset's slice right count" in text for text in record.notes)
    left = grouped.select_group_slices("left")
    left.limit(1).set_values("ground_truth", [fo.Detections(detections=[box("crack")])])
    gfo.select(some, 1)
    assert dict(gfo.runs.load(grouped, "gsal_select_001").config.coverage)["crack"] == 0


def test_both_slices_of_images_can_be_one_pool(grouped, graph, tiny):
    key = gfo.score(grouped.select_group_slices(["left", "right"]), concepts=graph, proposals="boxes")
    record = gfo.runs.load(grouped, key).config
    assert (record.counts["pool"], record.counts["labeled"], record.slices) == (11, 5, ["left", "right"])
    assert slice_of(grouped, gfo.select(grouped, 11).values("id")) == {"left", "right"}


@pytest.mark.parametrize("active", ["movie", "left", "right"])
def test_the_command_line_takes_a_slice_or_a_saved_view_of_one(grouped, graph, tiny, capsys, active):
    grouped.group_slice = active
    grouped.save_view("rights", grouped.select_group_slices("right"))
    name = grouped.name
    score = ["score", name, "--concepts", str(graph), "--proposals", "boxes"]
    assert main(score) == 1
    said = capsys.readouterr().err
    assert (
        "is grouped, and GSAL ranks images; choose a slice of images (left, right)" in said and "--slice left" in said
    )
    assert main([*score, "--slice", "left"]) == 0
    assert main([*score, "--view", "rights"]) == 0
    assert main(["select", name, "--budget", "2", "--slice", "left"]) == 0
    assert main(["select", name, "--budget", "1", "--view", "rights"]) == 0
    assert main(["status", name]) == 0
    assert "gsal_round_001: 2 picked" in capsys.readouterr().out
    assert main(["setup-views", name]) == 0
    assert main(["audit", "verify", name]) == 0
    assert main(["cancel", name]) == 0
    assert main(["concepts", "build", name, "--slice", "right", "--out", str(graph.parent / "g.yaml")]) == 0
    for flags, text in (
        (["--slice", "movie"], 'has no slice of images "movie"; it has left, right'),
        (["--view", "rights", "--slice", "left"], "is empty"),
        (["--view", "none"], 'has no saved view "none"; it has'),
    ):
        assert main([*score, *flags]) == 1
        assert text in capsys.readouterr().err


def test_a_batch_is_found_by_its_tag_in_whichever_slice_it_is(grouped, graph, tiny):
    left = grouped.select_group_slices("left")
    gfo.score(left, concepts=graph, proposals="boxes")
    picked = gfo.select(left, 2).values("id")
    tag, batch = batch_of(open_samples(grouped.name), None)
    assert tag == "gsal_round_001" and set(batch.values("id")) == set(picked)
    with pytest.raises(ValueError, match="no image is selected yet"):
        batch_of(open_samples(grouped.name, slice="right"), None)


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (lambda d: d, r"is grouped, and GSAL ranks images; choose a slice of images \(left, right\)"),
        (lambda d: d.match(F("boxes") != None), "is grouped"),  # noqa: E711
        (lambda d: d.select_group_slices(["left", "right"], flat=False), "is grouped"),
        (lambda d: d.select_group_slices("movie"), r"holds video, and GSAL ranks images; choose a slice of images"),
        (lambda d: d.select_group_slices(_allow_mixed=True), "holds mixed, and GSAL ranks images; choose a slice"),
        (lambda d: d.select_group_slices("left").group_by("tags"), "group_by, and GSAL ranks single images"),
        (lambda d: d.select_group_slices("left").to_patches("boxes"), "holds patches, and GSAL ranks whole images"),
        (lambda d: d.select_group_slices("left").limit(0), "is empty"),
    ],
)
def test_what_is_no_slice_of_images_is_refused_in_a_sentence(grouped, graph, view, text):
    grouped.group_slice = "left"
    with pytest.raises(ValueError, match=text):
        gfo.score(view(grouped), concepts=graph, proposals="boxes")


def test_a_dataset_of_groups_without_images_says_what_it_holds(tmp_path):
    dataset = fo.Dataset("no-images", overwrite=True)
    dataset.add_group_field("group", default="movie")
    group = fo.Group()
    dataset.add_sample(fo.Sample(str(tmp_path / "a.mp4"), group=group.element("movie")))
    for call in (gfo.status, gfo.setup_views, lambda d: gfo.score(d, concepts="g.yaml")):
        with pytest.raises(ValueError, match=r"none of its slices holds images \(movie: video\)|concept"):
            call(dataset)
    dataset.delete()


def test_a_slice_that_was_renamed_since_is_named(grouped, graph, tiny):
    key = gfo.score(grouped.select_group_slices("left"), concepts=graph, proposals="boxes")
    grouped.rename_group_slice("left", "port")
    with pytest.raises(ValueError, match=rf"has images of slice port, right \({key}: left\); score that slice first"):
        gfo.select(grouped, 1)
    with pytest.raises(ValueError, match='has no slice of images "left"; it has port, right'):
        gfo.select(grouped, 1, run_key=key)


@pytest.mark.parametrize("active", ["movie", "left", "right"])
def test_a_batch_of_a_slice_goes_out_and_comes_back(grouped, graph, tiny, tmp_path, active):
    """Both cameras name their images alike: the manifest says which of them was sent."""
    grouped.group_slice = active
    before = chosen(grouped)
    left = grouped.select_group_slices("left")
    gfo.score(left, concepts=graph, proposals="boxes")
    batch = gfo.select(left, 2)
    ids = set(batch.values("id"))
    out = gfo.export(batch, tmp_path / "batch")
    assert {e["id"] for e in json.loads((out / "manifest.json").read_text())["images"]} == ids
    assert [r["sent"] for r in gfo.status(grouped)] == [2]
    report = gfo.ingest(grouped, out, accept_prelabels=True)
    assert set(report.labeled) == ids and report.unmatched == []
    assert (
        set(with_field(grouped, "ground_truth")) - set(report.labeled)
        == set(
            grouped.select_group_slices(["left", "right"])
            .match({"ground_truth.detections": {"$ne": None}})
            .values("id")
        )
        - ids
    )
    assert [r["labeled"] for r in gfo.status(grouped)] == [2]
    assert chosen(grouped) == before


def test_labels_without_a_manifest_go_to_the_slice_that_is_named(grouped, tmp_path):
    """Without one, a base name fits an image of each camera; with a slice it fits one."""
    image = {"id": 1, "file_name": "6.png", "width": 64, "height": 48}
    drawn = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [6.4, 4.8, 12.8, 9.6]}
    coco = {"images": [image], "categories": [{"id": 1, "name": "void"}], "annotations": [drawn]}
    (tmp_path / "labels.json").write_text(json.dumps(coco))
    with pytest.raises(ValueError, match="fits 2 samples"):
        gfo.ingest(grouped, tmp_path / "labels.json")
    right = grouped.select_group_slices("right")
    report = gfo.ingest(right, tmp_path / "labels.json")
    (labeled,) = report.labeled
    assert slice_of(grouped, [labeled]) == {"right"}
    (box_,) = right.select(labeled).values("ground_truth.detections.bounding_box")[0]
    assert box_ == pytest.approx([0.1, 0.1, 0.2, 0.2])


def test_a_field_of_labels_is_taken_from_the_images_that_are_named(grouped):
    every = grouped.select_group_slices(["left", "right"])
    every.set_values("tool", [fo.Detections(detections=[box("void")]) for _ in range(16)])
    report = gfo.ingest(grouped.select_group_slices("left"), "tool")
    assert len(report.labeled) == 6 and slice_of(grouped, report.labeled) == {"left"}
    view = every.filter_labels("tool", F("label") == "crack", only_matches=False)
    with pytest.raises(ValueError, match='its labels field "tool": boxes that it hides would count as not there'):
        gfo.ingest(view, "tool")


def test_the_maps_and_the_similarity_of_a_slice(grouped, graph, tiny):
    left = grouped.select_group_slices("left")
    gfo.score(left, concepts=graph, proposals="boxes")
    keys = gfo.visualize(left, method="pca")
    assert set(keys) <= set(grouped.list_brain_runs())
    assert set(grouped.load_brain_results("gsal_map_images").sample_ids) == set(with_field(grouped, "gsal_rank"))
    assert gfo.visualize(grouped, method="pca") == keys
    with pytest.raises(ValueError, match="stored embeddings are those of all proposals"):
        gfo.visualize(left.filter_labels("gsal_proposals", F("confidence") > 0.85), method="pca")


def test_training_and_fitting_take_one_slice(grouped, tiny, tmp_path):
    for call in (gfo.train, lambda d: gfo.fit(d, out=tmp_path / "model")):
        with pytest.raises(ValueError, match="choose a slice of images"):
            call(grouped)
    gfo.train(grouped.select_group_slices("right"), out=tmp_path / "detector", run_dir=tmp_path / "run")
    taught = pq.read_table(tmp_path / "run" / "manifest.parquet").to_pylist()
    assert slice_of(grouped, [r["id"] for r in taught]) == {"right"}
    assert sorted(n for r in taught for n in r["labels"]) == ["petal", "petal", "void"]
