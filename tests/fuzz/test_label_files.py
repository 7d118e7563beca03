"""Mutated label files: none ends in anything but a sentence, hangs, or gives what no label is.

The suite reads a few of each kind. GSAL_FUZZ=2000 reads that many mutants of each format and every odd value in every
place; GSAL_FUZZ_SEED chooses others.
"""

import io
import json
import os
import random
import re
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

import bson
import fiftyone as fo
import numpy as np
import pytest

from gsal_fo.fo.exchange import reading
from tests.fuzz import mutating, seeds
from tests.label_files import answers, pool, read, yolo_folder

COUNT = int(os.environ.get("GSAL_FUZZ") or 30)
SEED = int(os.environ.get("GSAL_FUZZ_SEED") or 1)
FULL = 2000  # mutants from which on every odd value is tried in every place
SLOW = 10.0  # seconds
LONG = 700  # characters of a sentence; the path takes some
JSON = {name: {"f.json": json.dumps(make()).encode()} for name, make in seeds.DOCUMENTS.items()}
YOLO = {"labels/a.txt": seeds.YOLO.encode(), "data.yaml": seeds.YAML.encode()}
XML = {name: {seeds.TEXTS[name][0]: seeds.TEXTS[name][1].encode()} for name in ("cvat", "voc")}
FILES: dict[str, tuple[dict[str, bytes], str]] = {
    **{name: (files, next(iter(files))) for name, files in (JSON | XML).items()},
    "yolo": (YOLO, "labels/a.txt"),
    "yaml": (YOLO, "data.yaml"),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return pool(tmp_path_factory.mktemp("photos"), ["a.png", "b.png", "c.png"], (96, 96))


def wrong_with(dataset, folder: Path, files: dict[str, bytes], entry: str | None, format: str = "auto"):
    """What is wrong with reading these files, and how many objects each image got."""
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    wrong, out = check(dataset, folder / entry if entry else folder, format)
    return wrong, {i: len(a.detections) for i, a in out.answers.items()} if out else {}


def check(dataset: fo.Dataset, path: Path, format: str) -> tuple[list[str], reading.Reading | None]:
    """What is wrong with reading a file, and what was read."""
    started, wrong, out = time.monotonic(), [], None
    try:
        out = reading.from_files(dataset, path, format, "ground_truth", None)
    except ValueError as error:
        text = str(error)
        if path.name not in text and path.parent.name not in text:
            wrong.append(f"names no file: {type(error).__name__} {text[:100]!r}")
        if len(text) > LONG:
            wrong.append(f"long message ({len(text)}): {text[:80]!r}")
        if type(error) is not ValueError and type(error).__module__ == "builtins":
            wrong.append(f"no sentence of ours: {type(error).__name__} {text[:100]!r}")
        _printable(text, wrong)
    except Exception as error:
        wrong.append(f"exception: {type(error).__name__} {str(error)[:150]!r}")
    if time.monotonic() - started > SLOW:
        wrong.append(f"slow: {time.monotonic() - started:.0f} s")
    if out is None:
        return wrong, None
    for text in (*out.unread, *out.unmatched, *out.notes, *out.dropped):
        _printable(text, wrong)
        if len(text) > LONG:
            wrong.append(f"long message: {text[:80]!r}")
    for answer in out.answers.values():
        try:
            bson.encode(fo.Detections(detections=answer.detections).to_dict())
        except Exception as error:
            wrong.append(f"no document: {type(error).__name__} {error}")
        for d in answer.detections:
            x, y, w, h = d.bounding_box
            if (
                not d.label.strip()
                or d.label != d.label.strip()
                or any(unicodedata.category(c) in ("Cc", "Cs") for c in d.label)
            ):
                wrong.append(f"label {d.label!r}")
            if not np.isfinite([x, y, w, h]).all() or min(x, y) < 0 or min(w, h) < 1e-6 or max(x + w, y + h) > 1 + 1e-9:
                wrong.append(f"box {d.bounding_box}")
    return wrong, out


def _printable(text: str, wrong: list[str]) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        wrong.append(f"unprintable message {text[:80]!r}")


def variants(name: str) -> Iterator[tuple[str, bytes]]:
    """Odd values in the places of a valid file: all of them, or some."""
    if name in seeds.DOCUMENTS:
        found = mutating.odd_json(seeds.DOCUMENTS[name]())
    else:
        text = seeds.TEXTS[name][1]
        found = mutating.odd_words(text) if name == "yolo" else mutating.odd_xml(text)
    rng = random.Random(SEED)
    return (v for v in found if COUNT >= FULL or rng.random() < 0.03)


@pytest.mark.parametrize("name", [n for n in FILES if n != "yaml"])
def test_an_image_that_is_answered_in_spite_of_an_odd_value_has_all_of_its_objects(dataset, tmp_path, name):
    files, which = FILES[name]
    entry = which if which.startswith("f.") else None
    problems, whole = wrong_with(dataset, tmp_path, files, entry)
    assert not problems and sum(whole.values()) >= 2
    for where, raw in variants(name):
        wrong, found = wrong_with(dataset, tmp_path, {**files, which: raw}, entry)
        problems += [f"{where}: {w}" for w in wrong]
        fewer = [i for i, n in found.items() if n < whole.get(i, 0)] and sum(found.values()) < sum(whole.values())
        # An annotation that is of no listed image is of another one as a rule.
        orphan = (
            name == "coco" and re.match(r"\('annotations', \d+(, 'image_id')?\)", where) and 0 not in found.values()
        )
        if fewer and not orphan and "= []" not in where:
            problems.append(f"{where}: fewer objects than were drawn")
    assert not problems, problems[:5]


@pytest.mark.parametrize("name", FILES)
def test_mangled_files_end_in_a_sentence_or_in_whole_labels(dataset, tmp_path, name):
    files, which = FILES[name]
    rng, problems = random.Random(SEED), []
    for k in range(COUNT):
        entry = which if k % 3 == 0 and which.startswith("f.") else None
        format = name if k % 2 and name != "yaml" else "auto"
        wrong, _ = wrong_with(dataset, tmp_path, {**files, which: mutating.mangled(files[which], rng)}, entry, format)
        problems += [f"{k}: {w}" for w in wrong]
    assert not problems, problems[:5]


def test_mangled_zips_end_in_a_sentence_or_in_whole_labels(dataset, tmp_path):
    rng, problems = random.Random(SEED), []
    for k in range(COUNT):
        buffer = io.BytesIO()
        how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        with zipfile.ZipFile(buffer, "w", how) as bundle:
            bundle.writestr("f.json", JSON["coco"]["f.json"])
        wrong, _ = wrong_with(dataset, tmp_path, {"f.zip": mutating.mangled(buffer.getvalue(), rng)}, "f.zip")
        problems += [f"{k}: {w}" for w in wrong]
    assert not problems, problems[:5]


FINDS = Path(__file__).parents[3] / "shared" / "cases" / "fuzzed"


@pytest.mark.skipif(not FINDS.is_dir(), reason="the files of earlier finds are not here")
def test_files_that_once_ended_in_a_fault_end_in_a_sentence_or_whole_labels(tmp_path):
    names = [f"slice_{k:05d}.png" for k in range(8, 16)] + ["a.png"]
    dataset = pool(tmp_path / "photos", names, (96, 96))
    finds = [p for p in FINDS.iterdir() if p.name.startswith(("labels-", "sweep-")) and "manifest" not in p.name]
    assert len(finds) > 20
    for path in finds:
        place = path
        if "-yolo-" in path.name:
            place = yolo_folder(
                tmp_path / path.stem, "", {"classes.txt": "void\nx\n", "labels/a.txt": path.read_bytes()}
            )
        try:
            out = read(dataset, place)
        except ValueError as error:
            assert type(error) is ValueError and path.stem in str(error) and len(str(error)) < 700
            continue
        assert all(len(text) < 400 and text.encode() for text in (*out.unread, *out.unmatched, *out.notes))
        for found in answers(dataset, out).values():
            assert all(d.label.strip() and min(d.bounding_box[2:]) >= 1e-6 for d in found)
            fo.Detections(detections=found).to_dict()
