"""A small dataset on a real mongod, and the tiny worker in the place of the models."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from gsal_fo.fo import scoring, training
from gsal_fo.worker import embedding

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


def fill(dataset: fo.Dataset, folder: Path) -> fo.Dataset:
    """12 images: 0 and 1 labeled (two voids, one crack), 2 labeled as empty, 9 without labels."""
    samples = [fo.Sample(picture(folder / f"slice_{i:02d}.png", i)) for i in range(12)]
    samples[0]["ground_truth"] = fo.Detections(detections=[box("void"), box("void", x=0.5)])
    samples[1]["ground_truth"] = fo.Detections(detections=[box("crack")])
    samples[2]["ground_truth"] = fo.Detections()
    dataset.add_samples(samples)
    return dataset


@pytest.fixture
def dataset(tmp_path, request):
    """A fresh dataset, not scored."""
    dataset = fill(fo.Dataset(request.node.name[:60], overwrite=True), tmp_path / "images")
    yield dataset
    dataset.delete()


def use_tiny_worker(patch: pytest.MonkeyPatch, home: Path) -> None:
    patch.setenv("GSAL_HOME", str(home))
    patch.setenv("PYTHONPATH", str(Path(__file__).parent / "workers"))
    patch.setattr(scoring, "WORKER", "tiny_worker")
    patch.setattr(training, "WORKER", "tiny_worker")


@pytest.fixture
def tiny(home, monkeypatch):
    """The tiny worker scores and trains."""
    use_tiny_worker(monkeypatch, home)


@pytest.fixture
def tiny_looks(monkeypatch):
    """The tiny worker looks at crops of labels that the graph lacks."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "workers"))
    monkeypatch.setattr(embedding, "WORKER", "tiny_embed")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A dataset scored once: cloning it takes a tenth of the time of scoring."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "film.yaml").write_text(GRAPH)
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_worker(patch, folder / "home")
        dataset = fill(fo.Dataset(folder.name), folder / "images")  # tests/fo and tests/plugin each have a template
        scoring.score(dataset, concepts=folder / "film.yaml")
    dataset.persistent = True  # an App or a service that ends deletes all others
    yield dataset  # after the patch: the tests that follow in this session are to find the real worker
    dataset.delete()


@pytest.fixture
def scored(template, request):
    """A scored dataset of this test's own."""
    clone = template.clone(f"scored-{request.node.name[:50]}")
    yield clone
    clone.delete()
