"""The scoring worker with a screen: chosen crops are the literal method's, work is counted, a kill changes nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gsal_fo.config import DiffusionConfig
from gsal_fo.run_folder import shards
from gsal_fo.run_folder.pool_columns import load_pool
from lightning_modules.progress import Reporter
from lightning_modules.score import score
from tests.modules.helpers import write_ddpm, write_images, write_run
from tests.modules.processes import kill_at, run_ranks

POOL, WINDOWS, CHOSEN = 24, 10, 6  # images, proposals of each (the cold start's grid), a quarter of the images


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_ddpm(tmp_path_factory.mktemp("models") / "ddpm")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 6 + POOL)


def settings(model: Path, screen: float, **more) -> DiffusionConfig:
    return DiffusionConfig(model=str(model), crop_size=16, batch_size=32, screen=screen, **more)


def run_in(folder: Path, images: list[Path], model: Path, screen: float, **more) -> Path:
    """The worker's own work in this process: a start of Python and its imports would take most of a test's time."""
    more.setdefault("diffusion", settings(model, screen))
    write_run(folder, images, model=model, **more)
    return again(folder)


def again(folder: Path) -> Path:
    assert score(folder, shards.read_json(folder / "config.json"), Reporter(terminal=False))["failed"] == 0
    return folder


def facts(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())["diffusion"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, images, model):
    """A literal run and one with a screen, without a cache."""
    place = tmp_path_factory.mktemp("runs")
    return {s: run_in(place / str(s), images, model, s) for s in (1.0, 0.25)}


def assert_same(a: Path, b: Path) -> None:
    left, right = load_pool(a), load_pool(b)
    for name in ("ids", "screened", "fine"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    for name in ("image_error", "image_variance", "proposal_error", "proposal_variance"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-5, err_msg=name)


def test_chosen_images_have_the_literal_methods_values_and_the_others_estimates(runs):
    literal, screened = load_pool(runs[1.0]), load_pool(runs[0.25])
    assert literal.screened.all() and screened.screened.sum() == CHOSEN
    for name in ("image_error", "image_variance"):
        np.testing.assert_allclose(getattr(screened, name), getattr(literal, name), rtol=1e-5)
    chosen = screened.screened[screened.proposal_image]
    for name in ("proposal_error", "proposal_variance"):
        measured, exact = getattr(screened, name), getattr(literal, name)
        np.testing.assert_allclose(measured[chosen], exact[chosen], rtol=1e-5)
        others = measured[~chosen]
        assert np.isfinite(others).all() and (others != exact[~chosen]).any()
        assert exact[chosen].min() * 0.999 <= others.min() <= others.max() <= exact[chosen].max() * 1.001


def test_the_work_is_counted_in_elements_of_the_denoiser(runs):
    cell = 3 * 16 * 16 * 4  # pixels of an image or crop, four draws
    assert facts(runs[1.0])["elements"] == cell * POOL * (1 + WINDOWS)
    assert facts(runs[0.25])["elements"] == cell * (POOL + CHOSEN * WINDOWS)
    record = facts(runs[0.25])
    assert record["screen"] == 0.25 and record["screening"]["screened"] == CHOSEN
    assert record["digest"] != facts(runs[1.0])["digest"]


def test_two_processes_choose_the_same_images(runs, images, model, tmp_path):
    write_run(tmp_path / "two", images, model=model, diffusion=settings(model, 0.25))
    run_ranks(tmp_path / "two")
    assert_same(runs[0.25], tmp_path / "two")


def test_killed_between_crops_the_same_command_finishes_with_the_same_result(runs, images, model, tmp_path):
    run = tmp_path / "killed"
    write_run(run, images, model=model, diffusion=settings(model, 0.25))
    kill_at(run, run / "crops", GSAL_PART_ROWS="1")
    assert list((run / "crops").glob("part-*"))
    assert_same(runs[0.25], again(run))


@pytest.mark.parametrize("stage", ["screening", "difficulty"])
def test_parts_that_a_kill_took_are_made_again(stage, runs, tmp_path):
    run = tmp_path / "cut"
    shutil.copytree(runs[0.25], run)
    for part in (run / stage).glob("part-*"):
        part.unlink()
    assert_same(runs[0.25], again(run))
    assert facts(run)["scored"] == (POOL if stage == "screening" else 0)


def test_later_rounds_do_only_the_work_that_is_new(images, model, tmp_path):
    """One cache: again, with the whole pool, from maps, with other labels, and with one box moved."""
    cache = str(tmp_path / "cache")
    assert facts(run_in(tmp_path / "1", images, model, 0.25, cache=cache))["scored"] == POOL + CHOSEN * WINDOWS
    assert facts(run_in(tmp_path / "2", images, model, 0.25, cache=cache))["scored"] == 0
    left = (POOL - CHOSEN) * WINDOWS
    assert facts(run_in(tmp_path / "3", images, model, 1.0, cache=cache))["scored"] == left
    maps = settings(model, 1.0, regions="maps")
    # An image's own statistics serve crops and maps alike.
    assert facts(run_in(tmp_path / "4", images, model, 1.0, cache=cache, diffusion=maps))["scored"] == 0
    # Two images more are labeled, as after a round: nothing that is left in the pool has to be scored.
    assert facts(run_in(tmp_path / "5", images, model, 1.0, cache=cache, labeled=8))["scored"] == 0


def test_a_changed_detector_costs_its_changed_boxes_alone(images, model, tmp_path):
    boxes = [0.1, 0.1, 0.4, 0.4, 0.5, 0.5, 0.3, 0.3]

    def scored(name: str, first: list[float]) -> int:
        run = tmp_path / name
        write_run(run, images, model=model, cache=str(tmp_path / "cache"), diffusion=settings(model, 1.0))
        table = pq.read_table(run / "manifest.parquet").to_pylist()
        for row in table:
            if row["role"] == "pool":
                row |= {"boxes": first if row["id"] == "img0006" else boxes, "scores": [0.9, 0.8]}
        shards.write_table(pa.Table.from_pylist(table, schema=shards.MANIFEST), run / "manifest.parquet")
        return facts(again(run))["scored"]

    assert scored("before", boxes) == POOL * 3
    assert scored("after", [*boxes[:4], 0.5, 0.5, 0.2, 0.3]) == 1
    # Within the grid of crops (1/1024 of a side) it is the same crop.
    assert scored("jittered", [*boxes[:4], 0.5001, 0.5, 0.2, 0.3]) == 0


def test_a_screen_over_a_model_that_pools_maps_is_refused_before_any_work(images, tmp_path):
    write_run(tmp_path / "run", images[:9], model=Path("embedded"), diffusion=DiffusionConfig(screen=0.5))
    with pytest.raises(ValueError, match=r'saves nothing .* regions to "crops"'):
        again(tmp_path / "run")
    assert not (tmp_path / "run" / "proposals").exists()
