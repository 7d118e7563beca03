"""Pages show of an image what the models saw: upright, eight bits deep, the same pixels of a box."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from runs import graph, image, write_run

from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.audit import entries, ledger
from gsal_fo.boxes import crop_windows
from gsal_fo.concepts.build.candidates import Candidate, Crop, Found
from gsal_fo.config import GsalParams
from gsal_fo.pages import audit_page, candidates_page
from gsal_fo.pages.pictures import cut
from gsal_fo.pages.report import PickedImage, RoundPage, write_report
from gsal_fo.run_folder import shards

# A patch in the file's top left corner, 20 x 10 of 96 x 48 pixels. Orientation 6 shows it turned clockwise, at the top
# right of 48 x 96 pixels: x from 34 to 44, y from 4 to 24.
PATCH = [34 / 48, 4 / 96, 10 / 48, 20 / 96]
RED, GRAY = (255, 0, 0), (90, 90, 90)


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    raw = np.full((48, 96, 3), 90, np.uint8)
    raw[4:14, 4:24] = RED
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(raw).save(tmp_path / "turned.png", exif=exif)
    return tmp_path / "turned.png"


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A 12-bit scan, dark left and bright right: Pillow's own conversion to eight bits is white all over."""
    values = np.full((48, 64), 2000, np.uint16)
    values[:, 32:] = 4000
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.asarray(Image.open(tmp_path / "deep.png").convert("RGB")).min() == 255
    return tmp_path / "deep.png"


def shown(page: str) -> list[np.ndarray]:
    """The pictures of a page, in order."""
    urls = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(u)))).astype(int) for u in urls]


def is_patch(crop: np.ndarray) -> None:
    """The patch with its padding: 12 x 24 pixels, red inside a gray border of one and two pixels."""
    height, width = crop.shape[:2]
    assert width / height == pytest.approx(12 / 24, rel=0.03)
    middle = crop[height // 4 : -height // 4, width // 4 : -width // 4]
    assert np.abs(middle - RED).max() < 12, "inside it is red"
    assert np.abs(crop[0] - GRAY).mean() < 40, "its border is not"


def is_two_halves(picture: np.ndarray) -> None:
    width = picture.shape[1]
    assert picture[:, : width // 2 - 4].max() < 12 and picture[:, width // 2 + 4 :].min() > 243


@given(
    box=st.tuples(*[st.floats(-0.5, 1.5)] * 2, *[st.floats(0, 1.5)] * 2),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    pad=st.sampled_from([0.0, 0.2]),
)
def test_a_window_holds_every_pixel_that_the_box_touches_and_stays_inside(box, size, pad):
    left, top, right, bottom = crop_windows(np.array([box]), *size, pad=pad)[0]
    for axis, (low, high) in enumerate([(left, right), (top, bottom)]):
        start, length, side = box[axis], box[axis + 2], size[axis]
        assert 0 <= low < high <= side
        first, last = (start - pad * length / 2) * side, (start + (1 + pad / 2) * length) * side
        slack = 1e-4 * side  # single precision
        touched = [p for p in range(side) if p + 1 > first + slack and p < last - slack]
        assert set(touched) <= set(range(low, high)) and high - low <= max(len(touched) + 2, 1)


def test_the_cut_of_a_page_is_the_crop_of_the_models():
    from lightning_modules.data import crops

    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for box in ([0.25, 0.2, 0.2, 0.3], [0.9, 0.9, 0.1, 0.1], [1.0, 1.0, 0.0, 0.0], [-0.1, 0, 2, 2]):
        mine = cut(Image.fromarray(pixels), box)
        side = 32
        again = crops(np.array(mine), np.array([[0, 0, 1, 1]]), pad=0, size=side)
        assert (again == crops(pixels, np.array([box]), pad=0.2, size=side)).all()


def audited(folder: Path, path: Path, box: list[float]) -> str:
    """The audit page of a run whose one pick is this image."""
    run = write_run(folder / "run", [image("a", [1], boxes=box), image("b", [0], boxes=box)])
    table = pq.read_table(run / "manifest.parquet").to_pylist()
    rows = [{**r, "filepath": str(path)} for r in table]
    shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), run / "manifest.parquet")
    ranking = rank(load_pool(run), graph(), {"crack": 5}, GsalParams())
    ledger.append(run, entries.selection(run, graph(), ranking, pick(ranking, 1), tag="one"))
    audit_page.write(folder / "audit.html", run, [])
    return (folder / "audit.html").read_text()


def candidates(folder: Path, path: Path, box: list[float]) -> str:
    found = Found([Candidate("ring", 1, 1, [Crop("a", str(path), 0, tuple(box))])], 1, 1, 0.1, [])
    candidates_page.write(found, folder / "c.html", folder / "c.png", graph="g", run="r")
    return (folder / "c.html").read_text()


def reported(folder: Path, path: Path, box: list[float]) -> str:
    each = {"gsal": 1, "entropy": 1, "random": 1.0}
    summary = {
        "totals": {"rare_instances": each, "rare_classes": each, "labeled_images": 1},
        "rare": {"instances": 1, "classes": ["void"]},
        "random_draws": 1,
        "pool": {"images": 2},
        "labeled": 1,
        "budget": 1,
        "seconds": {"total": 1.0, "score": 1.0},
        "rounds": [{"round": 1, "rare_instances_so_far": each, "random_range": [0, 1], "coverage": {"void": 1}}],
        "coverage": {"start": {"void": 0}},
    }
    picks = [PickedImage(path, 1, "because", [(box, "void")], 0, [], False)]
    page = RoundPage(1, picks, np.zeros(1), np.zeros(1), np.ones(1, bool), np.zeros(1, bool))
    write_report(folder / "report.html", summary, [page], {"void": "fine"})
    return (folder / "report.html").read_text()


PAGES = {"audit": (audited, 0, 1), "candidates": (candidates, None, 0), "report": (reported, 0, 1)}


@pytest.mark.parametrize(("page", "whole", "crop"), PAGES.values(), ids=PAGES.keys())
def test_a_page_shows_a_turned_image_upright(tmp_path, turned, page, whole, crop):
    pictures = shown(page(tmp_path, turned, PATCH))
    if whole is not None:
        assert pictures[whole].shape[:2] == (256, 128)
    is_patch(pictures[crop])


@pytest.mark.parametrize(("page", "whole", "crop"), PAGES.values(), ids=PAGES.keys())
def test_a_page_shows_a_deep_image_as_the_models_see_it(tmp_path, deep, page, whole, crop):
    for picture in shown(page(tmp_path, deep, [0, 0, 1, 1])):
        is_two_halves(picture)


@pytest.mark.parametrize("page", [p[0] for p in PAGES.values()], ids=PAGES.keys())
def test_a_page_says_which_image_it_cannot_show(tmp_path, page):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    text = page(tmp_path, tmp_path / "torn.png", PATCH)
    assert "torn.png" in text and ("cannot be used: the file" in text or "cannot be read" in text)
