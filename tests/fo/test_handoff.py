"""Export and ingest: to a labeling tool and back."""

import csv
import json
from pathlib import Path

import fiftyone as fo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo.exchange import exporting
from gsal_fo.fo.exchange.formats import file_digest
from tests.fo_pool import box, picture


def take(*args, **settings):
    """Ingest where the exported pre-labels stand for a labeler's own boxes."""
    return gfo.ingest(*args, accept_prelabels=True, **settings)


def coco_of(out):
    return json.loads((out / "annotations.json").read_text())


def edited(out, name="done.json", **changes):
    path = out / name
    path.write_text(json.dumps({**coco_of(out), **changes}))
    return path


def test_coco_holds_the_proposals_above_the_floor_in_pixels(scored, tmp_path):
    batch = gfo.select(scored, 3)
    out = gfo.export(batch, tmp_path / "batch")
    coco = coco_of(out)
    assert [c["name"] for c in coco["categories"]] == ["crack", "petal", "void"]
    assert [(i["width"], i["height"]) for i in coco["images"]] == [(64, 48)] * 3
    names = {c["id"]: c["name"] for c in coco["categories"]}
    for image, sample in zip(coco["images"], batch, strict=True):
        (annotation,) = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        strong, _ = sample.gsal_proposals.detections  # the tiny worker's boxes: 0.9 and 0.2 sure; the floor is 0.3
        assert names[annotation["category_id"]] == strong.label
        # (0.1, 0.2, 0.3, 0.4) of 64 x 48
        assert annotation["bbox"] == pytest.approx([6.4, 9.6, 19.2, 19.2], abs=1e-3)
        assert (out / "images" / image["file_name"]).read_bytes() == Path(sample.filepath).read_bytes()


def test_yolo_holds_centers_and_classes(scored, tmp_path):
    out = gfo.export(gfo.select(scored, 2), tmp_path / "batch", "yolo", floor=0)
    assert (out / "classes.txt").read_text().split() == ["crack", "petal", "void"]
    lines = [line.split() for path in sorted((out / "labels").iterdir()) for line in path.read_text().splitlines()]
    # (0.1, 0.2, 0.3, 0.4) has its center at (0.25, 0.4); (0.5, 0.5, 0.2, 0.2) at (0.6, 0.6)
    assert {tuple(line[1:]) for line in lines} == {
        ("0.250000", "0.400000", "0.300000", "0.400000"),
        ("0.600000", "0.600000", "0.200000", "0.200000"),
    }
    assert {p.stem for p in (out / "images").iterdir()} == {p.stem for p in (out / "labels").iterdir()}


def test_scores_and_manifest_say_what_and_why(scored, tmp_path):
    batch = gfo.select(scored, 3)
    out = gfo.export(batch, tmp_path / "batch")
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [r["id"] for r in rows] == batch.values("id") and [r["rank"] for r in rows] == ["1", "2", "3"]
    assert [r["rationale"] for r in rows] == batch.values("gsal_rationale")
    assert [r["path"] for r in rows] == [" > ".join(p) for p in batch.values("gsal_path")]
    manifest = exporting.read_manifest(out / "manifest.json")
    assert manifest["complete"] and manifest["run_key"] == "gsal_score_001" and manifest["rounds"] == [1]
    assert manifest["digests"] == gfo.runs.load(scored).config.digests
    for entry in manifest["images"]:
        assert entry["sha256"] == file_digest(Path(scored[entry["id"]].filepath))
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == set(manifest["files"])


def test_an_earlier_rounds_reason_is_exported_after_a_later_ranking(scored, tmp_path):
    gfo.select(scored, 1)
    gfo.select(scored, 1)
    out = gfo.export(scored.match_tags("gsal_round_001"), tmp_path / "batch")
    (row,) = csv.DictReader((out / "scores.csv").open())
    assert row["rank"] == "1" and float(row["score"]) == gfo.runs.picks(scored, "gsal_select_001")[0]["score"]


