"""The crops of the "Why this image" panel are those that the models saw."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from gsal_fo.fo.app import why
from gsal_fo.images import ImageError


def shown(path, box, map_path=None):
    proposal = why.Proposal(1, "void", 0.0, 0.0, 0.0, 0.9, True, box)
    pairs = why.pictures(why.Why("gsal_score_001", None, {}, "", [], [proposal], str(path), map_path))
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(u.split(",")[1])))) for u in (pairs[0].crop,)]


def test_a_turned_image_is_cut_upright(tmp_path):
    raw = np.full((48, 96, 3), 90, np.uint8)
    raw[4:14, 4:24] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(raw).save(tmp_path / "a.png", exif=exif)
    (crop,) = shown(tmp_path / "a.png", [34 / 48, 4 / 96, 10 / 48, 20 / 96])
    assert crop.shape[:2] == (120, 60)
    assert np.abs(crop[30:90, 15:45].astype(int) - (255, 0, 0)).max() < 12


def test_a_deep_image_is_not_white(tmp_path):
    values = np.full((48, 64), 2000, np.uint16)
    values[:, 32:] = 4000
    Image.fromarray(values).save(tmp_path / "a.png")
    (crop,) = shown(tmp_path / "a.png", [0, 0, 1, 1])
    assert crop[:, :56].max() < 12 and crop[:, 64:].min() > 243


def test_a_lost_image_and_a_torn_map_are_named(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "map.png").write_bytes(b"torn")
    with pytest.raises(ImageError, match=r"gone\.png cannot be used: the file is missing"):
        shown(tmp_path / "gone.png", [0, 0, 1, 1])
    with pytest.raises(ImageError, match=r"map\.png cannot be used"):
        shown(tmp_path / "a.png", [0, 0, 1, 1], str(tmp_path / "map.png"))
