"""The assignment stage on small run folders: each method by hand, labels outside the graph, and what it refuses."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from runs import graph

from gsal_fo.concepts.assignment import assign_run, labeled_to_embed
from gsal_fo.config import ConceptConfig
from gsal_fo.run_folder import looks, shards

# Crops are points in space: crack along x, dent along y, void along z.
AXES = {"crack": [1, 0, 0], "dent": [0, 1, 0], "void": [0, 0, 1]}
LABELED = {"l0": ["crack", "crack"], "l1": ["dent"], "l2": ["dent", "defect"], "l3": []}
CROPS = {
    "l0": [[1, 0, 0], [0.99, 0.1, 0]],
    "l1": [[0, 1, 0]],
    "l2": [[0.1, 0.99, 0], [0, 0.1, 1]],
    "l3": [],
    "p0": [[1, 0.05, 0], [0, 0, 1]],
    "p1": [[0.05, 1, 0]],
}


def encode(texts: list[str]) -> np.ndarray:
    """Text towers see the same axes: "a photo of a void" lies along z."""
    return np.array([AXES[text.rsplit(" ", 1)[1]] for text in texts], dtype=np.float32)


def write_run(folder: Path, posterior: list[float] | None = None) -> Path:
    """Labeled l0 to l3, pool p0 with two crops, p1 with one, p2 broken."""
    rows = [
        {"id": i, "filepath": i, "role": "labeled" if i in LABELED else "pool", "labels": LABELED.get(i)}
        | ({"boxes": [v for k in range(len(LABELED[i])) for v in (k / 4, 0.5, 0.25, 0.25)]} if i in LABELED else {})
        for i in [*CROPS, "p2"]
    ]
    shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), folder / "manifest.parquet")
    concepts = [
        {"id": i, "role": "labeled" if i in LABELED else "pool", "embeddings": np.float16(v).ravel(), "dim": 3}
        for i, v in CROPS.items()
    ]
    shards.write_part(folder, "concepts", [*concepts, {"id": "p2", "role": "pool", "error": "broken"}], digest="c" * 16)
    proposals = [
        {"id": "p0", "boxes": [0.0] * 8, "scores": [1, 1], "posterior": posterior or []},
        {"id": "p1", "boxes": [0.0] * 4, "scores": [1], "posterior": []},
        {"id": "p2", "error": "broken"},
    ]
    shards.write_part(folder, "proposals", proposals, digest="c" * 16)
    return folder


def assigned(run: Path) -> dict:
    return {row["id"]: row for row in shards.iter_rows(run, "assignment")}


def test_clip_assigns_the_pool_and_counts_labels_that_the_graph_lacks_by_their_looks(tmp_path: Path):
    run = write_run(tmp_path)
    facts = assign_run(run, graph(), ConceptConfig(assign="clip"), classes=[], encode_text=encode, scale=100)
    got = assigned(run)
    assert set(got) == {"p0", "p1", "p2"}
    assert got["p0"]["fine"].tolist() == [0, 2] and got["p1"]["fine"].tolist() == [1]
    assert got["p2"]["error"] == "broken" and got["p2"]["fine"] is None
    assert facts["unknown"] == {"defect": {"void": 1}} and facts["uncounted"] == []
    assert shards.run_facts(run, "assigned.json") == facts
    # l2's second box, the defect, is the only one whose label the graph lacks: it looks like void, index 2.
    assert looks.read(run) == {("l2", looks.key([0.25, 0.5, 0.25, 0.25])): 2}


def test_prototypes_know_the_labeled_concepts_alone(tmp_path: Path):
    run = write_run(tmp_path)
    facts = assign_run(run, graph(), ConceptConfig(assign="prototypes"), classes=[])
    got = assigned(run)
    assert facts["prototypes"] == {"crack": 2, "dent": 2}  # no void is labeled under its name
    assert got["p0"]["fine"].tolist() == [0, -2] and got["p1"]["fine"].tolist() == [1]
    assert facts["unknown"] == {} and facts["uncounted"] == ["defect"]


def test_the_detectors_posterior_assigns_and_an_image_without_one_is_unmatched(tmp_path: Path):
    #                                background, void, crack, twice
    run = write_run(tmp_path, posterior=[0.1, 0.8, 0.1, 0.9, 0.05, 0.05])
    facts = assign_run(run, graph(), ConceptConfig(assign="detector"), classes=["void", "crack"])
    got = assigned(run)
    assert got["p0"]["fine"].tolist() == [2, -2] and got["p1"]["fine"].tolist() == [-2]
    np.testing.assert_allclose(got["p0"]["prob"], [0.8, 0.05])
    assert facts["uncounted"] == ["defect"]


def test_assigning_again_replaces_what_was_there(tmp_path: Path):
    run = write_run(tmp_path)
    assign_run(run, graph(), ConceptConfig(assign="prototypes"), classes=[])
    assign_run(run, graph(), ConceptConfig(assign="clip"), classes=[], encode_text=encode, scale=100)
    assert len(shards.parts(run, "assignment")) == 1 and assigned(run)["p0"]["fine"].tolist() == [0, 2]


def test_only_the_labeled_crops_that_are_needed_are_embedded(tmp_path: Path):
    run = write_run(tmp_path)
    assert labeled_to_embed(run, graph(), "clip") == {"l2"}
    assert labeled_to_embed(run, graph(), "prototypes") == {"l0", "l1", "l2"}
    assert labeled_to_embed(run, graph(), "detector") == set()


def test_a_method_that_cannot_work_says_what_to_use_instead(tmp_path: Path):
    run = write_run(tmp_path / "a")
    with pytest.raises(ValueError, match="needs a trained detector"):
        assign_run(run, graph(), ConceptConfig(assign="detector"), classes=[])
    empty = tmp_path / "b"
    rows = [{"id": "p0", "filepath": "p0", "role": "pool"}]
    shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), empty / "manifest.parquet")
    crop = {"id": "p0", "role": "pool", "embeddings": [1.0, 0.0], "dim": 2}
    shards.write_part(empty, "concepts", [crop], digest="c" * 16)
    with pytest.raises(ValueError, match=r'no labeled crop .* label some images or use assign="clip"'):
        assign_run(empty, graph(), ConceptConfig(assign="prototypes"), classes=[])