def test_names_never_collide(dataset, graph, tiny, tmp_path):
    paths = [picture(tmp_path / "other" / name, 50) for name in ("slice_05.png", "SLICE_06.png", "slice_07.jpg")]
    dataset.add_samples([fo.Sample(p) for p in paths])
    gfo.score(dataset, concepts=graph)
    out = gfo.export(dataset.exists("gsal_rank"), tmp_path / "batch", "yolo")
    names = [p.stem.casefold() for p in (out / "images").iterdir()]
    assert len(names) == len(set(names)) == 12


def test_export_replaces_its_own_folder_and_refuses_any_other(scored, tmp_path):
    batch = gfo.select(scored, 3)
    out = gfo.export(batch, tmp_path / "batch")
    (out / "mine.txt").write_text("labeler's notes")
    gfo.export(batch.limit(1), out, "yolo")
    assert len(list((out / "images").iterdir())) == 1 and not (out / "annotations.json").exists()
    assert (out / "mine.txt").read_text() == "labeler's notes"
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="holds files that gsal export did not write"):
        gfo.export(batch, foreign)
    assert [p.name for p in foreign.iterdir()] == ["manifest.json"]


def test_nothing_is_written_or_removed_outside_the_folder(scored, tmp_path):
    batch = gfo.select(scored, 1)
    out = gfo.export(batch, tmp_path / "batch")
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    manifest = exporting.read_manifest(out / "manifest.json")
    (out / "manifest.json").write_text(json.dumps({**manifest, "files": [*manifest["files"], "../precious.txt"]}))
    gfo.export(batch, out)
    assert precious.read_text() == "keep"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    linked = gfo.export(batch, tmp_path / "linked")
    for path in (linked / "images").iterdir():
        path.unlink()
    (linked / "images").rmdir()
    (linked / "images").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="is a link out of the export folder"):
        gfo.export(batch, linked)
    assert not list(elsewhere.iterdir())


