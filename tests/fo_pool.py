"""A small dataset on a real mongod, and the tiny worker in the place of the models."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from gsal_fo.fo import scoring, training

GRAPH = """
name: film
concepts:
  void: {coarse: subsurface, abstract: [dark, round]}
  crack: {coarse: subsurface, abstract: [dark, linear]}
  petal: {coarse: surface, abstract: [bright, round]}
"""


def picture(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def box(label: str, x: float = 0.1, y: float = 0.2, w: float = 0.3, h: float = 0.4, **more) -> fo.Detection:
    return fo.Detection(label=label, bounding_box=[x, y, w, h], **more)


@pytest.fixture
def graph(tmp_path) -> Path:
    path = tmp_path / "film.yaml"
    path.write_text(GRAPH)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GSAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def dataset(tmp_path, request):
    """12 images: 0 and 1 labeled (two voids, one crack), 2 labeled as empty, 9 without labels."""
    dataset = fo.Dataset(request.node.name[:60], overwrite=True)
    samples = [fo.Sample(picture(tmp_path / "images" / f"slice_{i:02d}.png", i)) for i in range(12)]
    samples[0]["ground_truth"] = fo.Detections(detections=[box("void"), box("void", x=0.5)])
    samples[1]["ground_truth"] = fo.Detections(detections=[box("crack")])
    samples[2]["ground_truth"] = fo.Detections()
    dataset.add_samples(samples)
    yield dataset
    dataset.delete()


@pytest.fixture
def tiny(home, monkeypatch):
    """The tiny worker scores and trains."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "workers"))
    monkeypatch.setattr(scoring, "WORKER", "tiny_worker")
    monkeypatch.setattr(training, "WORKER", "tiny_worker")
