"""The adapter over the real workers, made tiny: a 16-pixel diffusion model, a detector of a few steps, prototypes."""

import os
import signal
from contextlib import closing
from pathlib import Path

import fiftyone as fo
import numpy as np
import psutil
import pytest
from PIL import Image

import gsal_fo.fo as gfo
from gsal_fo.config import ConceptConfig, DiffusionConfig, ScoreConfig, TrainConfig
from gsal_fo.worker.process import WorkerError
from tests.modules.helpers import BOXES, write_ddpm, write_graph, write_images

FAST = TrainConfig(steps=4, size=64, backbone="none")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_ddpm(tmp_path_factory.mktemp("models") / "ddpm")


@pytest.fixture
def blobs(tmp_path):
    """18 images of disks and bars, 6 labeled."""
    dataset = fo.Dataset()
    paths = write_images(tmp_path / "images", 18)
    dataset.add_samples([fo.Sample(str(p)) for p in paths])
    boxes = [fo.Detection(label=["bar", "disk"][i % 2], bounding_box=BOXES[i % 2]) for i in range(6)]
    dataset.set_values("ground_truth", [fo.Detections(detections=[b]) for b in boxes] + [None] * 12)
    yield dataset
    dataset.delete()


@pytest.fixture
def settings(tmp_path, model, home):
    return {
        "concepts": write_graph(tmp_path / "graph.yaml"),
        "config": ScoreConfig(
            diffusion=DiffusionConfig(model=str(model), crop_size=16),
            concepts=ConceptConfig(assign="prototypes", encoder="mobilenet_v2:none"),
        ),
        "train": FAST,
    }


def bad_images(folder: Path) -> dict[str, bool]:
    """Odd and broken image files; the value says whether the image can be scored."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    Image.fromarray(rgb).convert("P").save(folder / "palette.png", transparency=0)
    Image.fromarray(rgb[:1, :1]).save(folder / "dot.png")
    Image.fromarray(np.tile(rgb[:8], (1, 20, 1))).save(folder / "wide.png")
    Image.fromarray(rgb).save(folder / "cut.png")
    data = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image")
    return {
        "cmyk.jpg": True,
        "deep.png": True,
        "palette.png": True,
        "dot.png": True,
        "wide.png": True,
        "cut.png": False,
        "empty.png": False,
        "text.png": False,
        "gone.png": False,
    }


def test_train_score_select_with_bad_images_among_the_good(blobs, settings, tmp_path):
    expected = bad_images(tmp_path / "odd")
    blobs.add_samples([fo.Sample(str(tmp_path / "odd" / name)) for name in expected])
    events = []
    key = gfo.score(blobs, **settings, on_event=events.append)
    stages = {e["stage"] for e in events if e["event"] == "progress"}
    assert stages == {"train", "detect", "difficulty", "concepts", "write"}
    blobs.reload()
    odd = {Path(s.filepath).name: s for s in blobs if "odd" in s.filepath}
    assert {name: s.gsal_rank is not None for name, s in odd.items()} == expected
    assert all((s.gsal_error is None) == expected[name] for name, s in odd.items())
    assert odd["gone.png"].gsal_error == "the file is missing"
    record = gfo.runs.load(blobs, key).config
    counts = record.counts
    assert (counts["pool"], counts["scored"], counts["failed"]) == (21, 17, 4)
    assert (record.trained["images"], record.trained["boxes"], len(record.trained["content"])) == (6, 6, 32)
    assert record.trained["environment"]["repeats"] == "to the bit"
    assert (record.environment["processes"], record.environment["repeats"]) == (1, "to rounding")
    assert record.environment["versions"]["torch"]
    batch = gfo.select(blobs, 17)
    assert not {s.id for n, s in odd.items() if not expected[n]} & set(batch.values("id"))
    assert all(Path(m.map_path).is_file() for m in batch.values("gsal_map"))


def scores_of(dataset):
    return dict(zip(*dataset.exists("gsal_rank").values(["id", "gsal_score"]), strict=True))


def test_two_processes_give_what_one_gives_that_was_killed_and_resumed(blobs, settings):
    settings |= {"detector": "grid", "cache": False}
    gfo.score(blobs, **settings, run_key="two", processes=2)
    two = scores_of(blobs)
    events = gfo.score_events(blobs, **settings)
    with closing(events), pytest.raises(WorkerError, match="killed by SIGKILL"):
        for event in events:
            if event["event"] == "stage" and event["stage"] == "detect":
                (worker,) = [c for c in psutil.Process().children() if "lightning_modules.score" in c.cmdline()]
                os.kill(worker.pid, signal.SIGKILL)
    assert blobs.list_runs() == ["two"]
    assert gfo.score(blobs, **settings) == "gsal_score_001"
    one = scores_of(blobs)
    assert two.keys() == one.keys()
    assert sorted(two, key=two.get) == sorted(one, key=one.get)
    # E and V are equal to 1e-5 (tests/modules); a z-score divides by a spread that is a small part of their mean.
    np.testing.assert_allclose([two[i] for i in one], list(one.values()), atol=1e-3)


def test_a_missing_model_is_a_sentence(blobs, settings):
    with pytest.raises(WorkerError) as caught:
        gfo.score(blobs, **settings, detector="grid", diffusion="/nowhere/model")
    assert "\n" not in str(caught.value) and "/nowhere/model" in str(caught.value)
    assert not blobs.list_runs()