def test_a_missing_image_is_listed_and_the_rest_exported(dataset, graph, tiny, tmp_path):
    gfo.score(dataset, concepts=graph)
    batch = gfo.select(dataset, 2)
    gone = batch.first()
    Path(gone.filepath).unlink()
    out = gfo.export(batch, tmp_path / "batch")
    manifest = exporting.read_manifest(out / "manifest.json")
    assert [(m["id"], m["reason"]) for m in manifest["missing"]] == [(gone.id, "the file is missing")]
    assert len(coco_of(out)["images"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "kitti"}, "format must be one of coco, yolo, voc, cvat, labelstudio, fiftyone"),
        ({"media": "move"}, "media must be one of copy, link, list"),
        ({"floor": 2}, "floor must be"),
    ],
)
def test_export_settings_are_checked(scored, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        gfo.export(scored, tmp_path / "batch", **change)


def test_an_unwritable_folder_is_a_sentence(scored, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*; free space or choose another folder"):
        gfo.export(scored.exists("gsal_rank"), tmp_path / "file" / "batch")


def test_labels_come_back_once_and_an_image_without_boxes_is_empty_where_somebody_vouches(scored, tmp_path):
    out = gfo.export(gfo.select(scored, 3), tmp_path / "batch")
    coco = coco_of(out)
    first = coco["images"][0]["id"]
    done = edited(out, annotations=[a for a in coco["annotations"] if a["image_id"] != first])
    report = take(scored, done, empty_means_done=True)
    assert (len(report.labeled), len(report.empty), report.boxes) == (3, 1, 2)
    manifest = exporting.read_manifest(out / "manifest.json")
    empty = next(e["id"] for e in manifest["images"] if e["file"] == coco["images"][0]["file_name"])
    scored.reload()
    assert report.empty == [empty] and scored[empty].ground_truth.detections == []
    for i in set(report.labeled) - {empty}:
        (label,) = scored[i].ground_truth.detections
        assert label.bounding_box == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-4)
    before = [s.to_dict() for s in scored.select_fields("ground_truth")]
    again = take(scored, done)
    assert len(again.unchanged) == 3 and not again.labeled and not again.conflicts
    assert [s.to_dict() for s in scored.select_fields("ground_truth")] == before


def test_labels_that_are_there_are_never_overwritten(scored, tmp_path):
    batch = gfo.select(scored, 2)
    out = gfo.export(batch, tmp_path / "batch")
    sample = batch.first()
    sample["ground_truth"] = fo.Detections(detections=[box("petal", 0.6, 0.6, 0.1, 0.1)])
    sample.save()
    report = take(scored, out / "annotations.json")
    scored.reload()
    assert report.conflicts == [sample.id] and len(report.labeled) == 1
    assert [d.label for d in scored[sample.id].ground_truth.detections] == ["petal"]


def test_a_file_that_the_tool_renamed_is_found_by_its_digest(scored, tmp_path):
    batch = gfo.select(scored, 1)
    out = gfo.export(batch, tmp_path / "batch")
    coco = coco_of(out)
    old = coco["images"][0]["file_name"]
    coco["images"][0]["file_name"] = "8f31-" + old
    (out / "images" / old).rename(out / "images" / ("8f31-" + old))
    assert take(scored, edited(out, images=coco["images"])).labeled == batch.values("id")


def test_without_a_manifest_names_match_and_doubtful_ones_are_listed(dataset, tmp_path):
    dataset.add_sample(fo.Sample(picture(tmp_path / "b" / "slice_05.png", 77)))
    images = [
        {"id": 1, "file_name": "slice_04.png", "width": 64, "height": 48},
        {"id": 2, "file_name": "slice_05.png", "width": 64, "height": 48},
        {"id": 3, "file_name": "b/slice_05.png"},
        {"id": 4, "file_name": "stranger.png"},
    ]
    notes = [{"id": k, "image_id": k, "category_id": 1, "bbox": [0, 0, 32, 24]} for k in (1, 2, 3, 4)]
    path = tmp_path / "labels" / "labels.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": notes, "categories": [{"id": 1, "name": "void"}]}))
    report = take(dataset, path)
    assert report.unmatched == ["slice_05.png", "stranger.png"], "two samples end in slice_05.png: no guess"
    assert sorted(Path(dataset[i].filepath).parts[-2:] for i in report.labeled) == [
        ("b", "slice_05.png"),
        ("images", "slice_04.png"),
    ]
    assert all(dataset[i].ground_truth.detections[0].bounding_box == [0, 0, 0.5, 0.5] for i in report.labeled)


@pytest.mark.parametrize("odd", [[0, 0, 0, 5], [100, 0, 5, 5], [0, 0, float("nan"), 5], "box"])
def test_an_image_with_an_unusable_box_is_named_and_stays_unlabeled(scored, tmp_path, odd):
    """A box that is left out would train the detector on a false background."""
    first, second = gfo.select(scored, 2).values("id")
    out = gfo.export(scored.match_tags("gsal_round_001"), tmp_path / "batch")
    number = {e["id"]: k for k, e in enumerate(exporting.read_manifest(out / "manifest.json")["images"], 1)}
    boxes = [(number[first], [0, 0, 10, 10]), (number[first], odd), (number[second], [0, 0, 10, 10])]
    notes = [{"id": k, "image_id": i, "category_id": 1, "bbox": b} for k, (i, b) in enumerate(boxes)]
    report = take(scored, edited(out, annotations=notes))
    assert report.labeled == [second] and len(report.unread) == 1
    scored.reload()
    assert scored[first].ground_truth is None


