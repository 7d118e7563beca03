"""The embedding worker over the embedded CLIP."""

from pathlib import Path

import numpy as np
import pytest

from gsal_fo.concepts.build import building
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.images import read_image
from gsal_fo.worker import embedding
from gsal_fo.worker.process import WorkerError
from lightning_modules.data import crops, to_float
from lightning_modules.nets import load_clip
from tests.modules.helpers import write_images

pytestmark = pytest.mark.usefixtures("warm")


def test_texts_and_crops_are_those_of_the_model_and_a_bad_image_is_nan(tmp_path):
    path = write_images(tmp_path, 1)[0]
    box = [0.2, 0.2, 0.4, 0.4]
    texts, vectors = embedding.embed(["a void", "a petal"], [(str(path), box), (str(tmp_path / "gone.png"), box)])
    clip = load_clip()
    np.testing.assert_allclose(texts, clip.encode_text(["a void", "a petal"]).numpy(), atol=1e-5)
    crop = crops(read_image(str(path))[0], np.array([box]), pad=0.2, size=clip.input_size)
    np.testing.assert_allclose(vectors[0], clip.embed(to_float(crop))[0].numpy(), atol=1e-3)  # stored as halves
    assert np.isnan(vectors[1]).all()


def test_the_labels_that_the_embedded_clip_was_taught_raise_no_doubt(tmp_path):
    labels = ConceptGraph.load(Path(building.THIN_FILM)).fine
    first = building.from_labels(labels, tmp_path / "film.yaml")
    assert first.graph.fine == labels and first.notes == []
    assert not building.from_labels(labels[::-1], tmp_path / "film.yaml").written


def test_a_model_that_is_not_there_is_a_sentence():
    with pytest.raises(WorkerError, match="no CLIP model 'nothing'"):
        embedding.embed(["x"], clip="nothing")
