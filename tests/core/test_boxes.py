"""Box frames and geometry: by hand, and round trips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsal_fo import boxes as bx

SIZES = st.integers(1, 8000)
UNIT = st.floats(0, 1)


@st.composite
def relative(draw: st.DrawFn) -> np.ndarray:
    """A few ``xywh_rel`` boxes inside the image."""
    out = []
    for _ in range(draw(st.integers(0, 4))):
        x, y = draw(UNIT), draw(UNIT)
        out.append((x, y, draw(UNIT) * (1 - x), draw(UNIT) * (1 - y)))
    return np.array(out, dtype=np.float64).reshape(-1, 4)


def test_frames_by_hand():
    # 200 x 100 pixels: from (20, 10), 100 wide and 50 high
    rel, px, coco = [[0.1, 0.1, 0.5, 0.5]], [[20, 10, 120, 60]], [[20, 10, 100, 50]]
    np.testing.assert_allclose(bx.xyxy_px_to_xywh_rel(px, 200, 100), rel, rtol=1e-6)
    np.testing.assert_allclose(bx.xywh_rel_to_xyxy_px(rel, 200, 100), px, rtol=1e-6)
    np.testing.assert_allclose(bx.xywh_px_to_xywh_rel(coco, 200, 100), rel, rtol=1e-6)
    np.testing.assert_allclose(bx.xywh_rel_to_xywh_px(rel, 200, 100), coco, rtol=1e-6)


@given(relative(), SIZES, SIZES)
def test_frames_come_back(rel, width, height):
    pixels = bx.xywh_rel_to_xyxy_px(rel, width, height)
    np.testing.assert_allclose(bx.xyxy_px_to_xywh_rel(pixels, width, height), rel, atol=1e-5)
    coco = bx.xywh_rel_to_xywh_px(rel, width, height)
    np.testing.assert_allclose(bx.xywh_px_to_xywh_rel(coco, width, height), rel, atol=1e-6)
    np.testing.assert_allclose(pixels[:, 2:] - pixels[:, :2], coco[:, 2:], atol=1e-2)


@given(relative(), st.floats(0, 3))
def test_padding_keeps_the_box_inside_and_itself_inside_the_image(rel, fraction):
    grown = bx.padded(rel, fraction).astype(np.float64)
    low, high = grown[:, :2], grown[:, :2] + grown[:, 2:]
    assert (low >= 0).all() and (high <= 1 + 1e-6).all()
    assert (low <= rel[:, :2] + 1e-6).all() and (high >= rel[:, :2] + rel[:, 2:] - 1e-6).all()


def test_padding_by_hand():
    # 20 % of 0.5 is 0.1, half of it on each side; the second box is cut at the image's edges
    got = bx.padded(np.array([[0.2, 0.3, 0.5, 0.5], [0.0, 0.9, 0.1, 0.1]]), 0.2)
    np.testing.assert_allclose(got, [[0.15, 0.25, 0.6, 0.6], [0, 0.89, 0.11, 0.11]], atol=1e-6)
    np.testing.assert_allclose(bx.padded(bx.WHOLE_IMAGE, 0.2), bx.WHOLE_IMAGE)


def test_iou_by_hand():
    a = [[0, 0, 2, 2], [5, 5, 0, 0]]
    b = [[0, 0, 2, 2], [1, 1, 2, 2], [2, 0, 2, 2], [5, 5, 0, 0]]
    np.testing.assert_allclose(bx.iou(a, b), [[1, 1 / 7, 0, 0], [0, 0, 0, 0]])


@given(relative(), relative())
def test_iou_is_symmetric_and_within_zero_and_one(a, b):
    got = bx.iou(a, b)
    assert got.shape == (len(a), len(b))
    np.testing.assert_allclose(got, bx.iou(b, a).T)
    assert (got >= 0).all() and (got <= 1 + 1e-9).all()
    large = a[a[:, 2:].prod(1) > 1e-9]  # an empty box has no overlap, not even with itself
    np.testing.assert_allclose(np.diag(bx.iou(large, large)), 1, rtol=1e-6)


def test_the_cold_start_grid_is_the_image_and_nine_half_windows_that_cover_it():
    grid = bx.window_grid()
    assert grid.shape == (10, 4) and len(np.unique(grid, axis=0)) == 10
    np.testing.assert_array_equal(grid[0], [0, 0, 1, 1])
    assert sorted(grid[1:, :2].tolist()) == [[x, y] for x in (0, 0.25, 0.5) for y in (0, 0.25, 0.5)]
    assert (grid[1:, 2:] == 0.5).all()


@given(st.floats(0.05, 1), st.floats(0, 0.9))
def test_any_grid_covers_the_image_and_stays_inside(size, overlap):
    grid = bx.window_grid((size,), overlap).astype(np.float64)
    assert (grid[:, :2] >= 0).all() and (grid[:, :2] + grid[:, 2:] <= 1 + 1e-6).all()
    starts = np.unique(grid[:, 0])
    if len(starts) > 1:
        assert starts[0] == 0 and starts[-1] == pytest.approx(1 - size, abs=1e-6)
