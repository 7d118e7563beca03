"""Every format: read back by a reader of its own ecosystem, then by ours, boxes equal to a pixel."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo.exchange import exporting
from gsal_fo.fo.exchange.formats import FORMATS, read
from tests import tools
from tests.fo_pool import box

ROOT = Path(__file__).parents[2]
SIZE = np.array([64, 48, 64, 48])
# The tiny worker's two proposals per image, corners in pixels of 64 x 48, by hand.
CORNERS = [[6.4, 9.6, 25.6, 28.8], [32.0, 24.0, 44.8, 33.6]]


def take(*args, **settings):
    """Ingest where the exported pre-labels stand for a labeler's own boxes."""
    return gfo.ingest(*args, accept_prelabels=True, **settings)


@pytest.fixture
def batch(scored):
    return gfo.select(scored, 3)


def labels_by_name(batch, out):
    """File name in the export -> labels of the two proposals."""
    names = {e["id"]: e["file"] for e in exporting.read_manifest(out / "manifest.json")["images"]}
    return {names[s.id]: [d.label for d in s.gsal_proposals.detections] for s in batch}


def check(found, batch, out):
    """``found``: file name -> (label, corners in pixels), as another reader has them."""
    wanted = labels_by_name(batch, out)
    assert set(found) == set(wanted)
    for name, boxes in found.items():
        order = sorted(boxes, key=lambda b: b[1][0])
        assert [label for label, _ in order] == wanted[name]
        np.testing.assert_allclose([corners for _, corners in order], CORNERS, atol=0.02)


def test_pycocotools_reads_coco(batch, tmp_path):
    coco_reader = pytest.importorskip("pycocotools.coco", reason='needs pycocotools: pip install "gsal-fo[dev]"')
    out = gfo.export(batch, tmp_path / "out", "coco", floor=0)
    coco = coco_reader.COCO(str(out / "annotations.json"))
    found = {}
    for image in coco.loadImgs(coco.getImgIds()):
        notes = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        found[image["file_name"]] = [
            (coco.loadCats(a["category_id"])[0]["name"], [x, y, x + w, y + h])
            for a in notes
            for x, y, w, h in [a["bbox"]]
        ]
    check(found, batch, out)


@pytest.mark.parametrize(("format", "name"), [("voc", "voc_detection"), ("cvat", "cvat"), ("yolo", "yolo")])
def test_datumaro_reads(batch, tmp_path, format, name):
    python = tools.python_of("readers")
    out = gfo.export(batch, tmp_path / "out", format, floor=0)
    items = json.loads(tools.run([python, ROOT / "tests" / "readers" / "with_datumaro.py", out, name]))
    found = {}
    for stem, boxes in items.items():
        (file,) = [p.name for p in (out / FORMATS[format].media).iterdir() if p.stem == stem]
        found[file] = boxes
    check(found, batch, out)


def test_label_studios_own_converter_reads_its_json(batch, tmp_path):
    """Its SDK turns submitted tasks into COCO; its boxes are in pixels then."""
    python = tools.python_of("labelstudio")
    out = gfo.export(batch, tmp_path / "out", "labelstudio", floor=0)
    tasks = submitted(enumerate(json.loads((out / "tasks.json").read_text())))
    (out / "tasks.json").write_text(json.dumps(tasks))
    tools.run([python, ROOT / "tests" / "readers" / "with_label_studio.py", out, tmp_path / "coco"])
    coco = json.loads((tmp_path / "coco" / "result.json").read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    files = {i["id"]: Path(i["file_name"]).name for i in coco["images"]}
    found = {file: [] for file in files.values()}
    for a in coco["annotations"]:
        x, y, w, h = a["bbox"]
        found[files[a["image_id"]]].append((names[a["category_id"]], [x, y, x + w, y + h]))
    check(found, batch, out)


def test_fiftyone_reads_its_own(batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out", "fiftyone", floor=0)
    back = fo.Dataset.from_dir(str(out), dataset_type=fo.types.FiftyOneDataset)
    try:
        found = {}
        for sample in back:
            assert Path(sample.filepath).is_file() and Path(sample.filepath).parent == out / "data"
            boxes = np.array([d.bounding_box for d in sample.ground_truth.detections])
            corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]) * SIZE
            found[Path(sample.filepath).name] = list(
                zip([d.label for d in sample.ground_truth.detections], corners, strict=True)
            )
        check(found, batch, out)
        assert back.values("gsal_id") == batch.values("id") and all(back.values("gsal_rationale"))
    finally:
        back.delete()


