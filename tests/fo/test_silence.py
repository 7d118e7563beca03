"""Silence is no answer: what came back empty or unchanged needs a sign that somebody finished it."""

import json
import re
import shutil

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import gsal_fo.fo as gfo
from gsal_fo import cli
from gsal_fo.fo.exchange import exporting
from gsal_fo.fo.exchange.comparing import rounded, same
from tests.fo_pool import box, picture

LISTED = ("coco", "cvat", "voc", "yolo", "fiftyone")  # formats whose files name images that nobody opened


def states(dataset, ids):
    """None: not labeled, else the labels of each image."""
    dataset.reload()
    found = dict(zip(*dataset.values(["id", "ground_truth"]), strict=True))
    return [found[i] and [d.label for d in found[i].detections] for i in ids]


def draw(out, format, name, corners=(10, 12, 30, 40)):
    """A labeler's one box of class "void" in an image of 64 x 48, written as the tool of that format does."""
    left, top, right, bottom = corners
    stem = name.rsplit(".", 1)[0]
    if format == "coco":
        path = out / "annotations.json"
        coco = json.loads(path.read_text())
        image = next(i["id"] for i in coco["images"] if i["file_name"] == name)
        void = next(c["id"] for c in coco["categories"] if c["name"] == "void")
        bbox = [left, top, right - left, bottom - top]
        kept = [a for a in coco["annotations"] if a["image_id"] != image]
        coco["annotations"] = [*kept, {"id": 999, "image_id": image, "category_id": void, "bbox": bbox}]
        path.write_text(json.dumps(coco))
    elif format == "yolo":
        number = (out / "classes.txt").read_text().split().index("void")
        center = (left + right) / 128, (top + bottom) / 96, (right - left) / 64, (bottom - top) / 48
        (out / "labels" / f"{stem}.txt").write_text(f"{number} " + " ".join(f"{v:.6f}" for v in center) + "\n")
    elif format == "voc":
        path = out / "Annotations" / f"{stem}.xml"
        edges = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
        text = re.sub(r"<object>.*</object>", "", path.read_text(), flags=re.DOTALL)
        path.write_text(
            text.replace("</annotation>", f"<object><name>void</name><bndbox>{edges}</bndbox></object></annotation>")
        )
    elif format == "cvat":
        path = out / "annotations.xml"
        text = re.sub(rf'(<image [^>]*name="{name}"[^>]*?) ?/>', r"\1></image>", path.read_text())
        shape = f'<box label="void" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>'
        head, body = re.search(rf'(<image [^>]*name="{name}"[^>]*>)(.*?)</image>', text, re.DOTALL).groups()
        path.write_text(text.replace(f"{head}{body}</image>", f"{head}{shape}</image>"))
    else:
        path = out / "samples.json"
        kept = json.loads(path.read_text())
        (sample,) = [s for s in kept["samples"] if s["filepath"].endswith(name)]
        detection = {"_cls": "Detection", "label": "void", "bounding_box": [left / 64, top / 48, 20 / 64, 28 / 48]}
        sample["ground_truth"] = {"_cls": "Detections", "detections": [detection]}
        path.write_text(json.dumps(kept))


def sent(dataset, out, format, **settings):
    """A batch of four, exported; ids and file names in the export's order."""
    gfo.export(gfo.select(dataset, 4), out, format, **settings)
    images = exporting.read_manifest(out / "manifest.json")["images"]
    return [e["id"] for e in images], [e["file"] for e in images]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip without manifest"])
@pytest.mark.parametrize("prelabels", [False, True], ids=["bare", "prelabels"])
@pytest.mark.parametrize("format", LISTED)
def test_of_a_half_done_batch_only_what_somebody_drew_is_taken(scored, tmp_path, format, prelabels, packed):
    ids, names = sent(scored, tmp_path / "out", format, prelabels=prelabels)
    draw(tmp_path / "out", format, names[1])
    labels = tmp_path / "out"
    if packed:  # as it comes from the tool, into a folder for downloads
        (labels / "manifest.json").unlink()
        (tmp_path / "downloads").mkdir()
        labels = shutil.make_archive(str(tmp_path / "downloads" / "task"), "zip", labels)
    report = gfo.ingest(scored, labels)
    assert report.labeled == [ids[1]] and not report.empty and not report.unread
    assert states(scored, ids) == [None, ["void"], None, None]
    assert set(report.waiting) == {ids[0], *ids[2:]}
    if format != "fiftyone" or prelabels:  # a FiftyOneDataset leaves the field out where nothing was sent
        assert set(report.untouched if prelabels else report.unanswered) == {ids[0], *ids[2:]}


