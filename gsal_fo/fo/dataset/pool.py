"""Reading a FiftyOne view: which images are labeled, which are the pool, and the worker's manifest of both."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np
import pyarrow as pa

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.run_folder import shards

SELECT_LIMIT = 50_000  # a stage with more ids makes a slower query than reading the whole dataset


@dataclass
class Images:
    """Columns of images: ids, files, boxes ``xywh_rel``; ``boxes``, ``labels``, ``scores`` are None where not read."""

    ids: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    boxes: list[list[list[float]]] | None = None
    labels: list[list[str]] | None = None
    scores: list[list[float]] | None = None


@dataclass
class Pool:
    """What a scoring works on. ``whole``: the labeled images were taken from the whole dataset."""

    dataset: fo.Dataset
    pool: Images
    labeled: Images
    whole: bool
    notes: list[str]


def check_samples(samples: Any) -> fo.Dataset:
    """The dataset behind a dataset or view of images; raises ValueError for anything else, and for an empty view."""
    if not isinstance(samples, foc.SampleCollection):
        raise ValueError(
            f"expected a FiftyOne dataset or view, got {type(samples).__name__}; load one with fo.load_dataset"
        )
    dataset = samples._root_dataset
    if not len(samples):
        what = "dataset" if isinstance(samples, fo.Dataset) else "view"
        raise ValueError(f'the {what} of "{dataset.name}" is empty; choose one that holds images')
    if dataset.media_type == "group" and samples.media_type != "image":
        raise ValueError(
            f'dataset "{dataset.name}" is grouped; choose one slice with dataset.select_group_slices("...")'
        )
    if samples.media_type != "image":
        raise ValueError(
            f'"{dataset.name}" holds {samples.media_type or "no media"}, and GSAL ranks images; choose a view of images'
        )
    if isinstance(samples, fo.DatasetView) and (samples._is_patches or samples._is_frames):
        raise ValueError(
            f'the view of "{dataset.name}" holds patches, and GSAL ranks whole images; choose a view of images'
        )
    return dataset


def check_detections(dataset: fo.Dataset, name: str, *, what: str) -> bool:
    """Whether the dataset has a field ``name``; raises ValueError where it has one that holds no Detections."""
    found = dataset.get_field(name)
    if found is None:
        return False
    if getattr(found, "document_type", None) is not fo.Detections:
        holds = getattr(getattr(found, "document_type", None), "__name__", type(found).__name__)
        raise ValueError(
            f'{what} "{name}" of dataset "{dataset.name}" holds {holds}, not Detections; name a Detections field'
        )
    return True


def labeled_ids(dataset: fo.Dataset, label_field: str, labeled_tag: str | None = None) -> set[str]:
    """Ids of the images that count as labeled: a value in the label field, were it an empty one, or the tag."""
    # An image that was looked at and holds nothing has empty Detections; one that nobody looked at has None.
    # Asked for by the labeled side, usually the small one: a pool of 20,000 would send its rows for nothing.
    known: set[str] = set()
    if dataset.has_sample_field(label_field):
        # Of the field, not of its detections: FiftyOne stores no list where somebody has deleted the last box.
        known.update(dataset.exists(label_field).values("id"))
    if labeled_tag is not None:
        known.update(dataset.match_tags(labeled_tag).values("id"))
    return known


def labeled_mask(
    dataset: fo.Dataset, ids: Sequence[str], label_field: str, labeled_tag: str | None = None
) -> np.ndarray:
    """Which images (N,) count as labeled."""
    known = labeled_ids(dataset, label_field, labeled_tag)
    return np.array([i in known for i in ids], dtype=bool)


def rows_of(dataset: fo.Dataset, ids: Sequence[str], paths: list[str]) -> dict[str, tuple[Any, ...]]:
    """The values of the dataset's samples by id, in one query.

    They are read from the dataset, never from a view: that may filter labels inside its images, or leave fields out.
    """
    source = dataset.select(list(ids)) if len(ids) <= SELECT_LIMIT else dataset
    columns = source.values(["id", *paths])
    wanted = set(ids)
    return {row[0]: row[1:] for row in zip(*columns, strict=True) if row[0] in wanted}


def read(
    samples: Any,
    *,
    label_field: str,
    labeled_tag: str | None = None,
    proposals: str | None = None,
    need_pool: bool = True,
) -> Pool:
    """Split a dataset or view into its labeled images and its pool.

    The pool is what the view holds without labels. The labeled set is the view's; where the view holds none, it is the
    whole dataset's: so a view of unlabeled images is no cold start, and a view without the test split keeps it out.

    Raises:
        ValueError: an empty or non-image view, an empty pool, fields that are missing or of another type.
    """
    dataset = check_samples(samples)
    name = dataset.name
    notes = []
    if not check_detections(dataset, label_field, what="label field"):
        notes.append(f'dataset "{name}" has no field "{label_field}" yet: no image counts as labeled by it')
    if proposals and not check_detections(dataset, proposals, what="proposals field"):
        raise ValueError(f'dataset "{name}" has no field "{proposals}" to take proposals from; name a Detections field')
    if proposals and proposals == label_field:
        raise ValueError(f'the proposals and the labels cannot both be field "{label_field}"; name two fields')
    ids = samples.values("id")
    mask = labeled_mask(dataset, ids, label_field, labeled_tag)
    if need_pool and mask.all():
        raise ValueError(
            f'all {len(mask)} images have labels in "{label_field}", so there is no pool to score; choose a view with '
            f"unlabeled images, or set the field to None where an image still needs labels"
        )
    whole = isinstance(samples, fo.Dataset)
    labeled = [i for i, known in zip(ids, mask, strict=True) if known]
    if not labeled and not whole:
        everything = dataset.values("id")
        mask_of_all = labeled_mask(dataset, everything, label_field, labeled_tag)
        if mask_of_all.any():
            whole = True
            labeled = [i for i, known in zip(everything, mask_of_all, strict=True) if known]
            notes.append(f"no image of the view has labels: the {len(labeled)} labeled ones of the dataset count")
    unlabeled = [i for i, known in zip(ids, mask, strict=True) if not known]
    return Pool(
        dataset,
        images(dataset, unlabeled, proposals, scores=True),
        images(dataset, labeled, label_field),
        whole,
        notes,
    )


def label_counts(labels: Sequence[Sequence[str | None]]) -> dict[str, int]:
    """Instances per label name, by name; boxes without a label are left out."""
    return dict(sorted(Counter(name for names in labels for name in names if name).items()))


def outside(counts: dict[str, int], graph: ConceptGraph) -> dict[str, int]:
    """The labels that are no fine node of the graph, with their counts."""
    return {name: n for name, n in counts.items() if name not in graph.fine}


def write_manifest(pool: Pool, path: Path) -> str:
    """Write the worker's manifest, labeled images first; returns its SHA-256."""
    parts = (pool.labeled, pool.pool)
    columns: dict[str, list[Any]] = {
        "id": [i for part in parts for i in part.ids],
        "filepath": [f for part in parts for f in part.files],
        "role": ["labeled"] * len(pool.labeled.ids) + ["pool"] * len(pool.pool.ids),
    }
    for name in ("boxes", "labels", "scores"):
        columns[name] = [v for part in parts for v in getattr(part, name) or [None] * len(part.ids)]
    columns["boxes"][: len(pool.labeled.ids)] = pool.labeled.boxes or [[] for _ in pool.labeled.ids]
    columns["boxes"] = [v and [x for box in v for x in box] for v in columns["boxes"]]
    shards.write_manifest(pa.Table.from_pydict(columns, schema=shards.MANIFEST), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def images(dataset: fo.Dataset, ids: Sequence[str], name: str | None, *, scores: bool = False) -> Images:
    """The images' columns in the order of ``ids``; no Sample object is made."""
    paths = ["filepath"]
    boxes = name is not None and dataset.has_sample_field(name)
    if boxes:
        paths += [f"{name}.detections.{a}" for a in ("bounding_box", "label", "confidence")]
    rows = rows_of(dataset, ids, paths)
    kept = [rows[i] for i in ids]
    out = Images(list(ids), [r[0] for r in kept])
    if boxes:
        # A box without a label says nothing about a concept; a proposal without one is a proposal all the same.
        given = [[d for d in zip(*(c or [] for c in r[1:]), strict=True) if scores or d[1]] for r in kept]
        out.boxes = [[d[0] for d in image] for image in given]
        out.labels = [[d[1] or "" for d in image] for image in given]
        if scores:  # one without a confidence counts fully: a person or a rule drew it
            out.scores = [[1.0 if d[2] is None else d[2] for d in image] for image in given]
    return out
