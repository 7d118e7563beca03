"""Zips of labels: damaged, encrypted, bombs."""

import json
import os
import struct
import zipfile

import pytest

from gsal_fo.fo.exchange.formats import archive, texts
from tests.label_files import (
    NOTES,
    coco,
    pool,
    read,
)

DAMAGE = {
    "stream": lambda raw: raw[:60] + b"\xff" * 20 + raw[80:],
    "cut": lambda raw: raw[: len(raw) // 2],
    "method": lambda raw: raw.replace((entry := raw[raw.index(b"PK\x01\x02") :][:12]), entry[:10] + b"\x63\0"),
    "directory": lambda raw: raw.replace(b"PK\x01\x02", b"PK\x01\x03", 1),
    "empty": lambda raw: b"",
    "text": lambda raw: b"PK\x03\x04 not a zip",
}


@pytest.mark.parametrize(
    "how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["deflate", "bzip2", "lzma"]
)
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_zip_is_a_sentence(tmp_path, kind, how):
    dataset = pool(tmp_path / "photos")
    path = tmp_path / "labels.zip"
    with zipfile.ZipFile(path, "w", how) as bundle:
        bundle.writestr("c.json", json.dumps(coco([{**NOTES[0], "x": os.urandom(3000).hex()}])))
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    with pytest.raises(ValueError, match=r"labels\.zip is no readable zip") as caught:
        read(dataset, path)
    assert type(caught.value) is ValueError and len(str(caught.value)) < 400


def test_an_encrypted_zip_is_a_sentence(tmp_path):
    path = tmp_path / "labels.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("c.json", "{}")
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + at] |= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"labels\.zip is no readable zip \(.*encrypted"):
        read(pool(tmp_path / "photos"), path)


def test_a_decompression_bomb_is_refused_before_anything_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("it was unpacked"))
    path = tmp_path / "labels.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("c.json", b" " * (archive.FREE + 1))
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"labels\.zip unpacks to \d+ times its size"):
        read(pool(tmp_path / "photos"), path)
    # One that only says so: the sizes in its directory.
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("c.json", "{}")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = struct.pack("<I", texts.MOST + 1)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"labels\.zip unpacks to more than 1\.1 GB"):
        read(pool(tmp_path / "photos"), path)


def test_messages_about_a_zip_name_the_zip(tmp_path):
    dataset = pool(tmp_path / "photos")
    path = tmp_path / "labels.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("a.json", json.dumps(coco(NOTES)))
        bundle.writestr("b.json", "{")
    (message,) = read(dataset, path).unread
    assert message.startswith(f"{path}/b.json is no JSON label file")
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("x.json", "[]")
    with pytest.raises(ValueError, match=r"labels\.zip holds no labels"):
        read(dataset, path)
