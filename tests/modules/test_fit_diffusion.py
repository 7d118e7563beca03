"""Fitting a feature-space denoiser: on a pool as a worker does it, and that it finds what it never saw."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu

from gsal_fo.shards import MANIFEST, write_table
from lightning_modules.data import resized
from lightning_modules.fit_diffusion import FitSettings, auroc, collect, error_maps, fit
from lightning_modules.fit_diffusion.run import fit_run
from lightning_modules.nets import load_denoiser, load_encoder
from lightning_modules.progress import Reporter

ENCODER = "mobilenet_v2:none"


def stripes(rng: np.random.Generator, *, blotch: bool = False) -> np.ndarray:
    """A (64, 64, 3) image of stripes at a random phase; with a blotch of noise in the middle."""
    x = np.arange(64)
    image = 127 + 60 * np.sin(x / 3 + rng.uniform(0, 6))[None] + rng.normal(0, 4, (64, 64))
    if blotch:
        image[20:44, 20:44] = rng.normal(127, 70, (24, 24))
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, 2)


def manifest(run, paths) -> None:
    rows = [
        {"id": f"s{i}", "filepath": str(p), "role": "pool", "boxes": None, "labels": None, "scores": None}
        for i, p in enumerate(paths)
    ]
    write_table(pa.Table.from_pylist(rows, schema=MANIFEST), run / "manifest.parquet")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    paths = []
    for i in range(24):
        paths.append(folder / f"{i}.png")
        Image.fromarray(stripes(rng)).save(paths[-1])
    return paths


def config(out, **more) -> dict:
    settings = {"encoder": ENCODER, "size": "tiny", "input_size": 64, "stride": 8, "components": 6, "steps": 3}
    return {"kind": "fit", "config": {**settings, **more}, "out": str(out)}


def test_the_worker_fits_a_pool_speaks_the_protocol_and_lists_a_broken_image(tmp_path, pool):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    manifest(tmp_path, [*pool, broken])
    (tmp_path / "config.json").write_text(json.dumps(config(tmp_path / "model")))
    done = subprocess.run(
        [sys.executable, "-m", "lightning_modules.fit_diffusion", "--run-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [e for e in events if e["event"] == "failed"] == [
        {"event": "failed", "id": "s24", "reason": "the file is empty"}
    ]
    steps = [e["done"] for e in events if e["event"] == "progress"]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 25 + 3
    assert events[-1]["event"] == "done" and events[-1]["images"] == 24
    model = load_denoiser(str(tmp_path / "model"))
    assert model.latent(torch.rand(1, 3, 64, 64)).shape == (1, 6, 8, 8)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_epochs_are_passes_over_the_images_that_are_trained_on(tmp_path, pool):
    manifest(tmp_path, pool)
    fit_run(tmp_path, config(tmp_path / "model", epochs=2, batch=5), Reporter(terminal=False))
    # 24 images, every tenth of them (0, 10, 20) held out and 21 trained on by whole batches of 5: 4 steps an epoch
    assert json.loads((tmp_path / "model" / "gsal.json").read_text())["fit"]["steps"] == 8


def test_a_folder_with_other_files_is_not_overwritten(tmp_path, pool):
    manifest(tmp_path, pool)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        fit_run(tmp_path, config(tmp_path / "model"), Reporter(terminal=False))
    assert (tmp_path / "model" / "thesis.tex").read_text() == "mine"


def test_too_few_images_are_an_error_in_one_sentence(tmp_path, pool):
    manifest(tmp_path, pool[:5])
    with pytest.raises(ValueError, match="at least 8 readable images; got 5"):
        fit_run(tmp_path, config(tmp_path / "model"), Reporter(terminal=False))
    (tmp_path / "other").mkdir()
    manifest(tmp_path / "other", [tmp_path / "gone.png"])
    with pytest.raises(ValueError, match="no image could be read"):
        fit_run(tmp_path / "other", config(tmp_path / "model"), Reporter(terminal=False))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"size": "huge"}, "size must be one of"), ({"input_size": 100}, "multiple of 32"), ({"stride": 3}, "stride")],
)
def test_settings_that_cannot_work_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        FitSettings(**wrong)


def test_a_fit_reconstructs_its_own_kind_better_than_what_it_never_saw(tmp_path):
    rng = np.random.default_rng(1)
    settings = FitSettings(
        encoder=ENCODER, input_size=64, stride=8, components=8, size="tiny", steps=60, batch=12, stages=("features.3",)
    )
    encoder = load_encoder(ENCODER)
    features = collect((resized(stripes(rng), 64) for _ in range(36)), encoder, settings)
    facts = fit(features, settings, encoder, tmp_path / "model")
    known = [resized(stripes(rng), 64) for _ in range(12)]
    strange = [resized(stripes(rng, blotch=True), 64) for _ in range(12)]
    model = load_denoiser(str(tmp_path / "model"))
    errors, _ = error_maps(model, [*known, *strange], 0.5)
    flat = errors.flatten(1).amax(1).numpy()
    assert auroc(flat[12:], flat[:12]) > 0.9
    middle, edge = errors[12:, 3:5, 3:5].mean(), errors[12:, [0, 0, 7, 7], [0, 7, 0, 7]].mean()
    assert middle > edge  # the map shows where
    assert facts["fit"]["held_out_loss"] < 1.0  # v-prediction of unit-variance latents: a model that says 0 has 1


def test_the_seed_decides_the_fit(tmp_path):
    rng, encoder = np.random.default_rng(3), load_encoder(ENCODER)
    images = [resized(stripes(rng), 64) for _ in range(10)]
    losses = []
    for seed in (0, 0, 1):
        settings = FitSettings(
            encoder=ENCODER, stages=("features.6",), input_size=64, stride=8, components=4, size="tiny", steps=2,
            batch=4, seed=seed,
        )  # fmt: skip
        facts = fit(collect(images, encoder, settings), settings, encoder, tmp_path / "model")
        losses.append(facts["fit"]["held_out_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_auroc_is_the_mann_whitney_statistic_with_ties():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    assert auroc(a, b) == pytest.approx(mannwhitneyu(a, b).statistic / (40 * 30))
    assert np.isnan(auroc(a, b[:0]))
