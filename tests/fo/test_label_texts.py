"""Text is decoded and numbers are parsed in one way, for all readers."""

import json

import pytest

from gsal_fo.fo.exchange.formats import texts
from tests.label_files import (
    NOTES,
    ROW,
    answers,
    coco,
    pool,
    read,
    voc,
    voc_object,
    write,
)

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
LABEL = "Prüfung"


def in_each_format(folder, encoding):
    """A label file of each text format, of an image a.jpg with one LABEL."""
    document = coco(NOTES[:1], ["a.jpg"])
    document["categories"][0]["name"] = LABEL
    files = {
        "c.json": json.dumps(document, ensure_ascii=False),
        "labels/a.txt": ROW.format(0),
        "classes.txt": f"{LABEL}\r\nx\r\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode(encoding))
    return folder


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_is_decoded_one_way_whatever_the_format(tmp_path, encoding):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    place = in_each_format(tmp_path / "l", encoding)
    for format in ("coco", "yolo"):
        assert [d.label for d in answers(dataset, read(dataset, place, format))["a.jpg"]] == [LABEL]
    write(place / "classes.txt", b"")
    (place / "data.yaml").write_bytes(f"names: [{LABEL}]".encode(encoding))
    assert [d.label for d in answers(dataset, read(dataset, place, "yolo"))["a.jpg"]] == [LABEL]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1251"])
def test_old_encodings_are_refused_in_a_sentence_since_any_guess_would_invent_a_label(tmp_path, encoding):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    text = LABEL if encoding != "cp1251" else "дефект"
    document = coco(NOTES[:1], ["a.jpg"])
    document["categories"][0]["name"] = text
    (tmp_path / "c.json").write_bytes(json.dumps(document, ensure_ascii=False).encode(encoding))
    with pytest.raises(
        ValueError, match=r"c\.json.*neither UTF-8 nor UTF-16 text \(byte 0x.. at \d+\); save it as UTF-8"
    ):
        read(dataset, tmp_path / "c.json")
    write(tmp_path / "y" / "labels" / "a.txt", ROW.format(0))
    (tmp_path / "y" / "classes.txt").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=r"classes\.txt.*neither UTF-8 nor UTF-16 text"):
        read(dataset, tmp_path / "y")


def test_xml_says_its_encoding_itself(tmp_path):
    dataset = pool(tmp_path / "photos", ["a.jpg"])
    text = voc(voc_object(LABEL))
    for encoding in ("iso-8859-1", "utf-16", "windows-1252"):
        raw = f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding)
        assert answers(dataset, read(dataset, write(tmp_path / "a.xml", raw)))["a.jpg"][0].label == LABEL
    for declared in ("hex", "utf-99", "rot13"):
        with pytest.raises(ValueError, match=r"a\.xml is no .*not readable XML"):
            read(dataset, write(tmp_path / "a.xml", f'<?xml version="1.0" encoding="{declared}"?>{voc("")}'))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1, 1.0),
        (-2.5, -2.5),
        ("3", 3.0),
        (" 4.5 ", 4.5),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("5.", 5.0),
        ("+6", 6.0),
        (1e-320, 1e-320),
    ],
)
def test_numbers(value, wanted):
    assert texts.number(value) == wanted


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1,5", '"1,5" has a decimal comma; write 1.5'),
        ("²", "is no number"),
        ("٣", "is no number"),
        ("1_000", "is no number"),
        ("0x10", "is no number"),
        ("nan", "is no number"),
        ("inf", "is no number"),
        ("", "is no number"),
        ("1 2", "is no number"),
        (float("nan"), "no finite number"),
        (float("inf"), "no finite number"),
        (10**400, "no finite number"),
        ("1e999", "no finite number"),
        (1e9, "is too large"),
        ("9" * 5000, "no finite number"),
        (True, "is no number"),
        (None, "is no number"),
        ([1], "is no number"),
    ],
)
def test_what_is_no_number_is_said(value, message):
    with pytest.raises(texts.Odd, match=message) as caught:
        texts.number(value, "width")
    assert str(caught.value).startswith("width ") and len(str(caught.value)) < 200
