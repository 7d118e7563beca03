"""What tools export is known by its content, whatever its names, and all of it is read."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.label_files import (
    BOX,
    NOTES,
    RF,
    ROW,
    WANTED,
    answers,
    boxes,
    coco,
    cvat,
    pool,
    read,
    tasks,
    voc,
    voc_object,
    write,
    yolo_folder,
)


def split_coco():
    first, second = (coco([{"bbox": [10, 20, 20, 20], "category_id": k}], [n]) for k, n in ((1, "a.jpg"), (2, "b.jpg")))
    return first, second


A, B = split_coco()
OBJECTS = voc_object("void"), voc_object("scratch")
LAYOUTS = {
    "coco of CVAT": {"annotations/instances_default.json": coco(NOTES)},
    "coco of CVAT, subsets": {"annotations/instances_train.json": A, "annotations/instances_val.json": B},
    "coco of Roboflow": {
        "train/_annotations.coco.json": A,
        "valid/_annotations.coco.json": B,
        "README.dataset.txt": "x",
    },
    "coco of FiftyOne": {"labels.json": coco(NOTES), "data/a.jpg": "x"},
    "coco of Label Studio": {"result.json": coco(NOTES, ["images\\0a1b2c3d-a.jpg", "images/0a1b2c3d__b.jpg"])},
    "coco of LVIS": {"lvis.json": coco(NOTES)},
    "coco with ids of two kinds": {"c.json": coco([{**NOTES[0], "image_id": "1"}, {**NOTES[1], "category_id": 2.0}])},
    "coco, any name": {"my labels.JSON": coco(NOTES)},
    "voc of a devkit": {
        "VOC2012/Annotations/a.xml": voc(OBJECTS[0]),
        "VOC2012/Annotations/b.xml": voc(OBJECTS[1], "b.jpg"),
        "VOC2012/ImageSets/Main/default.txt": "a\nb\n",
    },
    "voc of Roboflow": {
        f"train/a_jpg{RF}.xml": voc(OBJECTS[0], f"a_jpg{RF}.jpg"),
        f"test/b_jpg{RF}.xml": voc(OBJECTS[1], f"b_jpg{RF}.jpg"),
    },
    "voc of labelImg": {"a.xml": voc(OBJECTS[0]), "b.xml": voc(OBJECTS[1], "b"), "classes.txt": "void\nscratch\n"},
    "voc, stale file names": {"a.xml": voc(OBJECTS[0], "0001.png"), "b.xml": voc(OBJECTS[1], "")},
    "cvat": {"annotations.xml": cvat(BOX.format("void"), BOX.format("scratch"))},
    "cvat, tasks side by side": {
        "task_1/annotations.xml": cvat(BOX.format("void")),
        "task_2/annotations.xml": cvat("", BOX.format("scratch")),
    },
    "label studio": {"project-1-at-2026-01-01.json": tasks()},
    "label studio, any name": {"export.json": tasks()},
    "label studio beside our own tasks": {
        "tasks.json": [{"data": t["data"]} for t in tasks()],
        "project-1.json": tasks(),
        "label_config.xml": "<View/>",
    },
    "yolo of ours": {
        "labels/a.txt": ROW.format(0),
        "labels/b.txt": ROW.format(1),
        "classes.txt": "void\nscratch\n",
        "data.yaml": "names: {0: void, 1: scratch}",
    },
    "yolo of Ultralytics": {
        "labels/train/a.txt": ROW.format(0),
        "labels/val/b.txt": ROW.format(1),
        "films.yaml": "path: x\ntrain: images/train\nval: [images/val, images/more]\nnc: 2\nnames: [void, scratch]",
    },
    "yolo of Roboflow": {
        f"train/labels/a_jpg{RF}.txt": ROW.format(0),
        f"valid/labels/b_jpg{RF}.txt": ROW.format(1),
        "data.yaml": "train: ../train/images\nnames: ['void', 'scratch']",
    },
    "yolo of CVAT": {
        "obj_train_data/a.txt": ROW.format(0),
        "obj_valid_data/b.txt": ROW.format(1),
        "obj.names": "void\nscratch\n",
        "obj.data": "classes = 2\nnames = data/obj.names",
        "train.txt": "data/obj_train_data/a.jpg",
        "valid.txt": "data/obj_valid_data/b.jpg",
    },
    "yolo of Label Studio": {
        "labels/0a1b2c3d__a.txt": ROW.format(0),
        "labels/0a1b2c3d-b.txt": ROW.format(1),
        "classes.txt": "void\nscratch\n",
        "notes.json": {"categories": [], "info": {}},
    },
    "yolo of labelImg": {
        "labels/a.txt": ROW.format(0),
        "labels/b.txt": ROW.format(1),
        "labels/classes.txt": "void\nscratch\n",
    },
    "yolo, flat": {
        "a.txt": ROW.format(0),
        "b.txt": ROW.format(1),
        "classes.txt": "void\nscratch\n",
        "README.txt": "films of March",
        "train.txt": "a.jpg\nb.jpg\n",
    },
    "yolo of darknet": {
        "train/a.txt": ROW.format(0),
        "train/b.txt": ROW.format(1),
        "train/_darknet.labels": "void\nscratch",
    },
    "fiftyone image detection": {
        "labels.json": {
            "classes": ["void", "scratch"],
            "labels": {
                n: [{"label": k, "bounding_box": [10 / 128, 20 / 96, 20 / 128, 20 / 96]}] for k, n in enumerate("ab")
            },
        }
    },
}


@pytest.mark.parametrize("packed", ["folder", "wrapped folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_tools_export_is_known_by_its_content(tmp_path, layout, packed):
    dataset = pool(tmp_path / "photos")
    place = tmp_path / "export"
    for name, content in LAYOUTS[layout].items():
        write(place / ("my project" if packed == "wrapped folder" else ".") / name, content)
    write(place / "__MACOSX" / "._a.xml", b"\0\0")
    write(place / ".cache" / "x.json", "{")
    if packed == "zip":
        place = Path(shutil.make_archive(str(tmp_path / "labels"), "zip", place))
    out = read(dataset, place)
    found = {
        name: [(label, *(round(v, 1) for v in box)) for label, *box in rows]
        for name, rows in boxes(dataset, out).items()
    }
    assert found == WANTED and not out.unread and not out.unmatched


@pytest.mark.parametrize("name", ["x.json", "x.xml", "x.txt", "noname"])
@pytest.mark.parametrize("layout", ["coco, any name", "cvat", "label studio"])
def test_a_single_file_is_known_by_its_content_whatever_it_is_called(tmp_path, layout, name):
    dataset = pool(tmp_path / "photos")
    (content,) = LAYOUTS[layout].values()
    out = read(dataset, write(tmp_path / name, content))
    assert {k: [row[0] for row in rows] for k, rows in boxes(dataset, out).items()} == {
        "a.jpg": ["void"],
        "b.jpg": ["scratch"],
    }


def test_a_zip_is_known_by_its_content_too(tmp_path):
    dataset = pool(tmp_path / "photos")
    with zipfile.ZipFile(tmp_path / "export.download", "w") as bundle:
        bundle.writestr("x.json", json.dumps(coco(NOTES)))
    assert boxes(dataset, read(dataset, tmp_path / "export.download")) == WANTED


def test_labels_in_two_formats_are_a_question_to_the_user(tmp_path):
    dataset = pool(tmp_path / "photos")
    write(tmp_path / "l" / "a.xml", voc(OBJECTS[0]))
    write(tmp_path / "l" / "c.json", coco(NOTES))
    with pytest.raises(ValueError, match=r"several formats: Pascal VOC \(1 images\), COCO \(2 images\); choose one"):
        read(dataset, tmp_path / "l")
    assert boxes(dataset, read(dataset, tmp_path / "l", "coco")) == WANTED
    assert set(boxes(dataset, read(dataset, tmp_path / "l", "voc"))) == {"a.jpg"}


def test_a_broken_file_among_others_is_listed_and_the_rest_read(tmp_path):
    dataset = pool(tmp_path / "photos")
    write(tmp_path / "l" / "train.json", A)
    write(tmp_path / "l" / "valid.json", "{")
    write(tmp_path / "l" / "package.json", {"name": "viewer", "version": 1})
    out = read(dataset, tmp_path / "l")
    assert set(answers(dataset, out)) == {"a.jpg"}
    assert len(out.unread) == 1 and "valid.json" in out.unread[0] and "not readable JSON" in out.unread[0]
    assert out.notes == ["passed over, since they hold no labels: package.json"]


FOREIGN = {
    "LabelMe": {"version": "5.0", "shapes": [], "imagePath": "a.jpg", "imageData": None},
    "Datumaro": {"info": {}, "categories": {}, "items": []},
}


@pytest.mark.parametrize("tool", FOREIGN)
def test_formats_that_are_not_read_are_called_by_their_name(tmp_path, tool):
    dataset = pool(tmp_path / "photos")
    path = write(tmp_path / "l" / "a.json", FOREIGN[tool])
    for place in (path, path.parent):
        with pytest.raises(ValueError, match=rf"looks like {tool}.*: export COCO, YOLO or Pascal VOC"):
            read(dataset, place)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    dataset = pool(tmp_path / "photos")
    write(tmp_path / "elsewhere" / "c.json", coco(NOTES))
    write(tmp_path / "l" / "train.json", A)
    (tmp_path / "l" / "more").symlink_to(tmp_path / "elsewhere")
    assert set(answers(dataset, read(dataset, tmp_path / "l"))) == {"a.jpg"}


def signs(dataset, out):
    names = dict(zip(*dataset.values(["id", "filepath"]), strict=True))
    return {Path(names[i]).name: (a.answered, a.blank) for i, a in out.answers.items()}


def test_only_a_sign_of_the_file_itself_says_that_somebody_finished(tmp_path):
    dataset = pool(tmp_path / "photos")
    silent, done = (False, False), (True, False)
    cases = {
        "c.json": (coco(NOTES[:1]), silent, silent),
        "c.xml": (cvat(BOX.format("void"), ""), silent, silent),
        "job.xml": (cvat(BOX.format("void"), "", meta="<job><id>3</id><state>completed</state></job>"), done, done),
        "busy.xml": (
            cvat(BOX.format("void"), "", meta="<job><id>3</id><state>in progress</state></job>"),
            silent,
            silent,
        ),
        "l.json": ([tasks()[0], {"data": {"image": "b.jpg"}, "annotations": [{"result": []}]}], done, done),
        "f.json": (
            {
                "samples": [
                    {
                        "filepath": "a.jpg",
                        "ground_truth": {
                            "_cls": "Detections",
                            "detections": [{"label": "x", "bounding_box": [0, 0, 0.5, 0.5]}],
                        },
                    },
                    {"filepath": "b.jpg", "ground_truth": {"_cls": "Detections", "detections": []}},
                ]
            },
            silent,
            done,
        ),
    }
    for name, (content, a, b) in cases.items():
        out = read(dataset, write(tmp_path / name, content))
        assert signs(dataset, out) == {"a.jpg": a, "b.jpg": b}, name
    write(tmp_path / "v" / "a.xml", voc("", attributes=' verified="yes"'))
    write(tmp_path / "v" / "b.xml", voc("", "b.jpg"))
    assert signs(dataset, read(dataset, tmp_path / "v")) == {"a.jpg": done, "b.jpg": silent}
    yolo_folder(tmp_path / "y", "\n", {"classes.txt": "void", "labels/b.txt": ROW.format(0)})
    assert signs(dataset, read(dataset, tmp_path / "y")) == {"a.jpg": (False, True), "b.jpg": silent}


def test_tasks_of_cvat_are_finished_one_by_one(tmp_path):
    dataset = pool(tmp_path / "photos")
    text = cvat(
        "",
        "",
        meta="<project><tasks><task><id>1</id><state>completed</state></task><task><id>2</id></task></tasks></project>",
    )
    text = text.replace('id="0"', 'id="0" task_id="1"').replace('<image id="1"', '<image id="1" task_id="2"')
    assert signs(dataset, read(dataset, write(tmp_path / "a.xml", text))) == {
        "a.jpg": (True, False),
        "b.jpg": (False, False),
    }


def test_skipped_and_open_tasks_of_label_studio_are_waited_for(tmp_path):
    dataset = pool(tmp_path / "photos")
    first, second = tasks()
    first["annotations"][0]["was_cancelled"] = True
    out = read(
        dataset, write(tmp_path / "l.json", [first, {"data": second["data"], "drafts": [{}], "predictions": [{}]}])
    )
    assert not out.answers and len(out.waiting) == 2 and not out.unread
