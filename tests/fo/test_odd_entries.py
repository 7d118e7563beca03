"""One odd entry leaves its own image unlabeled, is listed, and never costs the rest."""

import json

import pytest

from tests.label_files import (
    BOX,
    NOTES,
    ROW,
    WANTED,
    answers,
    boxes,
    coco,
    cvat,
    pool,
    read,
    tasks,
    write,
    yolo_folder,
)

ODD_NOTES = {
    "no box, no outline": {},
    "box of three": {"bbox": [1, 2, 3]},
    "text": {"bbox": "box"},
    "nan": {"bbox": [1, 2, float("nan"), 4]},
    "infinite": {"bbox": [1, 2, float("inf"), 4]},
    "huge": {"bbox": [1, 2, 10**400, 4]},
    "true": {"bbox": [True, 2, 3, 4]},
    "decimal comma": {"bbox": ["1,5", "2", "3", "4"]},
    "no area": {"bbox": [1, 2, 0, 4]},
    "thinner than a pixel": {"bbox": [1, 2, 1e-9, 4]},
    "negative": {"bbox": [30, 30, -10, -10]},
    "outside": {"bbox": [500, 500, 5, 5]},
    "category not listed": {"bbox": [1, 2, 3, 4], "category_id": 99},
    "category of dots": {"bbox": [1, 2, 3, 4], "category_id": "9" * 5000},
    "list as category": {"bbox": [1, 2, 3, 4], "category_id": [1]},
    "mask of another size": {"segmentation": {"size": [9, 9], "counts": [0, 81]}},
    "mask too short": {"segmentation": {"size": [96, 128], "counts": [5]}},
    "mask of letters": {"segmentation": {"size": [96, 128], "counts": "zzz~"}},
    "huge mask": {"segmentation": {"size": [10**8, 10**8], "counts": [0, 10**16]}},
    "two points": {"segmentation": [[1, 2, 3, 4]]},
}


@pytest.mark.parametrize("odd", ODD_NOTES)
def test_one_odd_annotation_leaves_its_image_unlabeled_and_no_other(tmp_path, odd):
    dataset = pool(tmp_path / "photos")
    document = coco([*NOTES, ODD_NOTES[odd]])
    out = read(dataset, write(tmp_path / "c.json", document))
    assert boxes(dataset, out) == {"b.jpg": WANTED["b.jpg"]}
    (reason,) = out.unread
    assert reason.startswith("a.jpg: ") and len(reason) < 300


def test_a_number_of_thousands_of_digits_costs_its_own_image_alone(tmp_path):
    """Python refuses to parse it, and with it the file."""
    dataset = pool(tmp_path / "photos")
    text = json.dumps(coco([*NOTES, {"bbox": [1, 2, 12345, 4]}])).replace("12345", "9" * 5000)
    out = read(dataset, write(tmp_path / "c.json", text))
    assert boxes(dataset, out) == {"b.jpg": WANTED["b.jpg"]} and "a.jpg: " in out.unread[0]


ODD_NAMES = ["", " ", "\t", "\ud800", "a\x00b", None, 1.5, True, ["void"], {}]


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
def test_a_label_without_a_name_is_never_written(tmp_path, name):
    dataset = pool(tmp_path / "photos")
    document = coco(NOTES)
    document["categories"][0]["name"] = name
    out = read(dataset, write(tmp_path / "c.json", document))
    assert set(answers(dataset, out)) == {"b.jpg"} and len(out.unread) == 1
    found = tasks()
    found[0]["annotations"][0]["result"][0]["value"]["rectanglelabels"] = [name]
    assert set(answers(dataset, read(dataset, write(tmp_path / "l.json", found)))) == {"b.jpg"}
    label = {"_cls": "Detections", "detections": [{"label": name, "bounding_box": [0, 0, 0.5, 0.5]}]}
    good = {"_cls": "Detections", "detections": [{"label": "x", "bounding_box": [0, 0, 0.5, 0.5]}]}
    samples = [{"filepath": f"{n}.jpg", "ground_truth": v} for n, v in (("a", label), ("b", good))]
    assert set(answers(dataset, read(dataset, write(tmp_path / "f.json", {"samples": samples})))) == {"b.jpg"}


