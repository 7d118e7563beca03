"""Trainings by the real workers, made tiny: content, labels and settings decide the weights to the bit, and nothing
else does: not order, ids, names, threads, processes or interruptions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from gsal_fo.config import TrainConfig, to_dict
from gsal_fo.run_folder import shards
from gsal_fo.run_folder.shards import ShardError
from lightning_modules.fit_diffusion.run import fit_run
from lightning_modules.progress import Reporter
from lightning_modules.train import train
from lightning_modules.worker import Terminated
from tests.modules.helpers import BOXES, write_images
from tests.modules.processes import run_ranks

QUIET = {"terminal": False}
DETECTOR = TrainConfig(backbone="mobilenet_v2:none", steps=4, batch_size=3, size=64, checkpoint_s=0.0)
FIT = {
    "encoder": "mobilenet_v2:none", "size": "tiny", "input_size": 64, "stride": 8, "components": 6, "steps": 4,
    "batch": 18, "check": 2, "checkpoint_s": 0.0,
}  # fmt: skip  # batches of three passes


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 24)


def rows_of(images: list[Path]) -> list[dict]:
    """Each image with the box of its shape; every third with another one of the other label."""
    rows = []
    for k, path in enumerate(images):
        boxes, labels = [*BOXES[k % 2]], [["bar", "disk"][k % 2]]
        if k % 3 == 0:
            boxes, labels = [*boxes, 0.5, 0.5, 0.25, 0.125 * (1 + k % 2)], [*labels, "disk"]
        rows.append({"id": f"i{k}", "filepath": str(path), "role": "labeled", "boxes": boxes, "labels": labels})
    return rows


def elsewhere(rows: list[dict], folder: Path) -> list[dict]:
    """The same images and boxes in another order, in files of other names, under other ids."""
    folder.mkdir()
    rng, out = np.random.default_rng(5), []
    for place, k in enumerate(rng.permutation(len(rows)).tolist()):
        file = folder / f"{len(rows) - place}.bin"
        shutil.copyfile(rows[k]["filepath"], file)
        turn = rng.permutation(len(rows[k]["labels"])).tolist()
        boxes = np.array(rows[k]["boxes"]).reshape(-1, 4)[turn].ravel().tolist()
        labels = [rows[k]["labels"][t] for t in turn]
        out.append({**rows[k], "id": f"x{place}", "filepath": str(file), "boxes": boxes, "labels": labels})
    return out


def write(run: Path, rows: list[dict], kind: str, settings: dict) -> dict:
    """A run folder; returns its job."""
    job = {"kind": kind, "config": settings, "out": str(run / "out")}
    shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), run / "manifest.parquet")
    shards.write_json(job, run / "config.json")
    return job


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "a training gives the threads back"
    torch.set_num_threads(before)


class Stops(Reporter):
    """Ends a worker as SIGTERM does, at a step."""

    def __init__(self, stage: str, at: int) -> None:
        super().__init__(**QUIET)
        self.at = (stage, at)

    def progress(self, stage: str, done: int, total: int) -> None:
        if (stage, done) == self.at:
            raise Terminated(143)


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# ------------------------------------------------------------------------------------------------- the detector


def detector(run: Path, rows: list[dict], config: TrainConfig = DETECTOR) -> dict[str, torch.Tensor]:
    train(run, write(run, rows, "train", to_dict(config)), Reporter(**QUIET))
    return load_file(run / "out" / "model.safetensors")


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    run = tmp_path_factory.mktemp("detector")
    return detector(run, rows_of(images[:7])), json.loads((run / "out" / "detector.json").read_text())


def test_a_detector_does_not_depend_on_order_ids_names_or_threads(trained, images, tmp_path, two_threads):
    weights, facts = trained
    other = detector(tmp_path, elsewhere(rows_of(images[:7]), tmp_path / "images"))
    assert same(other, weights)
    told = json.loads((tmp_path / "out" / "detector.json").read_text())
    assert told["content"] == facts["content"] and told["final_loss"] == facts["final_loss"]
    assert told["environment"] == {**facts["environment"], "threads": 2}
    assert (told["environment"]["processes"], told["environment"]["repeats"]) == (1, "to the bit")


def test_a_detector_does_not_depend_on_processes(trained, images, tmp_path):
    """Three images a step, shared by two."""
    write(tmp_path, rows_of(images[:7]), "train", to_dict(DETECTOR))
    run_ranks(tmp_path, module="lightning_modules.train")
    assert same(load_file(tmp_path / "out" / "model.safetensors"), trained[0])
    told = json.loads((tmp_path / "out" / "detector.json").read_text())
    assert told["environment"]["processes"] == 2 and told["final_loss"] == trained[1]["final_loss"]


@pytest.mark.parametrize("at", [1, 3])  # before there is a checkpoint, and in the second turn of the images
def test_an_interrupted_detector_goes_on_to_the_same_weights_and_loss(trained, images, tmp_path, at):
    job = write(tmp_path, rows_of(images[:7]), "train", to_dict(DETECTOR))
    with pytest.raises(Terminated):
        train(tmp_path, job, Stops("train", at))
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file() == (at > 1)
    train(tmp_path, job, Reporter(**QUIET))
    assert same(load_file(tmp_path / "out" / "model.safetensors"), trained[0])
    assert json.loads((tmp_path / "out" / "detector.json").read_text())["final_loss"] == trained[1]["final_loss"]
    assert not (tmp_path / "checkpoints").exists()


def test_seed_images_and_labels_each_make_another_detector(trained, images, tmp_path):
    weights, facts = trained
    rows = rows_of(images[:7])
    relabeled = [{**rows[0], "labels": ["disk", "disk"]}, *rows[1:]]
    config = TrainConfig(**{**to_dict(DETECTOR), "seed": 1})
    for name, other, known in (
        ("seed", detector(tmp_path / "seed", rows, config), facts["content"]),
        ("image", detector(tmp_path / "image", [*rows[:6], rows_of(images[:8])[7]]), None),
        ("label", detector(tmp_path / "label", relabeled), None),
    ):
        assert not same(other, weights), name
        told = json.loads((tmp_path / name / "out" / "detector.json").read_text())["content"]
        assert (told == facts["content"]) == (known is not None)


# ------------------------------------------------------------------------------------------- the diffusion model


def model_of(out: Path) -> dict[str, torch.Tensor]:
    """All that the fit has made: axes, weights and what it saw of the held-out images."""
    curve = np.loadtxt(out / "curve.csv", delimiter=",", skiprows=1)
    unet = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
    return {**unet, **load_file(out / "features.safetensors"), "curve": torch.from_numpy(curve)}


@pytest.fixture(scope="module")
def fitted(images, tmp_path_factory):
    run = tmp_path_factory.mktemp("fit")
    fit_run(run, write(run, rows_of(images), "fit", FIT), Reporter(**QUIET))
    return model_of(run / "out")


def test_a_fit_does_not_depend_on_order_ids_names_or_threads(fitted, images, tmp_path, two_threads):
    rows = elsewhere(rows_of(images), tmp_path / "images")
    fit_run(tmp_path, write(tmp_path, rows, "fit", FIT), Reporter(**QUIET))
    assert same(model_of(tmp_path / "out"), fitted)
    told = json.loads((tmp_path / "out" / "gsal.json").read_text())["fit"]["environment"]
    assert (told["threads"], told["repeats"]) == (2, "to the bit")


def test_an_interrupted_fit_notices_a_file_that_has_changed(images, tmp_path):
    rows = elsewhere(rows_of(images), tmp_path / "images")
    job = write(tmp_path, rows, "fit", FIT)
    with pytest.raises(Terminated):
        fit_run(tmp_path, job, Stops("fit", 3))
    Path(rows[0]["filepath"]).write_bytes(images[0].read_bytes() + b" ")
    with pytest.raises(ShardError, match="has changed since this fit began"):
        fit_run(tmp_path, job, Reporter(**QUIET))
