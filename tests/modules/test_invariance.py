"""Scores through the worker depend on the image alone: not on batch size, loader processes, precision or company."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.stats import spearmanr

from gsal_fo.config import DiffusionConfig
from gsal_fo.run_folder import shards
from gsal_fo.run_folder.pool_columns import load_pool
from lightning_modules.fit_diffusion.embedded import pool_slices
from tests.modules.helpers import picks, run_here, write_ddpm, write_images, write_run
from tests.modules.processes import run_ranks

STATISTICS = ("image_error", "image_variance", "proposal_error", "proposal_variance")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_ddpm(tmp_path_factory.mktemp("models") / "ddpm")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 22)  # more than one chunk of rows: two processes share them


def scored(run, images, model, *, workers=0, precision="32-true", boxes=None, processes=1, **diffusion):
    """A run of 16 pool images; ``boxes`` by id instead of the grid's windows."""
    settings = DiffusionConfig(model=str(model), crop_size=16, **diffusion)
    write_run(run, images, model=model, diffusion=settings, workers=workers, precision=precision)
    if boxes:
        table = pq.read_table(run / "manifest.parquet").to_pylist()
        for row in table:
            if row["role"] == "pool":
                row |= {"boxes": boxes[row["id"]], "scores": [0.9] * (len(boxes[row["id"]]) // 4)}
        shards.write_table(pa.Table.from_pylist(table, schema=shards.MANIFEST), run / "manifest.parquet")
    if processes > 1:
        run_ranks(run, processes=processes)
    else:
        done = run_here(run)
        assert done.returncode == 0, done.stdout + done.stderr
    return load_pool(run)


@pytest.mark.parametrize("noise", ["shared", "per_sample"])
@pytest.mark.parametrize("regions", ["crops", "maps"])
def test_batches_loaders_and_processes_change_neither_scores_nor_picks(noise, regions, images, model, tmp_path):
    how = {"noise": noise, "regions": regions}
    one = scored(tmp_path / "one", images, model, batch_size=1, **how)
    for batch_size, workers, processes in ((7, 2, 1), (64, 0, 2)):
        run = tmp_path / f"{batch_size}"
        other = scored(run, images, model, batch_size=batch_size, workers=workers, processes=processes, **how)
        np.testing.assert_array_equal(one.ids, other.ids)
        for name in STATISTICS:
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-5, err_msg=name)
        assert picks(run) == picks(tmp_path / "one")


def test_order_ids_and_names_change_neither_scores_nor_picks(images, model, tmp_path):
    """Screened, so that what is drawn and calibrated counts, too; prototypes are learned from the labeled crops."""
    settings = DiffusionConfig(model=str(model), crop_size=16, screen=0.5)
    for name in ("one", "two"):
        write_run(tmp_path / name, images, model=model, diffusion=settings)
    run, known = tmp_path / "two", {}
    rows = pq.read_table(run / "manifest.parquet").to_pylist()
    for place, k in enumerate(np.random.default_rng(3).permutation(len(rows)).tolist()):
        file = run / f"{len(rows) - place}.bin"
        file.write_bytes(images[k].read_bytes())
        known[f"x{place:02d}"] = rows[k]["id"]
        rows[k] |= {"id": f"x{place:02d}", "filepath": str(file)}
    rows.sort(key=lambda row: row["id"])
    shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), run / "manifest.parquet")
    for name in ("one", "two"):
        done = run_here(tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = load_pool(tmp_path / "one"), load_pool(run)
    place = {str(i): row for row, i in enumerate(one.ids)}
    order = [place[known[str(i)]] for i in two.ids]
    assert order != sorted(order) and 0 < one.screened.sum() < len(one.ids)
    np.testing.assert_array_equal(two.screened, one.screened[order])
    for name in ("image_error", "image_variance"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name)[order], rtol=1e-5)
    for name in ("proposal_error", "proposal_variance", "prob"):
        mine = [getattr(one, name)[one.proposal_image == row] for row in order]
        np.testing.assert_allclose(getattr(two, name), np.concatenate(mine), rtol=1e-4)
    assert [known[i] for i in picks(run)] == picks(tmp_path / "one")


@pytest.mark.parametrize("noise", ["shared", "per_sample"])
def test_bf16_ranks_as_float32(noise, tmp_path):
    """Slices and the embedded model, as in use: a model of random weights finds all images equally hard, to within what
    bfloat16 rounds."""
    images = []
    for i, piece in enumerate(pool_slices(22, seed=5)):
        images.append(tmp_path / f"{i}.png")
        Image.fromarray(piece.image).save(images[-1])
    full = scored(tmp_path / "full", images, Path("embedded"), noise=noise)
    half = scored(tmp_path / "half", images, Path("embedded"), noise=noise, precision="bf16-mixed")
    assert (full.proposal_error != half.proposal_error).any()  # it did compute in another precision
    for name in ("image_error", "proposal_error"):
        assert spearmanr(getattr(full, name), getattr(half, name)).statistic >= 0.999


@pytest.mark.parametrize("noise", ["shared", "per_sample"])
def test_a_proposal_added_to_one_image_changes_no_other_image(noise, images, model, tmp_path):
    ids = [f"img{i:04d}" for i in range(6, len(images))]
    boxes = {i: [0.1, 0.1, 0.4, 0.4, 0.5, 0.5, 0.3, 0.3] for i in ids}
    before = scored(tmp_path / "before", images, model, noise=noise, boxes=boxes)
    more = boxes | {ids[2]: [0.2, 0.0, 0.7, 0.5, *boxes[ids[2]]]}
    after = scored(tmp_path / "after", images, model, noise=noise, boxes=more)
    assert len(after.boxes) == len(before.boxes) + 1
    for name in ("image_error", "image_variance"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-5)
    same = np.arange(len(after.boxes)) != 2 * 2  # the added one comes first of the third image's
    for name in ("proposal_error", "proposal_variance"):
        np.testing.assert_allclose(getattr(after, name)[same], getattr(before, name), rtol=1e-5)
