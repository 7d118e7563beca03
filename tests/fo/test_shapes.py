"""What annotators drew and wrote comes back whole: the enclosing box, the shape, the attributes; the rest is counted.

Boxes are in pixels of an image of 128 x 96, expected by hand."""

import json
from collections import Counter
from pathlib import Path

import bson
import fiftyone as fo
import numpy as np
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo.exchange import detections
from gsal_fo.fo.exchange.formats import geometry
from tests import tools
from tests.label_files import answers, boxes, coco, cvat, pool, read, voc, voc_object, write

ROOT = Path(__file__).parents[2]
BOX = {"bbox": [10, 20, 30, 40]}


@pytest.fixture
def dataset(tmp_path):
    return pool(tmp_path / "photos")


def one(dataset, path) -> fo.Detection:
    out = read(dataset, path)
    assert not out.unread
    (found,) = answers(dataset, out)["a.jpg"]
    return found


SHAPES = {
    "polygon": ('<polygon label="void" points="10,10;30,10;30,40"/>', (10, 10, 20, 30)),
    # A square of 20 around (20, 20), turned by 45 degrees, is 20 times the root of 2 wide.
    "turned box": (
        '<box label="void" xtl="10" ytl="10" xbr="30" ybr="30" rotation="45"/>',
        (20 - 10 * 2**0.5, 20 - 10 * 2**0.5, 20 * 2**0.5, 20 * 2**0.5),
    ),
    # 20 x 10 around (20, 15), turned by a quarter.
    "quarter turn": ('<box label="void" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>', (15, 5, 10, 20)),
    "ellipse": ('<ellipse label="void" cx="40" cy="50" rx="10" ry="5"/>', (30, 45, 20, 10)),
    "turned ellipse": ('<ellipse label="void" cx="40" cy="50" rx="10" ry="5" rotation="90"/>', (35, 40, 10, 20)),
    # 5 x 4 pixels from (10, 10), the middle two rows of which are the object.
    "mask": ('<mask label="void" rle="5, 10, 5" left="10" top="10" width="5" height="4"/>', (10, 11, 5, 2)),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_of_cvat_come_back_as_their_enclosing_boxes(dataset, tmp_path, kind):
    shape, wanted = SHAPES[kind]
    found = one(dataset, write(tmp_path / "a.xml", cvat(shape)))
    np.testing.assert_allclose(found.bounding_box * np.array([128, 96, 128, 96]), wanted, atol=1e-6)
    assert found.mask is not None and found.mask.any()
    assert (kind == "mask") != found.has_field("polygons")


def test_a_polygon_is_kept_in_shares_and_filled(dataset, tmp_path):
    found = one(dataset, write(tmp_path / "a.xml", cvat(SHAPES["polygon"][0])))
    assert found["polygons"] == [
        [pytest.approx([x / 128, y / 96], abs=1e-6) for x, y in ((10, 10), (30, 10), (30, 40))]
    ]
    assert found.mask.shape == (30, 20)
    # The triangle is the upper right half of its box.
    assert found.mask[3, 17] and not found.mask[26, 3] and found.mask.mean() == pytest.approx(0.5, abs=0.06)


def test_a_turned_box_keeps_its_corners_and_its_angle(dataset, tmp_path):
    found = one(dataset, write(tmp_path / "a.xml", cvat(SHAPES["quarter turn"][0])))
    corners = np.array(found["polygons"][0]) * [128, 96]
    # Clockwise by a quarter around (20, 15): the upper left corner (10, 10) comes to the upper right.
    np.testing.assert_allclose(corners, [[25, 5], [25, 25], [15, 25], [15, 5]], atol=1e-4)
    assert found["rotation"] == 90


def test_attributes_of_cvat_are_kept(dataset, tmp_path):
    own = {"kind": "round", "sure": "true", "n": "3"}
    inner = "".join(f'<attribute name="{k}">{v}</attribute>' for k, v in own.items())
    facts = 'label="void" source="manual" occluded="1" z_order="2" group_id="7"'
    box = f'<box {facts} xtl="1" ytl="2" xbr="3" ybr="4">{inner}</box>'
    found = one(dataset, write(tmp_path / "a.xml", cvat(box)))
    kept = {k: found[k] for k in ("source", "occluded", "z_order", "group_id", "kind", "sure", "n")}
    assert kept == {
        "source": "manual",
        "occluded": True,
        "z_order": 2,
        "group_id": 7,
        "kind": "round",
        "sure": True,
        "n": 3,
    }


def test_attributes_never_take_the_place_of_a_detections_own_fields(dataset, tmp_path):
    odd = {"label": "mine", "id": "x", "mask": "y", "bounding_box": 3, "a.b": 1, "$c": 2, "_d": 3, "confidence": "high"}
    fits = {"index": 4, "tags": ["seen"]}
    found = one(dataset, write(tmp_path / "c.json", coco([{**BOX, "attributes": odd | fits}])))
    assert found.label == "void" and found.mask is None and found.confidence is None
    assert (found["label_"], found["id_"], found["mask_"], found["confidence_"]) == ("mine", "x", "y", "high")
    assert (found["a_b"], found["c"], found["d"], found.index, found.tags) == (1, 2, 3, 4, ["seen"])


@pytest.mark.parametrize("tag", ["polyline", "points", "cuboid", "skeleton", "hologram"])
def test_what_has_no_extent_leaves_its_image_unlabeled_and_named(dataset, tmp_path, tag):
    box = '<box label="void" xtl="1" ytl="2" xbr="30" ybr="40"/>'
    out = read(dataset, write(tmp_path / "a.xml", cvat(f'{box}<{tag} label="void" points="1,1;2,2"/>', box)))
    assert set(answers(dataset, out)) == {"b.jpg"}
    assert len(out.unread) == 1 and out.unread[0].startswith(f"a.jpg: {tag} void")


def test_tags_of_an_image_are_counted_and_its_boxes_taken(dataset, tmp_path):
    out = read(dataset, write(tmp_path / "a.xml", cvat('<tag label="blurred"/>' + SHAPES["polygon"][0])))
    assert len(answers(dataset, out)["a.jpg"]) == 1 and out.dropped == {"image tags": 1}


def test_coco_keeps_iscrowd_score_ids_and_attributes(dataset, tmp_path):
    note = {**BOX, "id": 7, "iscrowd": 1, "score": 0.7, "attributes": {"severity": "high"}, "keypoints": [1, 2, 2]}
    out = read(dataset, write(tmp_path / "c.json", coco([note, {"caption": "a film"}])))
    (found,) = answers(dataset, out)["a.jpg"]
    assert (found["iscrowd"], found["score"], found["severity"], found["coco_id"]) == (1, 0.7, "high", 7)
    assert out.dropped == {"keypoints": 1, "captions": 1}


@pytest.mark.parametrize("box", [{}, {"bbox": []}, {"bbox": None}, {"bbox": [0, 0, 0, 0]}, {"bbox": [5, 5, 0, 10]}])
def test_an_outline_of_coco_gives_the_box_that_is_missing(dataset, tmp_path, box):
    note = {**box, "segmentation": [[5, 5, 15, 5, 15, 20], [40, 50, 60, 50, 60, 60]]}
    assert boxes(dataset, read(dataset, write(tmp_path / "c.json", coco([note]))))["a.jpg"] == [("void", 5, 5, 55, 55)]


def test_run_lengths_of_coco_are_those_of_pycocotools(dataset, tmp_path):
    masks = pytest.importorskip("pycocotools.mask", reason='needs pycocotools: pip install "gsal-fo[dev]"')
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((96, 128), dtype=bool)
        x, y = rng.integers(0, 100), rng.integers(0, 70)
        mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = rng.random() < 0.5 or rng.random((1, 1)) > 0
        mask &= rng.random(mask.shape) < rng.choice([0.5, 1.1])
        if not mask.any():
            continue
        packed = masks.encode(np.asfortranarray(mask, dtype=np.uint8))
        runs = geometry.coco_runs(packed["counts"].decode())
        assert (geometry.from_runs(runs, 128, 96, by_column=True) == mask).all()
        note = {"segmentation": {"size": [96, 128], "counts": packed["counts"].decode()}}
        listed = {"segmentation": {"size": [96, 128], "counts": runs}}
        wanted = ("void", *masks.toBbox(packed).tolist())
        found = boxes(dataset, read(dataset, write(tmp_path / "c.json", coco([note, listed]))))
        assert found["a.jpg"] == [wanted, wanted]


def test_a_mask_of_coco_is_kept_inside_its_box(dataset, tmp_path):
    # By columns: 96 * 10 + 20 of background, then 5 pixels down in columns 10 and 11.
    runs = [96 * 10 + 20, 5, 91, 5, 96 * 128 - (96 * 11 + 25)]
    note = {"bbox": [8, 20, 4, 5], "segmentation": {"size": [96, 128], "counts": runs}, "iscrowd": 1}
    found = one(dataset, write(tmp_path / "c.json", coco([note])))
    assert found.mask.tolist() == [[False, False, True, True]] * 5


def test_a_turned_box_of_coco_and_voc_is_never_taken_as_upright(dataset, tmp_path):
    """CVAT writes both as they lie before they are turned, with the angle as an attribute."""
    note = {"bbox": [10, 10, 20, 10], "segmentation": [], "attributes": {"rotation": 90.0}}
    upright = {"bbox": [10, 10, 20, 10], "attributes": {"rotation": 0.0}}
    found = boxes(dataset, read(dataset, write(tmp_path / "c.json", coco([note, upright]))))
    assert found["a.jpg"] == [("void", 15, 5, 10, 20), ("void", 10, 10, 20, 10)]
    pair = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"
    text = voc(voc_object(corners=(10, 10, 30, 20), more=pair))
    assert boxes(dataset, read(dataset, write(tmp_path / "v" / "a.xml", text)))["a.jpg"] == [("void", 15, 5, 10, 20)]


def test_flags_outlines_and_attributes_of_voc_are_kept(dataset, tmp_path):
    flags = "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult><occluded>1</occluded>"
    ring = "<polygon><x1>10</x1><y1>20</y1><x2>30</x2><y2>20</y2><x3>30</x3><y3>40</y3></polygon>"
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    out = read(dataset, write(tmp_path / "a.xml", voc(voc_object(more=flags + ring + part))))
    (found,) = answers(dataset, out)["a.jpg"]
    kept = [found[k] for k in ("pose", "truncated", "difficult", "occluded")]
    assert kept == ["Left", True, False, True] and len(found["polygons"][0]) == 3
    assert boxes(dataset, out)["a.jpg"] == [("void", 10, 20, 20, 20)] and out.dropped == {"parts": 1}


def test_a_turned_box_of_rolabelimg(dataset, tmp_path):
    place = "<robndbox><cx>20</cx><cy>15</cy><w>20</w><h>10</h><angle>1.5707963</angle></robndbox>"
    out = read(
        dataset, write(tmp_path / "a.xml", voc(f"<object><type>robndbox</type><name>void</name>{place}</object>"))
    )
    assert boxes(dataset, out)["a.jpg"] == [("void", 15, 5, 10, 20)]
    assert answers(dataset, out)["a.jpg"][0]["rotation"] == pytest.approx(90, abs=1e-4)


SEEN = {"original_width": 128, "original_height": 96, "image_rotation": 0}


def task(*results, file="a.jpg", **more):
    return {
        "id": 1,
        "data": {"image": f"/data/upload/3/0a1b2c3d-{file}"},
        "annotations": [{"result": list(results)}],
        **more,
    }


def region(kind, value, label="void", number="r1", **more):
    named = {kind: [label]} if kind.endswith("labels") else {}
    return {
        "id": number,
        "from_name": kind,
        "to_name": "image",
        "type": kind,
        **SEEN,
        "value": {**value, **named},
        **more,
    }


RECTANGLE = {"x": 10, "y": 20, "width": 25, "height": 50, "rotation": 0}  # percent: 12.8, 19.2, 32, 48 pixels
REGIONS = {
    "rectangle": (region("rectanglelabels", RECTANGLE), (12.8, 19.2, 32, 48)),
    # Around its own upper left corner (12.8, 19.2) by a quarter: 48 to the left, 32 down.
    "turned": (region("rectanglelabels", {**RECTANGLE, "x": 50, "rotation": 90}), (64 - 48, 19.2, 48, 32)),
    "polygon": (region("polygonlabels", {"points": [[10, 10], [20, 10], [20, 40]]}), (12.8, 9.6, 12.8, 28.8)),
    "ellipse": (region("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25}), (51.2, 24, 25.6, 48)),
    # Half axes of 12.8 and 24 pixels change places.
    "turned ellipse": (
        region("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "rotation": 90}),
        (64 - 24, 48 - 12.8, 48, 25.6),
    ),
}


@pytest.mark.parametrize("kind", REGIONS)
def test_regions_of_label_studio_come_back_as_their_enclosing_boxes(dataset, tmp_path, kind):
    result, wanted = REGIONS[kind]
    out = read(dataset, write(tmp_path / "project-1.json", [task(result)]))
    assert boxes(dataset, out)["a.jpg"] == [("void", *(pytest.approx(v, abs=2e-3) for v in wanted))]


def test_a_brush_of_label_studio_is_what_its_own_converter_encoded(dataset, tmp_path):
    python = tools.python_of("labelstudio")
    mask = np.zeros((96, 128), dtype=np.uint8)
    mask[20:25, 30:42] = 255
    mask[22, 35] = 0
    np.save(tmp_path / "mask.npy", mask)
    rle = json.loads(
        tools.run([python, ROOT / "tests" / "readers" / "brush_of_label_studio.py", tmp_path / "mask.npy"])
    )
    out = read(dataset, write(tmp_path / "p.json", [task(region("brushlabels", {"format": "rle", "rle": rle}))]))
    assert boxes(dataset, out)["a.jpg"] == [("void", 30, 20, 12, 5)]
    np.testing.assert_array_equal(answers(dataset, out)["a.jpg"][0].mask, mask[20:25, 30:42] > 0)


def test_a_region_that_is_drawn_and_named_by_two_tags_is_one(dataset, tmp_path):
    """A Rectangle tag and a Labels tag: two results of one id, and a third for what was chosen for the region."""
    drawn = region("rectangle", RECTANGLE)
    named = region("labels", RECTANGLE)
    chosen = region("choices", {**RECTANGLE, "choices": ["deep"]}, from_name="depth")
    out = read(dataset, write(tmp_path / "p.json", [task(drawn, named, chosen)]))
    (found,) = answers(dataset, out)["a.jpg"]
    assert found.label == "void" and found["depth"] == "deep" and not out.dropped


def test_what_is_said_of_a_whole_image_is_counted(dataset, tmp_path):
    about = {"id": "c", "type": "choices", "from_name": "light", "value": {"choices": ["dark"]}}
    link = {"type": "relation", "from_id": "r1", "to_id": "r2"}
    out = read(dataset, write(tmp_path / "p.json", [task(REGIONS["rectangle"][0], about, link)]))
    assert len(answers(dataset, out)["a.jpg"]) == 1
    assert out.dropped == {"answers about the whole image": 1, "relations": 1}


@pytest.mark.parametrize(
    "result",
    [
        region("keypointlabels", {"x": 1, "y": 2, "width": 1}),
        region("vectorlabels", {"vertices": []}),
        region("rectangle", RECTANGLE),
        {**region("rectanglelabels", RECTANGLE), "image_rotation": 90},
        region("rectanglelabels", {**RECTANGLE, "rotation": 20}, original_width=None),
        {**region("rectanglelabels", RECTANGLE), "value": {**RECTANGLE, "rectanglelabels": ["void", "scratch"]}},
        region("brushlabels", {"format": "rle", "rle": [1, 2, 3]}),
        "x",
    ],
    ids=["keypoint", "vector", "no label", "turned image", "turned without size", "two labels", "broken brush", "text"],
)
def test_a_region_that_cannot_be_taken_leaves_its_task_unlabeled(dataset, tmp_path, result):
    rest = task(REGIONS["polygon"][0], file="b.jpg")
    out = read(dataset, write(tmp_path / "p.json", [task(REGIONS["rectangle"][0], result), rest]))
    assert set(answers(dataset, out)) == {"b.jpg"} and len(out.unread) == 1 and "a.jpg: " in out.unread[0]


def test_flat_exports_and_single_annotations_of_label_studio_are_read(dataset, tmp_path):
    flat = {"image": "/data/upload/3/0a1b2c3d-a.jpg", "id": 1, "annotator": 1, "annotation_id": 5, "lead_time": 3.1}
    value = {**RECTANGLE, "rectanglelabels": ["void"], "original_width": 128, "original_height": 96}
    empty = {**flat, "image": "/data/upload/3/0a1b2c3d-b.jpg"}
    out = read(dataset, write(tmp_path / "min.json", [{**flat, "label": [value]}, empty]))
    assert boxes(dataset, out) == {"a.jpg": [("void", 12.8, 19.2, 32, 48)], "b.jpg": []}
    assert all(a.answered for a in out.answers.values())
    stored = {"id": 5, "result": [REGIONS["polygon"][0]], "task": {"id": 1, "data": {"image": "s3://bucket/a.jpg"}}}
    assert len(answers(dataset, read(dataset, write(tmp_path / "5.json", stored)))["a.jpg"]) == 1


YOLO = {
    # Shares of 128 x 96.
    "box": ("0 0.5 0.5 0.25 0.5", (48, 24, 32, 48)),
    "score": ("0 0.5 0.5 0.25 0.5 0.75", (48, 24, 32, 48)),
    "outline": ("0 0.1 0.1 0.3 0.1 0.3 0.3 0.2 0.35 0.1 0.3", (12.8, 9.6, 25.6, 24)),
    "turned": ("0 0.1 0.1 0.3 0.2 0.25 0.3 0.05 0.2", (6.4, 9.6, 32, 19.2)),
    "pose": ("0 0.5 0.5 0.25 0.5 0.1 0.2 2 0.3 0.4 1", (48, 24, 32, 48)),
}


@pytest.mark.parametrize("kind", YOLO)
def test_rows_of_yolo_come_back_as_their_enclosing_boxes(dataset, tmp_path, kind):
    row, wanted = YOLO[kind]
    shape = "kpt_shape: [2, 3]\n" if kind == "pose" else ""
    write(tmp_path / "y" / "data.yaml", f"names: [void]\n{shape}")
    write(tmp_path / "y" / "labels" / "a.txt", row)
    out = read(dataset, tmp_path / "y")
    assert boxes(dataset, out)["a.jpg"] == [("void", *(pytest.approx(v, abs=2e-3) for v in wanted))]
    found = answers(dataset, out)["a.jpg"][0]
    assert found.has_field("polygons") == (kind in ("outline", "turned"))
    assert out.dropped == ({"keypoints": 1} if kind == "pose" else {})
    assert found.get_field("score") == 0.75 if kind == "score" else not found.has_field("score")


def test_rows_that_may_be_either_keypoints_or_nothing_are_not_guessed(dataset, tmp_path):
    write(tmp_path / "y" / "classes.txt", "void")
    write(tmp_path / "y" / "labels" / "a.txt", "0 0.5 0.5 0.25 0.5 0.1 0.2 2")
    out = read(dataset, tmp_path / "y")
    assert not out.answers and "neither a box nor an outline" in out.unread[0]


def test_all_that_a_detection_holds_survives_fiftyones_own_format(dataset, tmp_path):
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    drawn = fo.Detection(
        label="void",
        bounding_box=[0.1, 0.2, 0.3, 0.4],
        mask=mask,
        confidence=0.8,
        index=3,
        tags=["checked"],
        severity="high",
        iscrowd=True,
        instance=fo.Instance(),
    )
    line = fo.Polyline(label="scratch", points=[[(0.1, 0.1), (0.2, 0.1), (0.2, 0.5)]], closed=True, filled=True)
    for field, value in (
        ("ground_truth", fo.Detections(detections=[drawn])),
        ("lines", fo.Polylines(polylines=[line])),
    ):
        passing = pool(tmp_path / "photos")
        sample = passing.first()
        sample["ground_truth"] = value
        sample.save()
        passing.export(str(tmp_path / field), dataset_type=fo.types.FiftyOneDataset, export_media=False, progress=False)
    found = one(dataset, tmp_path / "ground_truth")
    np.testing.assert_array_equal(found.mask, mask)
    assert (found.confidence, found.index, found.tags, found["severity"], found["iscrowd"]) == (
        0.8,
        3,
        ["checked"],
        "high",
        True,
    )
    outline = one(dataset, tmp_path / "lines")
    assert outline.label == "scratch" and outline.bounding_box == pytest.approx([0.1, 0.1, 0.1, 0.4])


def test_ingest_writes_shape_mask_and_attributes_into_the_database(dataset, tmp_path):
    note = {"segmentation": [[10, 10, 30, 10, 30, 40]], "iscrowd": 1, "attributes": {"severity": "high"}}
    gfo.ingest(dataset, write(tmp_path / "c.json", coco([note], names=["a.jpg"])))
    dataset.reload()
    (found,) = dataset.match({"ground_truth": {"$ne": None}}).first().ground_truth.detections
    assert found.mask.shape == (30, 20) and 0.4 < found.mask.mean() < 0.6
    assert found["severity"] == "high" and found["iscrowd"] == 1 and len(found["polygons"][0]) == 3
    assert dataset.count("ground_truth.detections") == 1


def test_outlines_and_masks_too_long_for_a_document_are_kept_as_far_as_they_fit(dataset, tmp_path):
    """MongoDB takes 16 MB a document: 60 outlines of 10,000 points are 30 MB."""
    angles = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    ring = np.stack([60 + 30 * np.cos(angles), 50 + 30 * np.sin(angles)], axis=1).ravel().tolist()
    path = write(tmp_path / "c.json", coco([{"segmentation": [ring]}] * 60, ["a.jpg"]))
    report = gfo.ingest(dataset, path)
    dataset.reload()
    found = dataset.match({"ground_truth": {"$ne": None}}).first().ground_truth.detections
    assert report.boxes == len(found) == 60 and all(d.mask.any() and not d.has_field("polygons") for d in found)
    noisy = np.random.default_rng(0).random((4, 6000, 6000)) < 0.5
    masks = [fo.Detection(label="void", bounding_box=[0, 0, 1, 1], mask=mask) for mask in noisy]
    dropped = Counter()
    detections.fit(masks, dropped)
    assert len(bson.encode(fo.Detections(detections=masks).to_dict())) <= detections.DOCUMENT
    assert all(d.mask.shape == (3000, 3000) for d in masks) and sum(dropped.values()) == 4