def submitted(tasks):
    """Tasks as a labeler leaves them who submits every prediction as it is."""
    return [
        {"id": n, **t, "annotations": [{"id": n, "result": p["result"]} for p in t["predictions"]]} for n, t in tasks
    ]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_what_was_exported_comes_back(scored, batch, tmp_path, format, packed):
    out = gfo.export(batch, tmp_path / "out", format, floor=0)
    if format == "labelstudio":
        tasks = json.loads((out / "tasks.json").read_text())
        (out / "tasks.json").write_text(json.dumps(submitted(enumerate(tasks))))
    labels = Path(shutil.make_archive(str(tmp_path / "labels"), "zip", out)) if packed else out
    manifest = out / "manifest.json" if packed else None
    report = take(scored, labels, manifest=manifest)
    assert sorted(report.labeled) == sorted(batch.values("id")) and report.boxes == 6 and not report.unread
    scored.reload()
    for sample in scored.select(report.labeled):
        proposals = [(d.label, d.bounding_box) for d in sample.gsal_proposals.detections]
        for got, (label, wanted) in zip(sample.ground_truth.detections, proposals, strict=True):
            assert got.label == label
            np.testing.assert_allclose(got.bounding_box, wanted, atol=2e-5)
    before = [s.to_dict() for s in scored.select_fields(["ground_truth", "gsal_status"])]
    again = take(scored, labels, manifest=manifest, format=format)
    assert len(again.unchanged) == 3 and not again.labeled and not again.conflicts
    assert [s.to_dict() for s in scored.select_fields(["ground_truth", "gsal_status"])] == before


@pytest.mark.parametrize("format", FORMATS)
def test_images_can_be_linked_or_listed_and_pre_labels_left_out(scored, batch, tmp_path, format):
    linked = gfo.export(batch, tmp_path / "linked", format, media="link", prelabels=False)
    files = sorted((linked / FORMATS[format].media).iterdir())
    assert sorted(f.resolve() for f in files) == sorted(Path(p).resolve() for p in batch.values("filepath"))
    assert all(f.is_symlink() for f in files)
    listed = gfo.export(batch, tmp_path / "listed", format, media="list", prelabels=False)
    assert (listed / "images.txt").read_text().split() == batch.values("filepath")
    assert not [p for p in listed.rglob("*") if p.suffix == ".png"]
    for out in (linked, listed):
        images = read(out, format, "ground_truth").images
        assert len(images) == 3 and not any(i.boxes for i in images)
        manifest = exporting.read_manifest(out / "manifest.json")
        assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == set(manifest["files"])
        assert [e["prelabels"] for e in manifest["images"]] == [0, 0, 0] and manifest["floor"] is None


def test_a_partial_batch_leaves_the_rest_sent(scored, batch, tmp_path):
    first, second, third = batch.values("id")
    states = lambda: dict(zip(*scored.values(["id", "gsal_status"]), strict=True))  # noqa: E731
    assert {states()[i] for i in (first, second, third)} == {"picked"}
    out = gfo.export(batch.limit(2), tmp_path / "out", "labelstudio", floor=0)
    assert [states()[i] for i in (first, second, third)] == ["sent", "sent", "picked"]
    tasks = json.loads((out / "tasks.json").read_text())
    ((_, mine),) = [(n, t) for n, t in enumerate(tasks) if t["data"]["gsal_id"] == first]
    rest = [t for t in tasks if t is not mine]
    (out / "tasks.json").write_text(json.dumps([*submitted([(1, mine)]), *rest]))
    report = take(scored, out)
    assert report.labeled == [first] and report.waiting == [second]
    assert [states()[i] for i in (first, second, third)] == ["labeled", "sent", "picked"]
    assert gfo.status(scored) == [
        {
            "round": 1,
            "tag": "gsal_round_001",
            "select_key": "gsal_select_001",
            "images": 3,
            "picked": 1,
            "sent": 1,
            "labeled": 1,
        }
    ]


def test_labels_made_in_the_app_count_without_any_ingest(scored, batch):
    sample = batch.first()
    sample["ground_truth"] = fo.Detections(detections=[box("void")])
    sample.save()
    (round_,) = gfo.status(scored)
    assert (round_["picked"], round_["labeled"]) == (2, 1)
    scored.reload()
    assert scored[sample.id].gsal_status == "labeled"


