"""Fitting a feature-space denoiser: on a pool as a worker does it, and that it finds what it never saw."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import mannwhitneyu

from gsal_fo.run_folder.shards import MANIFEST, ShardError, write_table
from lightning_modules.data import resized
from lightning_modules.fit_diffusion import FitSettings, auroc, collect, error_maps, fit
from lightning_modules.fit_diffusion.folder import place
from lightning_modules.fit_diffusion.latents import LatentFile
from lightning_modules.fit_diffusion.run import fit_run
from lightning_modules.fit_diffusion.trainer import Batches
from lightning_modules.nets import load_denoiser, load_encoder
from lightning_modules.progress import Reporter
from tests.warm import Worker

MODULE = "lightning_modules.fit_diffusion"
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
        [sys.executable, "-m", MODULE, "--run-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [e for e in events if e["event"] == "failed"] == [
        {"event": "failed", "id": "s24", "reason": "the file is empty"}
    ]
    steps = [e["done"] for e in events if e["event"] == "progress" and e["stage"] == "fit"]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 24 + 3
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
    [
        ({"size": "huge"}, "size must be one of"),
        ({"input_size": 100}, "multiple of 32"),
        ({"stride": 3}, "stride"),
        ({"space": "latent"}, "space must be one of features, pixels, vae"),
        ({"space": "vae"}, "needs vae: the folder or hub id"),
        ({"space": "pixels", "input_size": 256}, "pixel space must be a multiple of 8 px from 32 to 128; got 256"),
        ({"epochs": 0}, "epochs must be a whole number in .*; got 0"),
        ({"minutes": 0}, "minutes must be above 0"),
        ({"guard": 1.5}, "guard must be a number in"),
        *[({n: float(v)}, f"{n} must be") for n in ("minutes", "lr", "ema", "whiten", "guard") for v in ("inf", "nan")],
        *[({n: 10**40}, f"{n} must be") for n in ("steps", "batch", "seed", "input_size", "window", "components")],
        ({"minutes": "9"}, "minutes must be a number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"encoder": ["x"]}, "encoder must be text"),
        ({"stages": "features.3"}, "stages must be a list"),
    ],
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


def weights(model) -> dict[str, torch.Tensor]:
    return load_file(model / "unet" / "diffusion_pytorch_model.safetensors")


def write_run(run, pool, **settings):
    run.mkdir()
    manifest(run, pool)
    (run / "config.json").write_text(json.dumps(config(run / "model", **settings)))
    return run


def stopped(run, number: int, least: int) -> tuple[int, list[dict]]:
    """Exit code and events of a worker that gets a signal once it has done ``least``."""
    events, sent = [], False
    with tempfile.TemporaryFile() as errors:
        worker = Worker(MODULE, ["--run-dir", str(run)], os.environ, errors.fileno())
        with worker.stdout:
            for line in worker.stdout:
                events.append(json.loads(line))
                if not sent and events[-1].get("done", 0) >= least:
                    worker.send_signal(number)
                    sent = True
        return worker.wait(), events


def done_by(events: list[dict]) -> list[int]:
    return [e["done"] for e in events if e["event"] == "progress" and e["done"] > 0]


def test_a_fit_killed_and_then_terminated_ends_with_the_weights_of_one_that_was_not(tmp_path, pool, capsys):
    settings = {"steps": 40, "check": 20, "checkpoint_s": 0.0}
    whole, cut = write_run(tmp_path / "whole", pool, **settings), write_run(tmp_path / "cut", pool, **settings)
    fit_run(whole, json.loads((whole / "config.json").read_text()), Reporter(terminal=False))
    least = len(pool) + 10  # ten steps at least, one checkpoint each
    code, events = stopped(cut, signal.SIGKILL, least)
    assert code == -signal.SIGKILL and not (cut / "model").exists()
    code, events = stopped(cut, signal.SIGTERM, least)
    assert min(done_by(events)) >= least  # no image was encoded again, no step done twice
    assert code == 128 + signal.SIGTERM and not (cut / "model").exists()
    assert events[-1] == {"event": "error", "message": "ended by SIGTERM; the same command goes on where it stopped"}
    capsys.readouterr()
    fit_run(cut, json.loads((cut / "config.json").read_text()), Reporter(terminal=False))
    last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert min(done_by(last)) >= max(done_by(events))
    one, two = weights(whole / "model"), weights(cut / "model")
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert (whole / "model" / "curve.csv").read_text() == (cut / "model" / "curve.csv").read_text()
    assert not (cut / "checkpoints").exists() and not (cut / "latents").exists()


def test_a_pool_whose_encoding_was_interrupted_is_encoded_from_there(tmp_path):
    rng, encoder, settings = np.random.default_rng(4), load_encoder(ENCODER), FitSettings(**small())
    images = [resized(stripes(rng), 64) for _ in range(550)]
    whole = collect(iter(images), encoder, settings)

    def broken():
        yield from images[:530]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(broken(), encoder, settings, tmp_path)
    with (tmp_path / "latents.f16").open("ab") as f:
        f.write(b"half a row")  # the kill came while writing
    seen = LatentFile(tmp_path).seen
    assert seen == 528  # whole batches of 16, past the 500 that decide the axes
    got = collect(iter(images[seen:]), encoder, settings, tmp_path)
    assert got.z.shape == (550, 6, 8, 8) and np.array_equal(got.z, whole.z)
    assert np.array_equal(got.pictures, np.stack([i.numpy() for i in images[:160:10]]))
    assert not set(got.train) & set(got.held_out) and len(got.held_out) == 55


def small(**more) -> dict:
    return config("", **more)["config"]


def test_two_processes_make_the_model_of_one(tmp_path, pool):
    """Three passes a step, shared by two."""
    settings = {"steps": 4, "batch": 18, "check": 2}
    alone, both = write_run(tmp_path / "one", pool, **settings), write_run(tmp_path / "two", pool, **settings)
    fit_run(alone, json.loads((alone / "config.json").read_text()), Reporter(terminal=False))
    command = [sys.executable, "-m", MODULE, "--run-dir", str(both), "--devices", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = weights(tmp_path / "one" / "model"), weights(tmp_path / "two" / "model")
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert len({(tmp_path / name / "model" / "curve.csv").read_bytes() for name in ("one", "two")}) == 1
    facts = [json.loads((tmp_path / n / "model" / "gsal.json").read_text())["fit"] for n in ("one", "two")]
    assert [f["environment"]["processes"] for f in facts] == [1, 2]
    assert facts[0]["held_out_loss_by_t"] == facts[1]["held_out_loss_by_t"]


def test_the_guard_ends_a_fit_that_learns_its_images_by_heart_and_keeps_the_best_weights(tmp_path):
    rng, encoder = np.random.default_rng(5), load_encoder(ENCODER)
    images = [torch.from_numpy(rng.integers(0, 255, (3, 64, 64), dtype=np.uint8)) for _ in range(12)]
    settings = FitSettings(**small(steps=1500, check=10, patience=3, batch=10, stages=("features.6",), ema=0.9))
    facts = fit(collect(images, encoder, settings), settings, encoder, tmp_path / "model")["fit"]
    with (tmp_path / "model" / "curve.csv").open() as f:
        curve = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    best = min(curve, key=lambda row: row["t=0.7"])
    assert facts["ended_by"] == "guard" and facts["steps"] == facts["best_step"] + 30 < 1500
    assert facts["best_step"] == best["step"] and facts["held_out_loss_by_t"]["t=0.7"] == round(best["t=0.7"], 5)
    assert curve[-1]["train"] < curve[0]["train"] and curve[-1]["t=0.7"] > best["t=0.7"]


def tiny_autoencoder(kind: str):
    import diffusers

    torch.manual_seed(0)
    if kind == "AutoencoderTiny":
        return diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1), latent_channels=4, scaling_factor=0.5,
        )  # fmt: skip
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, scaling_factor=0.5,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_autoencoder_space_is_the_given_autoencoder_s_latents(tmp_path, pool, kind):
    vae = tiny_autoencoder(kind)
    vae.save_pretrained(tmp_path / "vae")
    run = tmp_path / "run"
    run.mkdir()
    manifest(run, pool)
    settings = {"space": "vae", "vae": str(tmp_path / "vae"), "input_size": 64, "size": "tiny", "steps": 2, "batch": 4}
    facts = fit_run(run, {"config": settings, "out": str(run / "model")}, Reporter(terminal=False))
    model, x = load_denoiser(facts["out"]), torch.rand(2, 3, 64, 64)
    assert model.space == "vae" and model.input_size == 64
    out = vae.eval().encode(x * 2 - 1)
    expected = (out.latent_dist.mean if kind == "AutoencoderKL" else out.latents) * 0.5
    torch.testing.assert_close(model.latent(x), expected)


def test_pixel_space_is_the_image_itself_and_gray_where_all_images_are(tmp_path):
    rng = np.random.default_rng(6)
    gray = [torch.from_numpy(rng.integers(0, 255, (1, 32, 32), dtype=np.uint8)).expand(3, -1, -1) for _ in range(9)]
    settings = FitSettings(space="pixels", input_size=32, size="tiny", steps=2, batch=4)
    for images, channels in ((gray, 1), ([*gray, torch.randint(0, 255, (3, 32, 32)).byte()], 3)):
        latents = collect(images, None, settings)
        expected = np.stack([i[:channels].numpy() for i in images]) / 127.5 - 1
        np.testing.assert_allclose(latents.z, expected, atol=1e-3)
        fit(latents, settings, None, tmp_path / "model")
        assert load_denoiser(str(tmp_path / "model")).latent(torch.rand(1, 3, 32, 32)).shape == (1, channels, 32, 32)


def test_a_fine_stride_is_trained_on_in_windows_and_scored_whole(tmp_path):
    rng, encoder = np.random.default_rng(7), load_encoder(ENCODER)
    settings = FitSettings(**small(stages=["features.3"], stride=4, window=8, steps=2, batch=4))
    latents = collect((resized(stripes(rng), 64) for _ in range(9)), encoder, settings)
    batches = Batches(latents, settings, 1000)
    z, t, noise = batches.example(batches.draw(0))
    assert latents.z.shape[-1] == 16 and z.shape == noise.shape == (4, 6, 8, 8)
    # Each example is a square of some image's map, or its mirror; diffusion steps lie one in each quarter of [0, T).
    squares = np.lib.stride_tricks.sliding_window_view(latents.z[latents.train], (8, 8), axis=(2, 3)).astype(np.float32)
    for example in z.numpy():
        assert any((squares == e[None, :, None, None]).all((1, 4, 5)).any() for e in (example, example[..., ::-1]))
    assert [int(v) // 250 for v in t] == [0, 1, 2, 3]
    fit(latents, settings, encoder, tmp_path / "model")
    errors, _ = error_maps(load_denoiser(str(tmp_path / "model")), [torch.zeros(3, 64, 64).byte()], 0.7)
    assert errors.shape == (1, 16, 16)


def test_curve_and_sample_sheet_are_pictures_in_the_folder(tmp_path, pool):
    run = write_run(tmp_path / "run", pool, steps=5, check=2)
    fit_run(run, json.loads((run / "config.json").read_text()), Reporter(terminal=False))
    with (run / "model" / "curve.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [float(r["step"]) for r in rows] == [2, 4, 5]
    assert set(rows[0]) == {"step", "train", "t=0.1", "t=0.3", "t=0.5", "t=0.7", "t=0.9"}
    for name in ("curve.png", "samples.png"):
        with Image.open(run / "model" / name) as picture:
            assert len(picture.convert("RGB").getcolors(10**6)) > 50


def test_auroc_is_the_mann_whitney_statistic_with_ties():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    assert auroc(a, b) == pytest.approx(mannwhitneyu(a, b).statistic / (40 * 30))
    assert np.isnan(auroc(a, b[:0]))


def test_a_finished_model_takes_the_place_of_an_older_one_and_of_nothing_else(tmp_path):
    def made(name):
        folder = tmp_path / "new"
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "config.json").write_text(name)
        (folder / "gsal.json").write_text(name)
        return folder

    out = tmp_path / "model"
    for name in ("first", "second"):
        place(made(name), out)
        assert (out / "gsal.json").read_text() == (out / "unet" / "config.json").read_text() == name
    for foreign in ("notes.txt", "unet/notes.txt", "vae/mine/config.json"):
        (out / foreign).parent.mkdir(parents=True, exist_ok=True)
        (out / foreign).write_text("mine")
        with pytest.raises(ShardError, match=rf"came while the model was fitted, such as {foreign}; move them away"):
            place(made("third"), out)
        assert (out / foreign).read_text() == "mine" and (out / "gsal.json").read_text() == "second"
        (out / foreign).unlink()
        shutil.rmtree(tmp_path / "new")
    shutil.rmtree(out)
    (out / "unet").mkdir(parents=True)
    (out / "unet" / "config.json").write_text("another's diffusers model")
    with pytest.raises(ShardError, match=r"such as unet/config\.json"):
        place(made("fourth"), out)
    shutil.rmtree(out)
    out.write_text("a file")
    with pytest.raises(OSError):
        place(tmp_path / "new", out)
    assert out.read_text() == "a file"
    out.unlink()
    out.mkdir()
    place(tmp_path / "new", out)
    assert (out / "gsal.json").read_text() == "fourth" and [p.name for p in tmp_path.iterdir()] == ["model"]
