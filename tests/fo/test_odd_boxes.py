"""One odd box is named with its image and left out; the rest of the dataset goes on."""

import math

import fiftyone as fo
import numpy as np
import pyarrow.parquet as pq
import pytest
from bson import ObjectId

import gsal_fo.fo as gfo
from gsal_fo.fo.dataset import pool, usable
from tests.fo_pool import box

NAN = float("nan")
GOOD = [0.1, 0.2, 0.3, 0.4]
ODD = {
    "none": (None, "has no bounding box"),
    "empty": ([], "has no bounding box"),
    "three numbers": ([0.1, 0.2, 0.3], "has no bounding box of four numbers"),
    "five numbers": ([0.1, 0.2, 0.3, 0.4, 0.5], "has no bounding box of four numbers"),
    "text": ("0.1,0.2,0.3,0.4", "has no bounding box of four numbers"),
    "texts": (["0.1", "0.2", "0.3", "0.4"], "values that are no finite numbers"),
    "a missing value": ([0.1, None, 0.3, 0.4], "values that are no finite numbers"),
    "nan": ([NAN, 0.2, 0.3, 0.4], "values that are no finite numbers"),
    "all nan": ([NAN] * 4, "values that are no finite numbers"),
    "infinite": ([0.1, 0.2, math.inf, 0.4], "values that are no finite numbers"),
    "truth": ([True, 0.2, 0.3, 0.4], "values that are no finite numbers"),
    "no width": ([0.1, 0.2, 0.0, 0.4], "has no area: its width is 0 and its height 0.4"),
    "negative height": ([0.1, 0.2, 0.3, -0.4], "has no area: its width is 0.3 and its height -0.4"),
    "right of the image": ([1.5, 0.2, 0.1, 0.1], "lies outside the image"),
    "above the image": ([0.5, -0.3, 0.1, 0.2], "lies outside the image"),
    "pixels": ([120.0, 40.0, 60.0, 30.0], "lies outside the image"),
    "pixels from the corner": ([0.0, 0.0, 64.0, 48.0], "lies outside the image"),
    "far beyond": ([-3.0, -2.0, 1e6, 1e9], "lies outside the image"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_box_in_the_image_is_said(name):
    stored, said = ODD[name]
    assert said in usable.of_box(stored)


@pytest.mark.parametrize(
    ("stored", "cut"),
    [
        (GOOD, GOOD),
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([-0.1, 0.2, 0.3, 0.4], [0.0, 0.2, 0.2, 0.4]),
        ([0.9, 0.8, 0.3, 0.4], [0.9, 0.8, 0.1, 0.2]),
        ([-0.5, -0.5, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]),
    ],
)
def test_a_box_over_the_border_is_cut_there(stored, cut):
    assert usable.of_box(stored) is None
    assert usable.inside(stored) == pytest.approx(cut)


def test_a_box_within_the_image_keeps_every_bit():
    third = [1 / 3, 0.1, 0.2 / 3, 1 / 7]
    assert usable.inside(third) == third


CONFIDENCES = {
    **dict.fromkeys([None, 0, 1, 1 + 1e-7]),
    NAN: "no finite number",
    -math.inf: "no finite number",
    1.5: "of 1.5, outside",
    97: "of 97, outside",
    -0.2: "of -0.2, outside",
    "high": "no finite number: high",
}


@pytest.mark.parametrize(("value", "said"), CONFIDENCES.items())
def test_a_confidence_is_none_or_within_0_and_1(value, said):
    found = usable.of_confidence(value)
    assert found is None if said is None else said in found


@pytest.mark.parametrize("value", [None, "", "  ", 3])
def test_a_label_needs_a_name(value):
    assert usable.of_label(value) == "has no label" and usable.of_label("void") is None


def stored(dataset, field: str, sample_id: str, boxes: list[dict]) -> None:
    """Detections as they lie in MongoDB, whatever FiftyOne would say of them; keys that are not given are missing."""
    made = [{"_id": ObjectId(), "_cls": "Detection", "attributes": {}, "tags": [], **b} for b in boxes]
    value = {"_cls": "Detections", "detections": made}
    dataset._sample_collection.update_one({"_id": ObjectId(sample_id)}, {"$set": {field: value}})
    dataset.reload()


@pytest.fixture
def proposed(dataset):
    """One proposal per image."""
    dataset.set_values("boxes", [fo.Detections(detections=[box("x", confidence=0.9)]) for _ in range(12)])
    return dataset


@pytest.mark.parametrize("name", [n for n in ODD if n not in ("texts", "truth")])  # FiftyOne reads those as numbers
def test_an_odd_proposal_is_named_and_the_others_are_scored(proposed, graph, tiny, name):
    wrong, said = ODD[name]
    ids = proposed.values("id")
    good = {"label": "x", "bounding_box": GOOD, "confidence": 0.5}
    stored(proposed, "boxes", ids[5], [{"label": "x", "bounding_box": wrong, "confidence": 0.9}, good])
    stored(proposed, "boxes", ids[7], [{"label": "x", "bounding_box": wrong, "confidence": 0.9}])
    events = []
    key = gfo.score(proposed, concepts=graph, proposals="boxes", on_event=events.append)
    record = gfo.runs.load(proposed, key).config
    assert (record.counts["pool"], record.counts["scored"]) == (9, 9)
    (note,) = [text for text in record.notes if "cannot be used" in text]
    assert {"event": "note", "message": note} in events
    start = '2 boxes of 2 images in the proposals field "boxes" cannot be used and are left out: '
    assert note.startswith(f"{start}slice_05.png ({ids[5]}): box 1 ") and f"slice_07.png ({ids[7]}): box 1 " in note
    assert note.count(said) == 2
    proposed.reload()
    # FiftyOne itself cannot load a sample with some of these, so the odd field is left out here.
    shown = proposed.select_fields("gsal_proposals")
    assert [d.confidence for d in shown[ids[5]].gsal_proposals.detections] == [0.5]
    assert [d.source for d in shown[ids[7]].gsal_proposals.detections] == ["whole"]


def test_a_proposal_needs_no_label_and_no_confidence_but_not_a_wrong_one(proposed, graph, tiny):
    ids = proposed.values("id")
    stored(
        proposed,
        "boxes",
        ids[5],
        [{"bounding_box": GOOD}, {"bounding_box": GOOD, "confidence": NAN}, {"bounding_box": GOOD, "confidence": 1.5}],
    )
    key = gfo.score(proposed, concepts=graph, proposals="boxes")
    (note,) = [t for t in gfo.runs.load(proposed, key).config.notes if "cannot be used" in t]
    assert "box 2 has a confidence that is no finite number: nan, box 3 has a confidence of 1.5, outside" in note
    proposed.reload()
    assert [d.confidence for d in proposed[ids[5]].gsal_proposals.detections] == [1.0]


def test_a_field_of_odd_proposals_alone_is_refused(proposed, graph, tiny):
    for i in proposed.values("id"):
        stored(proposed, "boxes", i, [{"label": "x", "bounding_box": [120.0, 40.0, 60.0, 30.0]}])
    with pytest.raises(ValueError, match=r'no box in the proposals field "boxes" can be used; 9 boxes of 9 images'):
        gfo.score(proposed, concepts=graph, proposals="boxes")
    assert proposed.list_runs() == []


def test_an_odd_label_is_no_instance_and_its_image_teaches_nothing(dataset, graph, tiny):
    """Image 0 has a void and a remark without a box; image 1 a crack and a box without a name; image 2 is empty."""
    ids = dataset.values("id")
    stored(dataset, "ground_truth", ids[0], [{"label": "void", "bounding_box": GOOD}, {"label": "void"}])
    stored(dataset, "ground_truth", ids[1], [{"label": "crack", "bounding_box": GOOD}, {"bounding_box": GOOD}])
    stored(dataset, "ground_truth", ids[3], [{"label": "petal", "bounding_box": GOOD}])
    key = gfo.score(dataset, concepts=graph)
    record = gfo.runs.load(dataset, key).config
    assert {name: n for name, n in record.coverage if name in ("void", "crack", "petal")} == {
        "void": 1,
        "crack": 1,
        "petal": 1,
    }
    assert record.counts["labeled"] == 4 and record.counts["pool"] == 8
    (note,) = [t for t in record.notes if "cannot be used" in t]
    assert f"slice_00.png ({ids[0]}): box 2 has no bounding box" in note
    assert f"slice_01.png ({ids[1]}): box 2 has no label" in note
    taught = pq.read_table(f"{record.run_dir}/train/manifest.parquet")["id"].to_pylist()
    assert taught == [ids[2], ids[3]], "a detector would learn that what the unusable box holds is background"
    gfo.select(dataset, 1)
    assert dict(gfo.runs.load(dataset, "gsal_select_001").config.coverage)["void"] == 1
    events = []
    gfo.train(dataset, on_event=events.append)
    assert any("cannot be used" in e.get("message", "") for e in events)


def test_labels_none_of_which_can_be_used_train_no_detector(dataset, graph, tiny):
    ids = dataset.values("id")
    for i in ids[:2]:
        stored(dataset, "ground_truth", i, [{"label": "void", "bounding_box": GOOD}, {"label": "void"}])
    events = []
    key = gfo.score(dataset, concepts=graph, on_event=events.append)
    assert any("no image has only usable boxes" in e.get("message", "") for e in events)
    assert dict(gfo.runs.load(dataset, key).config.coverage)["void"] == 2
    with pytest.raises(ValueError, match=r"nothing to train on; 2 boxes of 2 images in the label field"):
        gfo.train(dataset)


def test_a_long_list_of_images_is_cut_and_counted():
    odd = {f"{i:02}": ["box 1 has no label"] for i in range(25)}
    text = usable.note(odd, {i: f"/a/{i}.png" for i in odd}, 'label field "gt"')
    assert text.startswith('25 boxes of 25 images in the label field "gt" cannot be used and are left out: 00.png (00)')
    assert text.endswith("19.png (19): box 1 has no label; and 5 images more")
    assert usable.note({}, {}, "x") is None


def test_an_image_that_is_deleted_while_it_is_read_is_left_out(dataset):
    ids = dataset.values("id")
    dataset.delete_samples([ids[0]])
    got = pool.images(dataset, ids[:3], "ground_truth")
    assert got.ids == ids[1:3] and got.labels == [["crack"], []]
    np.testing.assert_allclose(got.boxes[0], [GOOD])