@pytest.mark.parametrize("format", LISTED[:4])
def test_who_vouches_for_the_rest_gets_it_and_a_later_box_replaces_only_what_ingest_took_as_empty(
    scored, tmp_path, format, monkeypatch, capsys
):
    ids, names = sent(scored, tmp_path / "out", format, prelabels=False)
    draw(tmp_path / "out", format, names[0])
    assert cli.main(["ingest", scored.name, str(tmp_path / "out"), "--empty-means-done", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report["empty"]) == set(ids[1:]) and set(report["labeled"]) == set(ids)
    mine = scored[ids[2]]
    mine["ground_truth"] = fo.Detections()  # a person says so, in the App
    mine.save()
    for name in names[1:]:
        draw(tmp_path / "out", format, name)
    again = gfo.ingest(scored, tmp_path / "out")
    assert set(again.labeled) == set(again.replaced) == {ids[1], ids[3]} and again.unchanged == [ids[0]]
    assert again.conflicts == [ids[2]]
    assert states(scored, ids) == [["void"], ["void"], [], ["void"]]


def test_an_image_that_a_person_emptied_after_ingest_stays_empty(scored, tmp_path):
    ids, names = sent(scored, tmp_path / "out", "coco", prelabels=False)
    draw(tmp_path / "out", "coco", names[0])
    gfo.ingest(scored, tmp_path / "out")
    scored.reload()
    sample = scored[ids[0]]
    sample.ground_truth.detections = []
    sample.save()  # FiftyOne leaves no list of detections then, and a field that is not null
    assert gfo.ingest(scored, tmp_path / "out").conflicts == [ids[0]]
    assert states(scored, ids[:1]) == [[]]


def test_the_next_training_sees_what_replaced_an_empty_image(scored, tmp_path, tiny):
    ids, names = sent(scored, tmp_path / "out", "coco", prelabels=False)
    gfo.ingest(scored, tmp_path / "out", empty_means_done=True)
    before = gfo.train(scored)
    draw(tmp_path / "out", "coco", names[0])
    assert gfo.ingest(scored, tmp_path / "out").replaced == [ids[0]]
    assert gfo.train(scored) != before, "a detector is named by the labels that it was trained on"


def test_labels_say_where_they_are_from_and_keep_saying_it_when_the_round_is_cancelled(scored, tmp_path):
    ids, names = sent(scored, tmp_path / "out", "coco", prelabels=False)
    draw(tmp_path / "out", "coco", names[0])
    path = tmp_path / "out" / "annotations.json"
    gfo.ingest(scored, path, empty_means_done=True)
    gfo.cancel(scored)
    scored.reload()
    drawn, empty = (scored[i].ground_truth.gsal_source for i in ids[:2])
    assert (drawn.name, drawn.boxes, empty.boxes) == ("annotations.json", 1, 0)
    assert drawn.digest == exporting.file_digest(path) and drawn.ingest == empty.ingest and drawn.time is not None
    scored.set_values("review", {ids[0]: fo.Detections(detections=[box("void")])}, key_field="id")
    gfo.ingest(scored, "review", label_field="other")
    scored.reload()
    assert scored[ids[0]].other.gsal_source.name == "field review"
    others = [f for f in scored.get_field_schema() if f.startswith("gsal_source")]
    assert not others and not [f for f in scored.get_field_schema(flat=True) if "gsal_source" in f]


@pytest.mark.parametrize("cut", [np.floor, np.ceil, np.round], ids=["floor", "ceil", "round"])
@pytest.mark.parametrize("how", ["edges", "sides"])
def test_boxes_that_a_tool_cut_to_whole_pixels_are_untouched(cut, how):
    rng = np.random.default_rng(5)
    for size in ((64, 48), (640, 480), (4000, 3000)):
        side = np.array([*size, *size], dtype=float)
        boxes = [np.array([*rng.uniform(0, 0.5, 2), *rng.uniform(0.1, 0.4, 2)]) for _ in range(40)]
        out = []
        for b in boxes:
            px = b * side
            if how == "edges":
                edges = cut(np.hstack([px[:2], px[:2] + px[2:]]))
                px = np.hstack([edges[:2], edges[2:] - edges[:2]])
            else:
                px = cut(px)
            out.append(("a", list(px / side)))
        assert rounded([("a", list(b)) for b in boxes], out[::-1], size)


def test_a_box_moved_by_more_than_a_pixel_or_of_another_label_or_missing_is_an_edit():
    sent_boxes = [("a", [0.1, 0.1, 0.2, 0.2]), ("b", [0.5, 0.5, 0.2, 0.2])]
    moved = [("a", [0.1 + 2 / 640, 0.1, 0.2, 0.2]), sent_boxes[1]]
    renamed = [("b", [0.1, 0.1, 0.2, 0.2]), sent_boxes[1]]
    for back in (moved, renamed, sent_boxes[:1], [*sent_boxes, sent_boxes[0]]):
        assert not rounded(sent_boxes, back, (640, 480)) and not same(sent_boxes, back)
    # One-to-one: both sent boxes are within a pixel of the first that came back, and only one may be it.
    near = [("a", [0.1, 0.1, 0.2, 0.2]), ("a", [0.1 + 1 / 640, 0.1, 0.2, 0.2])]
    far = [("a", [0.1 + 1 / 640, 0.1, 0.2, 0.2]), ("a", [0.1 + 9 / 640, 0.1, 0.2, 0.2])]
    assert not rounded(near, far, (640, 480))
    assert rounded(near, near[::-1], (640, 480))


@pytest.mark.parametrize("format", ["coco", "voc", "cvat"])
def test_a_batch_that_a_tool_saved_in_whole_pixels_is_untouched(scored, tmp_path, format):
    ids, _ = sent(scored, tmp_path / "out", format)
    path = {"coco": "annotations.json", "cvat": "annotations.xml"}.get(format)
    for file in [tmp_path / "out" / path] if path else (tmp_path / "out" / "Annotations").iterdir():
        whole = lambda m: str(int(float(m[0])))  # noqa: E731
        if format == "coco":
            coco = json.loads(file.read_text())
            for a in coco["annotations"]:
                a["bbox"] = [int(v) for v in a["bbox"]]
            file.write_text(json.dumps(coco))
        elif format == "voc":
            file.write_text(re.sub(r"(?<=<[xy]m..>)[\d.]+", whole, file.read_text()))
        else:
            file.write_text(re.sub(r'(?<=[xy][tb][lr]=")[\d.]+', whole, file.read_text()))
    report = gfo.ingest(scored, tmp_path / "out")
    assert set(report.untouched) == set(ids) and not report.labeled and not any(states(scored, ids))


def test_an_image_with_anything_unreadable_stays_as_it_is_and_is_named(scored, tmp_path):
    ids, names = sent(scored, tmp_path / "out", "coco", prelabels=False)
    for name in names[:2]:
        draw(tmp_path / "out", "coco", name)
    path = tmp_path / "out" / "annotations.json"
    coco = json.loads(path.read_text())
    coco["annotations"].append({**coco["annotations"][0], "id": 1000, "bbox": [0, 0, -5, 5]})
    path.write_text(json.dumps(coco))
    report = gfo.ingest(scored, path, empty_means_done=True, accept_prelabels=True)
    assert len(report.unread) == 1 and report.unread[0].startswith(names[0]) and ids[0] not in report.labeled
    assert states(scored, ids[:2]) == [None, ["void"]]


def test_a_field_of_proposals_is_no_field_of_labels(scored):
    with pytest.raises(ValueError, match='"gsal_proposals" holds proposals, not labels; --accept-prelabels'):
        gfo.ingest(scored, "gsal_proposals")
    ids = gfo.select(scored, 2).values("id")
    assert set(ids) <= set(gfo.ingest(scored, "gsal_proposals", accept_prelabels=True).labeled)


def test_labels_of_a_field_keep_what_annotators_wrote(scored):
    unlabeled = scored.exists("ground_truth.detections", False).values("id")[0]
    mask = np.eye(4, dtype=bool)
    drawn = box("void", mask=mask, confidence=0.8, index=3, tags=["checked"], severity="high")
    scored.set_values("review", {unlabeled: fo.Detections(detections=[drawn])}, key_field="id")
    assert gfo.ingest(scored, "review").labeled == [unlabeled]
    scored.reload()
    (got,) = scored[unlabeled].ground_truth.detections
    assert (got.confidence, got.index, got.tags, got.severity) == (0.8, 3, ["checked"], "high")
    assert (got.mask == mask).all() and got.id != scored[unlabeled].review.detections[0].id


def test_an_empty_yolo_file_of_an_image_that_nobody_was_sent_is_an_answer(dataset, tmp_path):
    """A public set lists its background images so; nobody of ours can have written the file."""
    labels = tmp_path / "set" / "labels"
    labels.mkdir(parents=True)
    (labels.parent / "classes.txt").write_text("void\n")
    (labels / "slice_05.txt").write_text("")
    report = gfo.ingest(dataset, labels.parent)
    assert len(report.empty) == 1 == len(report.labeled)


def test_a_read_only_field_is_refused(dataset, tmp_path):
    field = dataset.get_field("ground_truth")
    field.read_only = True
    field.save()
    dataset.add_sample_field("review", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    with pytest.raises(ValueError, match=r'field "ground_truth" of dataset .* is read-only'):
        gfo.ingest(dataset, "review")


def test_pre_labels_of_an_image_that_is_gone_are_still_told_apart(dataset, graph, tiny, tmp_path):
    """Nobody knows its pixels then but the hand-off."""
    Image.open(picture(tmp_path / "x.png", 3)).verify()
    gfo.score(dataset, concepts=graph)
    ids, _ = sent(dataset, tmp_path / "out", "coco")
    path = tmp_path / "out" / "annotations.json"
    coco = json.loads(path.read_text())
    for a in coco["annotations"]:
        a["bbox"] = [int(v) for v in a["bbox"]]
    path.write_text(json.dumps(coco))
    for file in dataset.select(ids).values("filepath"):
        shutil.move(file, file + ".away")
    assert set(gfo.ingest(dataset, path).untouched) == set(ids)