def test_yolo_takes_an_empty_file_for_no_defect_where_somebody_vouches_and_no_file_for_not_labeled(
    scored, batch, tmp_path
):
    out = gfo.export(batch, tmp_path / "out", "yolo", floor=0)
    first, second, _ = sorted((out / "labels").iterdir())
    first.write_text("")
    second.unlink()
    assert len(take(scored, out).unanswered) == 1
    report = take(scored, out, empty_means_done=True)
    assert len(report.labeled) == len(report.empty) == 1 and len(report.waiting) == 1
    assert Path(scored[report.empty[0]].filepath).stem == first.stem


def test_label_studio_annotations_that_differ_are_left_to_a_person(scored, batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out", "labelstudio", floor=0)
    tasks = json.loads((out / "tasks.json").read_text())
    result = tasks[0]["predictions"][0]["result"]
    tasks[0]["annotations"] = [{"result": result}, {"result": result[:1]}]
    tasks[1]["annotations"] = [{"result": result}, {"result": result[:1], "ground_truth": True}]
    tasks[2]["annotations"] = [{"result": result, "was_cancelled": True}]
    (out / "tasks.json").write_text(json.dumps(tasks))
    report = take(scored, out)
    assert report.labeled == [tasks[1]["data"]["gsal_id"]] and report.boxes == 1
    assert len(report.unread) == 1 and "2 annotations differ" in report.unread[0]


HOSTILE = {
    "bomb.xml": ('<!DOCTYPE a [<!ENTITY b "bbbb">]><annotations><image name="&b;"/></annotations>', "DTD or entities"),
    "cut.xml": ("<annotations><image", "not readable XML"),
    "track.xml": ("<annotations><track/></annotations>", "of a video"),
    "html.xml": ("<html/>", "its root is <html>"),
    "deep.json": ("[" * 200_000, "not readable JSON"),
    "min.json": ('[{"id": 1, "image": "x.png", "label": []}]', 'choose "JSON"'),
    "strange.json": ('[{"data": 3}]', "lacks or misuses"),
    "fields.json": (
        '{"samples": [{"filepath": "x.png", "review": {"_cls": "Detections", "detections": []}}]}',
        'no "ground_truth"; its fields of boxes are review',
    ),
    "no.zip": ("not a zip", "no readable zip"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_foreign_or_broken_file_is_a_sentence_and_changes_nothing(scored, tmp_path, name):
    text, message = HOSTILE[name]
    (tmp_path / name).write_text(text)
    before = scored.values("ground_truth.detections.label")
    with pytest.raises(ValueError, match=re.escape(message)):
        take(scored, tmp_path / name)
    assert scored.values("ground_truth.detections.label") == before


def test_another_format_than_asked_for_is_refused(scored, batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out", "cvat")
    with pytest.raises(ValueError, match="holds no labels in a format that is known here"):
        take(scored, out, format="coco")
    with pytest.raises(ValueError, match="not readable JSON"):
        take(scored, out / "annotations.xml", format="coco")


def test_a_zip_never_leaves_its_folder(scored, batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out", "coco", floor=0)
    bundle = tmp_path / "labels.zip"
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.write(out / "annotations.json", "annotations.json")
        for name in ("../../escaped.json", str(tmp_path / "absolute.json"), "a/../../b.txt"):
            archive.writestr(name, "[]")
    assert len(take(scored, bundle, manifest=out / "manifest.json").labeled) == 3
    assert not list(tmp_path.rglob("escaped.json")) and not (tmp_path / "absolute.json").exists()


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_a_link_in_the_folder_does_not_lead_out_of_it(batch, tmp_path, format):
    out = gfo.export(batch, tmp_path / "out", format)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    labels = out / {"yolo": "labels", "voc": "Annotations"}[format]
    shutil.rmtree(labels)
    labels.symlink_to(elsewhere)
    with pytest.raises(ValueError, match="is a link out of the export folder"):
        gfo.export(batch, out, format)
    assert not list(elsewhere.iterdir())


def test_a_link_in_the_place_of_a_file_is_replaced(batch, tmp_path):
    out = gfo.export(batch, tmp_path / "out", "cvat")
    precious = tmp_path / "precious.xml"
    precious.write_text("keep")
    (out / "annotations.xml").unlink()
    (out / "annotations.xml").symlink_to(precious)
    with pytest.raises(ValueError, match=r"annotations.xml would be replaced, and gsal export did not write it so"):
        gfo.export(batch, out, "cvat")
    gfo.export(batch, out, "cvat", force=True)
    assert precious.read_text() == "keep" and not (out / "annotations.xml").is_symlink()
