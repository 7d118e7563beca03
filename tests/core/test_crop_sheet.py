"""Crops and maps as a sheet of small pictures."""

import numpy as np
from PIL import Image

from gsal_fo.pages import crop_sheet


def sheet(sizes, *, heat=True):
    """The figure of crops of these (width, height) in a picture of 1000 x 1000."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8))
    pairs = [crop_sheet.pair(image, image if heat else None, (0.1, 0.1, w / 1000, h / 1000)) for w, h in sizes]
    return pairs, crop_sheet.figure(pairs, [str(k) for k in range(len(sizes))])[1]


def test_crops_stand_above_their_maps_and_captions_in_rows_of_five():
    _, layout = sheet([(100, 100)] * 7)
    crops, maps = layout["images"][::2], layout["images"][1::2]
    assert [int(p["x"]) for p in crops] == [0, 1, 2, 3, 4, 0, 1]
    assert all(m["x"] == c["x"] and m["y"] >= c["y"] + c["sizey"] for c, m in zip(crops, maps, strict=True))
    assert [n["text"] for n in layout["annotations"]] == list("0123456")
    assert all(n["y"] >= m["y"] + m["sizey"] for n, m in zip(layout["annotations"], maps, strict=True))
    assert crops[5]["y"] > layout["annotations"][0]["y"]
    assert layout["yaxis"]["range"][0] > layout["annotations"][5]["y"], "the last caption is inside"


def test_a_row_of_flat_crops_is_low_and_one_tall_crop_makes_its_own_row_high():
    square = sheet([(100, 100)])[1]["height"]
    assert sheet([(900, 20)] * 5)[1]["height"] < 0.5 * square
    assert sheet([(900, 20)] * 4 + [(50, 400)])[1]["height"] == square
    _, layout = sheet([(900, 20)] * 5 + [(100, 100)])
    first, second = layout["images"][0], layout["images"][10]
    assert first["sizey"] < 0.2 < second["sizey"] and first["sizey"] > 0


def test_without_a_map_there_is_no_room_for_one():
    pairs, layout = sheet([(100, 100)] * 2, heat=False)
    assert [p.map for p in pairs] == [None, None] and len(layout["images"]) == 2
    assert layout["height"] < sheet([(100, 100)] * 2)[1]["height"]
