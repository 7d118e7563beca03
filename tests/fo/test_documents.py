"""Documents made by hand are what FiftyOne itself would store, and written as it writes."""

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.config import GsalParams
from gsal_fo.fo.dataset import bulk
from gsal_fo.fo.documents import Documents, heatmap
from tests.core.runs import graph, image, write_run


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    """Four images: a void, an unmatched beside a background box, a crack twice, and one that cannot be ranked."""
    rows = [image("a", [2]), image("b", [-2, -1]), image("c", [0, 0]), image("d", [1], image_error=float("nan"))]
    table = load_pool(write_run(tmp_path, rows))
    return Documents(rank(table, graph(), {"void": 3, "dent": 1}, GsalParams()))


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k != "_id"}
    return [without_ids(v) for v in value] if isinstance(value, list) else value


def test_each_label_is_stored_as_set_values_stores_the_same_label(documents, request):
    table, scores = documents.ranking.table, documents.ranking.scores
    dataset = fo.Dataset(request.node.name)
    dataset.add_samples([fo.Sample(f"/{i}.png") for i in table.ids])
    theirs = {"gsal_proposals": [], "gsal_fine": [], "gsal_abstract": []}
    names = {-2: ("(unmatched)", ["(unmatched)"]), -1: ("(background)", [])}
    names |= {i: (n, graph().path(n)) for i, n in enumerate(graph().fine)}
    for row in range(len(table.ids)):
        found = []
        for j in np.flatnonzero(table.proposal_image == row):
            name, path = names[int(table.fine[j])]
            numbers = {
                "score": scores.value[j],
                "recon_error": table.proposal_error[j],
                "denoise_var": table.proposal_variance[j],
                "difficulty": scores.proposal[j],
                "bonus": documents.ranking.bonus[j],
                "prob": table.prob[j],
                "margin": table.margin[j],
            }
            detection = fo.Detection(
                label=name,
                bounding_box=[float(v) for v in table.boxes[j]],
                confidence=float(table.proposal_score[j]),
                coarse=path[1] if len(path) > 1 else None,
                abstract=path[2:],
                path=path,
                source="field",
                **{k: float(v) if np.isfinite(v) else None for k, v in numbers.items()},
            )
            found.append(detection)
        theirs["gsal_proposals"].append(fo.Detections(detections=found))
        decisive = int(scores.decisive[row])
        fine, attributes = None, []
        if decisive >= 0:
            name, path = names[int(table.fine[decisive])]
            fine = fo.Classification(label=name, confidence=float(table.prob[decisive]))
            attributes = path[2:]
        theirs["gsal_fine"].append(fine)
        each = [fo.Classification(label=a) for a in attributes]
        theirs["gsal_abstract"].append(fo.Classifications(classifications=each))
    for name, values in theirs.items():
        dataset.set_values(name, values)
    stored = list(dataset._sample_collection.find().sort("_id"))
    for row, sample in enumerate(stored):
        ours = documents.ranked(row) | {"gsal_proposals": documents.proposals(row)}
        for name in theirs:
            # FiftyOne leaves out what is None; ours says so, which reads back the same.
            assert dropped(without_ids(ours[name])) == dropped(without_ids(sample.get(name))), (row, name)
    dataset.delete()


def dropped(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: dropped(v) for k, v in value.items() if v is not None}
    return [dropped(v) for v in value] if isinstance(value, list) else value


def test_labels_have_ids_of_their_own_and_come_back_as_fiftyones_objects(documents, request):
    dataset = fo.Dataset(request.node.name)
    dataset.add_samples([fo.Sample(f"/{i}.png") for i in range(2)])
    dataset.add_sample_field("gsal_proposals", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.add_sample_field("gsal_map", fo.EmbeddedDocumentField, embedded_doc_type=fo.Heatmap)
    ids = dataset.values("id")
    bulk.update(
        dataset,
        {i: {"gsal_proposals": documents.proposals(1), "gsal_map": heatmap("/m.png")} for i in ids},
    )
    boxes = [d for sample in dataset for d in sample.gsal_proposals.detections]
    assert len({d.id for d in boxes}) == 4 and [d.label for d in boxes[:2]] == ["(unmatched)", "(background)"]
    assert dataset.first().gsal_map.map_path == "/m.png" and dataset.first().gsal_map.range == [0, 255]
    dataset.delete()


def test_a_write_is_seen_by_held_samples_sets_last_modified_and_keeps_indexes(request):
    dataset = fo.Dataset(request.node.name)
    dataset.add_samples([fo.Sample(f"/{i}.png") for i in range(3)])
    dataset.add_sample_field("gsal_score", fo.FloatField)
    dataset.create_index("gsal_score")
    held, other = dataset.first(), dataset.last()
    before = dict(zip(*dataset.values(["id", "last_modified_at"]), strict=True))
    bulk.update(dataset, {held.id: {"gsal_score": 1.5}, other.id: {}, "0" * 24: {"gsal_score": 2.0}})
    after = dict(zip(*dataset.values(["id", "last_modified_at"]), strict=True))
    assert held.gsal_score == 1.5 and other.gsal_score is None and len(dataset) == 3
    assert [i for i in before if after[i] > before[i]] == [held.id]
    assert "gsal_score" in dataset.list_indexes()
    dataset.delete()


@pytest.mark.parametrize("at_once", [bulk.IDS_AT_ONCE, 12, 5, 1])
def test_ids_of_all_samples_are_read_as_fiftyone_knows_them(dataset, monkeypatch, at_once):
    monkeypatch.setattr(bulk, "IDS_AT_ONCE", at_once)
    assert bulk.ids(dataset) == set(dataset.values("id")) and len(bulk.ids(dataset)) == 12
    dataset.delete_samples(dataset.limit(3).values("id"))
    assert bulk.ids(dataset) == set(dataset.values("id"))
    dataset.clear()
    assert bulk.ids(dataset) == set()
