"""Which texts of a YOLO folder hold class names, and which are label files."""

import shutil

import pytest
import yaml

from gsal_fo.fo.exchange.formats import yolo
from tests.label_files import (
    ROW,
    answers,
    pool,
    read,
    write,
    yolo_folder,
)

CLASSES = {
    "emoji": ({"data.yaml": "names: ['🐛', ok]"}, "🐛"),
    "emoji by halves": ({"data.yaml": 'names: ["\\ud83d\\udc1b", ok]'}, "🐛"),
    "no": ({"data.yaml": "names: [no, yes]"}, "no"),
    "number": ({"data.yaml": "names: [007, 1e3]"}, "007"),
    "keys as text": ({"data.yaml": "names: {'0': void, '1': scratch}"}, "void"),
    "gaps": ({"data.yaml": "names: {0: void, 7: scratch}"}, "void"),
    "crlf and mark": ({"classes.txt": "\ufeffvoid\r\nscratch\r\n"}, "void"),
    "nearest": ({"classes.txt": "wrong\n", "labels/classes.txt": "void\nscratch\n"}, "void"),
    "another yaml": ({"data.yaml": "names: [void]", "train.yaml": "epochs: 3", "broken.yaml": "a: ["}, "void"),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_class_names(tmp_path, kind):
    lists, wanted = CLASSES[kind]
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    place = yolo_folder(tmp_path / "y", ROW.format(0), lists)
    assert [d.label for d in answers(dataset, read(dataset, place))["a.jpg"]] == [wanted]


def test_a_blank_line_in_a_list_of_classes_counts(tmp_path):
    dataset = pool(tmp_path / "photos")
    place = yolo_folder(tmp_path / "y", ROW.format(2), {"classes.txt": "void\n\nscratch\n\n"})
    write(place / "labels" / "b.txt", ROW.format(1))
    out = read(dataset, place)
    assert answers(dataset, out)["a.jpg"][0].label == "scratch" and "b.jpg" not in answers(dataset, out)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({}, r"its class names are missing \(classes.txt, obj.names, data.yaml, dataset.yaml\)"),
        ({"data.yaml": "names: [void]", "classes.txt": "scratch\n"}, "other classes in classes.txt than in data.yaml"),
        ({"data.yaml": "names: 5"}, "class names are missing"),
        ({"data.yaml": "a: &a [x, x]\nb: &b [*a, *a]\nnames: *b"}, "aliases"),
        ({"data.yaml": "names: " + "[" * 100_000}, "data.yaml lists no class names"),
        ({"data.yaml": "names: {x: void}"}, r'class "x" is no number'),
        ({"data.yaml": "names: [void\n"}, "data.yaml lists no class names"),
        ({"data.yaml": "names:\n" + "- x\n" * 600_000}, "a list of classes is far shorter"),
    ],
)
def test_class_names_that_cannot_be_used_are_a_sentence(tmp_path, lists, message):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    with pytest.raises(ValueError, match=message) as caught:
        read(dataset, yolo_folder(tmp_path / "y", ROW.format(0), lists))
    assert len(str(caught.value)) < 500 and str(tmp_path / "y") in str(caught.value)


def test_the_list_that_the_user_names_is_the_one_that_is_read(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    lists = {
        "classes.txt": "wrong\n",
        "data.yaml": "names: [wrong]",
        "films.yaml": "names: [void]",
        "data.yml": "names: [x]",
    }
    place = yolo_folder(tmp_path / "y", ROW.format(0), lists)
    for name, label in (("films.yaml", "void"), ("data.yml", "x"), ("classes.txt", "wrong")):
        assert answers(dataset, read(dataset, place / name))["a.jpg"][0].label == label


def test_a_yaml_that_lies_elsewhere_names_its_folder(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    yolo_folder(tmp_path / "set", ROW.format(0), {})
    path = write(tmp_path / "configs" / "films.yaml", f"path: {tmp_path / 'set'}\nnames: [void]")
    assert set(answers(dataset, read(dataset, path))) == {"a.jpg"}


def test_the_labels_folder_and_a_single_label_file_find_their_classes_above(tmp_path):
    dataset = pool(tmp_path / "photos")
    place = yolo_folder(
        tmp_path / "y", ROW.format(0), {"data.yaml": "names: [void]", "labels/train/b.txt": ROW.format(0)}
    )
    assert set(answers(dataset, read(dataset, place / "labels"))) == {"a.jpg", "b.jpg"}
    assert set(answers(dataset, read(dataset, place / "labels" / "train"))) == {"b.jpg"}
    assert set(answers(dataset, read(dataset, place / "labels" / "a.txt"))) == {"a.jpg"}


def test_images_called_like_lists_have_label_files_too(tmp_path):
    names = ["train", "val", "test", "notes", "images", "classes", "README", "labels"]
    dataset = pool(tmp_path / "photos", [f"{n}.jpg" for n in names])
    for n in names:
        write(tmp_path / "y" / "labels" / f"{n}.txt", ROW.format(0))
    write(tmp_path / "y" / "data.yaml", "names: [void]")
    assert set(answers(dataset, read(dataset, tmp_path / "y"))) == {f"{n}.jpg" for n in names}
    flat = tmp_path / "flat"
    for n in names:
        write(flat / f"{n}.txt", ROW.format(0))
        shutil.copy(tmp_path / "photos" / f"{n}.jpg", flat)
    write(flat / "data.yaml", "names: [void]")
    assert set(answers(dataset, read(dataset, flat))) == {f"{n}.jpg" for n in names}


@pytest.mark.parametrize(
    "label", ["🐛", "=cmd|' /C calc'!A0", "no", "007", "a: b", "#x", "'", '"', "日本", "x\u2028y", "- y", "{a}", "é"]
)
def test_data_yaml_is_valid_yaml_for_any_label(tmp_path, label):
    text = yolo.data_yaml(["first", label], "images")
    assert yaml.safe_load(text)["names"] == {0: "first", 1: label}
    place = yolo_folder(tmp_path / "y", ROW.format(1), {"data.yaml": text})
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    assert [d.label for d in answers(dataset, read(dataset, place))["a.jpg"]] == [label]