def test_a_label_is_trimmed_and_a_split_character_is_whole_again(tmp_path):
    dataset = pool(tmp_path / "photos")
    document = coco(NOTES)
    document["categories"] = [{"id": 1, "name": "  void\n"}, {"id": 2, "name": "🐛"}]
    path = write(tmp_path / "c.json", json.dumps(document))  # JSON writes the latter as two halves
    assert {k: v[0].label for k, v in answers(dataset, read(dataset, path)).items()} == {"a.jpg": "void", "b.jpg": "🐛"}


ODD_LISTS = {
    "coco annotations": {
        **coco(NOTES),
        "annotations": [*coco(NOTES)["annotations"], "x", None, {"id": 9}, {"image_id": 77}],
    },
    "coco images": {
        **coco(NOTES),
        "images": [*coco(NOTES)["images"], "x", None, {"id": 3}, {"file_name": "c.jpg"}, {"id": 4, "file_name": 5}],
    },
    "label studio": [*tasks(), "x", None, {"id": 9}, {"data": 3}, {"data": {}}, {"data": {"image": 5}}],
    "fiftyone": {
        "samples": [
            {
                "filepath": f"{n}.jpg",
                "ground_truth": {
                    "_cls": "Detections",
                    "detections": [{"label": "x", "bounding_box": [0, 0, 0.5, 0.5]}],
                },
            }
            for n in "ab"
        ]
        + ["x", None, {}, {"filepath": [1]}]
    },
    "cvat": cvat(BOX.format("void"), BOX.format("scratch")).replace(
        "</annotations>", '<image id="9"/><image id="10" name=""/></annotations>'
    ),
}


@pytest.mark.parametrize("kind", ODD_LISTS)
def test_odd_entries_of_a_list_are_listed_and_left_out(tmp_path, kind):
    dataset = pool(tmp_path / "photos")
    out = read(dataset, write(tmp_path / ("c.xml" if kind == "cvat" else "c.json"), ODD_LISTS[kind]))
    assert set(answers(dataset, out)) == {"a.jpg", "b.jpg"} and out.unread
    assert all("c." in reason and len(reason) < 300 for reason in out.unread)


def test_images_of_coco_that_share_an_id_are_left_out(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg", "b.jpg", "c.jpg"])
    document = coco(NOTES, ["a.jpg", "b.jpg", "c.jpg"])
    document["images"][2]["id"] = 1
    out = read(dataset, write(tmp_path / "c.json", document))
    assert set(answers(dataset, out)) == {"b.jpg"} and sorted(r[:5] for r in out.unread) == ["a.jpg", "c.jpg"]


def test_an_image_without_annotations_is_not_empty_where_the_file_has_some_that_belong_to_none(tmp_path):
    """Image ids of another kind in the two lists: nothing fits, and nothing is empty."""
    dataset = pool(tmp_path / "photos")
    document = coco(NOTES)
    for entry in document["images"]:
        entry["id"] = entry["file_name"]
    out = read(dataset, write(tmp_path / "c.json", document))
    assert not out.answers and len(out.unread) == 4


@pytest.mark.parametrize(
    "row",
    [
        "7 .5 .5 .1 .1",
        "² .5 .5 .1 .1",
        "-1 .5 .5 .1 .1",
        "0.5 .5 .5 .1 .1",
        "void .5 .5 .1 .1",
        "0 0,5 0,5 0,1 0,1",
        "0 .5 .5 .1",
        "0 .5 .5 1e-320 .1",
        "0 320 240 50 50",
        "0 .5 .5 nan .1",
        "0 .5 .5 .1 .1 .2 .3 .4",
        "0",
        "\u0660 .5 .5 .1 .1",
        "0 .5 .5 0 0",
    ],
)
def test_one_odd_row_leaves_its_image_unlabeled_and_no_other(tmp_path, row):
    dataset = pool(tmp_path / "photos")
    place = yolo_folder(tmp_path / "y", f"{ROW.format(0)}{row}\n", {"classes.txt": "void\nscratch\n"})
    write(place / "labels" / "b.txt", "0.0 0.5 0.5 0.1 0.1")
    out = read(dataset, place)
    assert set(answers(dataset, out)) == {"b.jpg"} and len(out.unread) == 1 and out.unread[0].startswith("a: ")