def test_overhanging_boxes_are_cut_at_the_edge(scored, tmp_path):
    out = gfo.export(gfo.select(scored, 1), tmp_path / "batch")
    notes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [-10, -10, 20, 20]}]
    report = take(scored, edited(out, annotations=notes))
    (label,) = scored[report.labeled[0]].ground_truth.detections
    assert label.bounding_box == pytest.approx([0, 0, 10 / 64, 10 / 48])


def test_labels_come_from_a_field_and_strange_ones_are_named(scored):
    scored.set_values("review", [None] * 3 + [fo.Detections(detections=[box("scratch")]), fo.Detections()] + [None] * 7)
    report = take(scored, "review")
    assert (len(report.labeled), len(report.empty), report.unknown_labels) == (2, 1, {"scratch": 1})
    assert "labels outside the concept graph: scratch" in report.summary()
    assert len(take(scored, "review").unchanged) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not readable JSON"),
        ("[]", "no lists named images, annotations and categories"),
        ('{"images": [], "annotations": [{"id": 1}], "categories": []}', "lacks or misuses 'image_id'"),
        ('{"images": [{"id": 1, "file_name": "x"}], "annotations": [{"image_id": 1, "category_id": 9, "bbox": []}], '
         '"categories": []}', "category 9, which is not listed"),
        ('{"images": [{"id": 1, "file_name": "x.png"}], "annotations": [], "categories": []}', "none of the 1 images"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_a_sentence_and_changes_nothing(scored, tmp_path, content, message):
    before = scored.values("ground_truth.detections.label")
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        take(scored, path)
    assert scored.values("ground_truth.detections.label") == before


def test_what_is_no_source_of_labels_is_refused(scored, tmp_path):
    for labels, message in (
        ("nowhere", "neither a file nor a field"),
        (tmp_path, "holds no labels in a format that is known here"),
        ("ground_truth", "is the label field itself"),
        ("filepath", "not Detections"),
    ):
        with pytest.raises(ValueError, match=message):
            take(scored, labels)
    with pytest.raises(ValueError, match="a field that scoring rewrites"):
        take(scored, "ground_truth", label_field="gsal_proposals")


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "cvat", "fiftyone"])
def test_a_batch_that_nobody_opened_is_not_labeled(scored, tmp_path, format):
    ids = gfo.select(scored, 3).values("id")
    out = gfo.export(scored.match_tags("gsal_round_001"), tmp_path / "batch", format)
    report = gfo.ingest(scored, out)
    assert set(report.untouched) == set(ids) == set(report.waiting) and not report.labeled
    assert "3 came back exactly as they were sent" in report.summary() and not any(
        scored.select(ids).values("ground_truth")
    )
    assert set(gfo.ingest(scored, out, accept_prelabels=True).labeled) == set(ids)
    assert set(gfo.ingest(scored, out).unchanged) == set(ids)


def test_of_a_half_done_batch_only_the_changed_image_is_labeled(scored, tmp_path):
    """Three images with one pre-label each: one moved by three pixels, one emptied, one left alone."""
    moved, emptied, alone = gfo.select(scored, 3).values("id")
    out = gfo.export(scored.match_tags("gsal_round_001"), tmp_path / "batch")
    file = {e["id"]: e["file"] for e in exporting.read_manifest(out / "manifest.json")["images"]}
    coco = coco_of(out)
    number = {i["file_name"]: i["id"] for i in coco["images"]}
    boxes = [a for a in coco["annotations"] if a["image_id"] != number[file[emptied]]]
    next(a for a in boxes if a["image_id"] == number[file[moved]])["bbox"][0] += 3
    done = edited(out, annotations=boxes)
    report = gfo.ingest(scored, done)
    assert (report.labeled, report.untouched, report.unanswered) == ([moved], [alone], [emptied])
    assert set(report.waiting) == {alone, emptied}
    assert "--accept-prelabels" in report.summary() and "--empty-means-done" in report.summary()
    report = gfo.ingest(scored, done, empty_means_done=True)
    assert (report.labeled, report.empty, report.untouched) == ([emptied], [emptied], [alone])
