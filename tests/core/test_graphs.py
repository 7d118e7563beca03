"""The concept graphs that ship with the package."""

import json
from collections import Counter
from pathlib import Path

import pytest

from gsal_fo.concepts.graph import ConceptGraph

ROOT = Path(__file__).parents[2]
GRAPHS = ROOT / "gsal_fo" / "graphs"
SETS = ROOT.parent / "shared" / "datasets"
VOC = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
)


@pytest.mark.parametrize("name", sorted(p.stem for p in GRAPHS.glob("*.yaml")))
def test_each_loads_and_every_attribute_is_a_concept_of_its_own(name: str):
    graph = ConceptGraph.load(GRAPHS / f"{name}.yaml")
    carriers = Counter(a for f in graph.fine for a in graph.abstract_of(f))
    whole = [a for a, n in carriers.items() if n == len(graph.fine)]
    assert not whole, f"{whole} is carried by every label, so it can never be rarer than another"
    assert all(graph.abstract_of(f) for f in graph.fine)


@pytest.mark.parametrize(
    ("graph", "folder"), [("neu_det", "neu_det"), ("deeppcb", "deeppcb"), ("bccd", "bccd"), ("coco", "coco256")]
)
def test_its_labels_are_those_of_the_data_set(graph: str, folder: str):
    labels = SETS / folder / "labels.json"
    if not labels.is_file():
        pytest.skip(f"{labels} is not here: the real sets are not part of the project")
    categories = json.loads(labels.read_text(encoding="utf-8"))["categories"]
    assert set(ConceptGraph.load(GRAPHS / f"{graph}.yaml").fine) == {c["name"] for c in categories}


def test_pascal_voc_has_its_twenty_labels_in_the_families_of_coco():
    voc, coco = ConceptGraph.load(GRAPHS / "pascal_voc.yaml"), ConceptGraph.load(GRAPHS / "coco.yaml")
    assert sorted(voc.fine) == VOC.split()
    for label in set(voc.fine) & set(coco.fine):
        assert voc.path(label) == coco.path(label)


def test_attributes_of_coco_are_shared_between_labels():
    graph = ConceptGraph.load(GRAPHS / "coco.yaml")
    carriers = Counter(a for f in graph.fine for a in graph.abstract_of(f))
    assert [a for a, n in carriers.items() if n < 2] == []
