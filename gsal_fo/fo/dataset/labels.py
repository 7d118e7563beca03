"""Counting labels: the coverage of a round is what the label field holds now, never a running total.

A label that the graph lacks, such as "defect", counts under the concept of its own crop (METHOD.md section 1). The
scoring has looked at the crops of the images that were labeled then; `look` does at those that have come since, and the
run folder keeps what it saw.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fiftyone as fo
import numpy as np

from gsal_fo.concepts.assignment import labeled_prototypes
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import Assignment, assign_clip, background_embeddings, text_embeddings
from gsal_fo.fo import progress
from gsal_fo.fo.dataset import folders, pool
from gsal_fo.run_folder import looks, shards
from gsal_fo.worker import embedding


class Crop(NamedTuple):
    """One labeled box."""

    sample: str
    file: str
    label: str
    box: list[float]

    @property
    def place(self) -> tuple[str, looks.Box]:
        """Sample and box, as the run folder tells them apart."""
        return self.sample, looks.key(self.box)


def count(
    dataset: fo.Dataset, ids: Sequence[str], label_field: str, graph: ConceptGraph, run: Path
) -> tuple[dict[str, int], list[str]]:
    """Labeled instances per fine node over the images ``ids``, and notes about labels that the graph lacks.

    Those count as their crops look; one that nobody has looked at yet, or that cannot be looked at, counts nowhere and
    is told.
    """
    images = pool.images(dataset, ids, label_field)
    counts = Counter(pool.label_counts(images.labels or []))
    strange = _outside(images, graph)
    if not strange:
        return dict(counts), []
    seen, looks_at_crops = looks.read(run), _method(run) != "detector"
    of_label: dict[str, Counter[str]] = {}
    for crop in strange:
        fine = seen.get(crop.place)
        if fine is None:
            what = WAITING if looks_at_crops else NOWHERE
        else:
            what = graph.fine[fine] if fine >= 0 else UNREADABLE if fine == looks.FAILED else NOWHERE
        of_label.setdefault(crop.label, Counter())[what] += 1
    notes = []
    for name, found in sorted(of_label.items()):
        del counts[name]
        counts.update({fine: n for fine, n in found.items() if fine in graph.fine})
        notes.append(_note(name, found, graph))
    return dict(sorted(counts.items())), notes


NOWHERE, WAITING, UNREADABLE = " nowhere", " waiting", " unreadable"  # no graph has such names


def _note(name: str, found: Counter[str], graph: ConceptGraph) -> str:
    total = sum(found.values())
    how = ", ".join(f"{fine} {k}" for fine, k in sorted(found.items()) if fine in graph.fine) or "nothing"
    boxes = "1 box" if total == 1 else f"{total} boxes"
    text = f'label "{name}" ({boxes}) is not in concept graph "{graph.name}": counted by its looks as {how}'
    if found[WAITING]:
        text += f"; {found[WAITING]} of them have come since the scoring, and the next select or score looks at them"
    if found[UNREADABLE]:
        text += f"; the images of {found[UNREADABLE]} of them cannot be read"
    return text


def look(
    dataset: fo.Dataset,
    ids: Sequence[str],
    label_field: str,
    graph: ConceptGraph,
    run: Path,
    on_event: progress.OnEvent | None = None,
) -> int:
    """Look at the crops of labels that the graph lacks and that nobody has looked at yet; returns how many there were.

    By the models and the way by which the scoring assigned its concepts: CLIP, or prototypes of the labeled crops of
    then. A detector has no posterior of a box that somebody drew, so its scorings look at none.

    Raises:
        WorkerError: a model cannot be loaded, or the worker was killed.
    """
    strange = _outside(pool.images(dataset, ids, label_field), graph)
    if not strange or _method(run) == "detector":
        return 0
    seen = looks.read(run)
    new = list({crop.place: crop for crop in strange if crop.place not in seen}.values())
    if not new:
        return 0
    if on_event:
        text = f"{len(new)} boxes have labels that the concept graph lacks: looking at their crops"
        on_event({"event": "note", "message": text})
    fine, readable = _assigned(new, graph, run, on_event)
    rows = [
        looks.row(c.sample, np.array(c.box), [f if good else looks.FAILED], None if good else "cannot be read")
        for c, f, good in zip(new, fine, readable, strict=True)
    ]
    with folders.lock(run, wait=True):
        looks.write(run, rows, digest=looks.digest_of(run))
    return len(new)


def _assigned(
    crops: list[Crop], graph: ConceptGraph, run: Path, on_event: progress.OnEvent | None
) -> tuple[list[int], list[bool]]:
    """Assigned index of each crop, and whether its image could be read."""
    config = shards.run_facts(run, shards.CONFIG)["config"]["concepts"]
    by_clip = _method(run) == "clip"
    texts = _texts(graph) if by_clip else []
    encoder = None if by_clip else config["encoder"]
    cut = [(c.file, c.box) for c in crops]
    models = {"clip": config["clip"], "pretrained": config["pretrained"], "encoder": encoder, "pad": config["pad"]}
    vectors_of_texts, vectors = embedding.embed(texts, cut, **models, on_event=on_event)
    got: Assignment
    if by_clip:
        of_text = dict(zip(texts, vectors_of_texts, strict=True))

        def encode(wanted: list[str]) -> np.ndarray:
            return np.stack([of_text[text] for text in wanted])

        got = assign_clip(vectors, text_embeddings(graph, encode), background_embeddings(graph, encode))
    else:
        got = labeled_prototypes(run, graph, _labels_of(run)).assign(vectors)
    return [int(f) for f in got.fine], [bool(good) for good in np.isfinite(vectors).all(1)]


def _texts(graph: ConceptGraph) -> list[str]:
    """Every text that stands for a node or the background."""
    prompts = [*(p for fine in graph.fine for p in graph.prompts(fine)), *graph.background]
    return list(dict.fromkeys(t.format(p) for t in graph.templates for p in prompts))


def _labels_of(run: Path) -> dict[str, list[str]]:
    """Labeled image -> one name per box, as the scoring had them."""
    manifest = shards.read_manifest(run, ["id", "role", "labels"])
    return {row["id"]: list(row["labels"] or []) for row in shards.table_rows(manifest) if row["role"] == "labeled"}


def _method(run: Path) -> str:
    """How the scoring assigned its concepts: "clip", "prototypes" or "detector"."""
    return str(shards.run_facts(run, "assigned.json")["assign"])


def _outside(images: pool.Images, graph: ConceptGraph) -> list[Crop]:
    """The boxes whose label the graph lacks."""
    rows: Any = zip(images.ids, images.files, images.labels or [], images.boxes or [], strict=True)
    return [
        Crop(i, file, name, box)
        for i, file, names, boxes in rows
        for name, box in zip(names, boxes, strict=True)
        if name not in graph.fine
    ]
