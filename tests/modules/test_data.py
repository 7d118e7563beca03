"""Crops, grouping and the statistics cache, against Pillow and plain arithmetic."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_modules.cache import StatisticsCache
from lightning_modules.data import crops, groups, halved, resized
from lightning_modules.detectors.faster_rcnn import ImageLoader
from lightning_modules.stages.difficulty import quantized


def test_a_crop_is_the_padded_box(tmp_path):
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[40:60, 40:60] = 255
    got = crops(pixels, np.array([[0.4, 0.4, 0.2, 0.2]]), pad=0.2, size=24)[0, 0].float()
    # Padded by 20 %: 24 px wide, 2 px of black on each side of 20 px of white, at one to one scale.
    assert got[2:22, 2:22].min() == 255 and got[:2].max() == 0 and got[:, 22:].max() == 0


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [1, 1, 0, 0], [0.999, 0.2, 0.5, 1e-6], [-0.2, -0.2, 2, 2]])
def test_any_box_gives_a_crop(box):
    assert crops(np.full((7, 5, 3), 9, np.uint8), np.array([box]), pad=0.2, size=8).unique().tolist() == [9]


def test_a_huge_image_is_halved_by_means_until_it_is_small_enough():
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    assert halved(pixels, 48) is pixels
    once = pixels.reshape(3, 2, 4, 2, 3).astype(float).mean((1, 3))  # 3 high, 4 wide
    assert np.abs(halved(pixels, 47) - once).max() <= 0.5
    assert halved(pixels, 11).shape == (2, 2, 3)  # 3 x 4 is 12: once more, an odd row by itself
    assert halved(np.zeros((1, 1000, 3), np.uint8), 10).shape == (1, 8, 3)


def test_the_detector_gets_a_scan_halved_and_its_size_whole(tmp_path):
    image = Image.new("L", (8200, 8200), 7)  # 67.2 million pixels: just above the usual
    image.putpixel((0, 0), 255)
    image.save(tmp_path / "scan.png")
    row = ImageLoader()({"filepath": str(tmp_path / "scan.png")})
    assert (row["width"], row["height"]) == (8200, 8200)
    assert row["image"].shape == (3, 4100, 4100) and row["image"][:, 0, 0].tolist() == [69] * 3  # (255 + 3 * 7) / 4
    assert row["image"][0, 1].unique().tolist() == [7]


def test_resizing_keeps_a_hairline_visible():
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[:, 257] = 255  # one pixel wide; nearest neighbor to 64 px reads columns 4, 12, 20, ... and drops it
    assert resized(pixels, 64).float().amax((0, 1)).max() > 20


def test_groups_hold_one_shape_each_and_lose_nothing():
    items = [(i, torch.zeros(1, 2 + i % 3)) for i in range(11)]
    got = list(groups(items, 2))
    assert sorted(k for keys, _ in got for k in keys) == list(range(11))
    assert all(len(keys) == len(x) <= 2 for keys, x in got)


def test_quantized_boxes_stay_in_the_image_and_near_the_original():
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.random((2, 500, 2)), axis=0)
    boxes = np.concatenate([low, high - low], 1)
    got = quantized(boxes).astype(float)
    assert (got[:, 2:] > 0).all() and (got[:, :2] + got[:, 2:] <= 1).all()
    assert np.abs(got - boxes).max() < 1.51 / 1024


def test_the_cache_reads_what_any_rank_wrote_under_its_own_scorer(tmp_path):
    keys = {f"k{i}": np.array([i, np.nan, -i], np.float32) for i in range(1200)}
    for rank in (0, 1):
        part = {k: v for i, (k, v) in enumerate(keys.items()) if i % 2 == rank}
        StatisticsCache(tmp_path, scorer="s1", rank=rank).put(part)
    got = StatisticsCache(tmp_path, scorer="s1").get([*keys, "unknown"])
    assert got.keys() == keys.keys()
    np.testing.assert_array_equal(got["k7"], keys["k7"])
    assert StatisticsCache(tmp_path, scorer="s2").get(["k7"]) == {}
