"""Reading a FiftyOne view: which images are labeled, which are the pool, and the worker's manifest of both."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.media as fom
import numpy as np
import pyarrow as pa

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.fo.dataset import filtered, slices, usable
from gsal_fo.run_folder import shards

HALF_LABELED = "an image would count as labeled with some of its boxes only, and the rest as background"
SELECT_LIMIT = 50_000  # a stage with more ids makes a slower query than reading the whole dataset


@dataclass
class Images:
    """Columns of images: ids, files, boxes ``xywh_rel``; ``boxes``, ``labels``, ``scores`` are None where not read.

    ``odd``: id -> what is wrong with those of its boxes that were left out.
    """

    ids: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    boxes: list[list[list[float]]] | None = None
    labels: list[list[str]] | None = None
    scores: list[list[float]] | None = None
    odd: dict[str, list[str]] = field(default_factory=dict)

    @property
    def file_of(self) -> dict[str, str]:
        """Sample id -> image file."""
        return dict(zip(self.ids, self.files, strict=True))

    def without(self, ids: Iterable[str]) -> "Images":
        """The same columns without some images."""
        out = set(ids)
        rows = [row for row, i in enumerate(self.ids) if i not in out]

        def kept(column: list[Any] | None) -> Any:
            return None if column is None else [column[row] for row in rows]

        odd = {i: reasons for i, reasons in self.odd.items() if i not in out}
        return Images(kept(self.ids), kept(self.files), kept(self.boxes), kept(self.labels), kept(self.scores), odd)


@dataclass
class Pool:
    """What a scoring works on. ``whole``: the labeled images were taken from the whole dataset. ``slices``: those that
    the images are in; None where the dataset is not grouped. ``proposals``: the field that they were taken from."""

    dataset: fo.Dataset
    pool: Images
    labeled: Images
    whole: bool
    notes: list[str]
    slices: list[str] | None = None
    proposals: str | None = None

    @property
    def trainable(self) -> Images:
        """The labeled images whose every box can be used: in another, a detector would learn that what the unusable
        box holds is background."""
        return self.labeled.without(self.labeled.odd)


def check_samples(samples: Any) -> fo.Dataset:
    """The dataset behind a dataset or view of images; raises ValueError for anything else, and for an empty view."""
    dataset = _root(samples)
    if not len(samples):
        what = "dataset" if isinstance(samples, fo.Dataset) else "view"
        raise ValueError(f'the {what} of "{dataset.name}" is empty; choose one that holds images')
    if slices.is_grouped(dataset) and samples.media_type != fom.IMAGE:
        what = "dataset" if isinstance(samples, fo.Dataset) else "the view of dataset"
        holds = "is grouped" if samples.media_type == fom.GROUP else f"holds {samples.media_type}"
        raise ValueError(f'{what} "{dataset.name}" {holds}, and GSAL ranks images; {slices.hint(dataset)}')
    if samples.media_type != fom.IMAGE:
        raise ValueError(
            f'"{dataset.name}" holds {samples.media_type or "no media"}, and GSAL ranks images; choose a view of images'
        )
    return dataset


def check_dataset(samples: Any) -> fo.Dataset:
    """The dataset behind a dataset or view, for what concerns all of it; of a grouped one all slices of images.

    Raises:
        ValueError: it holds no images.
    """
    dataset = _root(samples)
    if slices.is_grouped(dataset):
        if not slices.of_images(dataset):
            raise ValueError(f'dataset "{dataset.name}" is grouped, and GSAL ranks images; {slices.hint(dataset)}')
        check_samples(slices.flat(dataset))
        return dataset
    return check_samples(dataset)


def check_images(samples: Any) -> tuple[fo.Dataset, Any]:
    """The dataset behind a dataset or view of images, and those images: of a grouped dataset those of all its slices.

    Raises:
        ValueError: as ``check_samples`` does.
    """
    if isinstance(samples, fo.Dataset):
        dataset = check_dataset(samples)
        return dataset, slices.flat(dataset)
    return check_samples(samples), samples


def _root(samples: Any) -> fo.Dataset:
    if not isinstance(samples, foc.SampleCollection):
        raise ValueError(
            f"expected a FiftyOne dataset or view, got {type(samples).__name__}; load one with fo.load_dataset"
        )
    dataset = samples._root_dataset
    if isinstance(samples, fo.DatasetView):
        parts = {"_is_patches": "patches", "_is_frames": "frames of videos", "_is_clips": "clips of videos"}
        if kind := next((what for name, what in parts.items() if getattr(samples, name)), None):
            raise ValueError(
                f'the view of "{dataset.name}" holds {kind}, and GSAL ranks whole images; choose a view of images'
            )
        if samples._is_dynamic_groups:
            raise ValueError(
                f'the view of "{dataset.name}" gathers its images by group_by, and GSAL ranks single images; use the '
                f"view of before, or add flatten()"
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


def labeled_ids(
    dataset: fo.Dataset, label_field: str, labeled_tag: str | None = None, *, names: Iterable[str] | None = None
) -> set[str]:
    """Ids of the images that count as labeled: a value in the label field, were it an empty one, or the tag.

    ``names``: of a grouped dataset, the slices that are looked at; None is all that hold images.
    """
    # An image that was looked at and holds nothing has empty Detections; one that nobody looked at has None.
    # Asked for by the labeled side, usually the small one: a pool of 20,000 would send its rows for nothing.
    known: set[str] = set()
    source = slices.flat(dataset, names)
    if dataset.has_sample_field(label_field):
        # Of the field, not of its detections: FiftyOne stores no list where somebody has deleted the last box.
        known.update(source.exists(label_field).values("id"))
    if labeled_tag is not None:
        known.update(source.match_tags(labeled_tag).values("id"))
    return known


def labeled_mask(
    dataset: fo.Dataset, ids: Sequence[str], label_field: str, labeled_tag: str | None = None
) -> np.ndarray:
    """Which images (N,) count as labeled."""
    known = labeled_ids(dataset, label_field, labeled_tag)
    return np.array([i in known for i in ids], dtype=bool)


def rows_of(samples: Any, ids: Sequence[str], paths: list[str], *, raw: bool = False) -> dict[str, tuple[Any, ...]]:
    """Values of samples by id, in one query.

    Of a dataset they are what it holds, in whichever slice. Of a view they are what that shows: only for a field whose
    labels it filters, see ``filtered``. ``raw``: as MongoDB holds them; FiftyOne fails at a number that is none.
    """
    if isinstance(samples, fo.Dataset):
        samples = slices.flat(samples)
        samples = samples.select(list(ids)) if len(ids) <= SELECT_LIMIT else samples
    columns = samples.aggregate([fo.Values("id"), *(fo.Values(path, _raw=raw) for path in paths)])
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
    whole dataset's, of a grouped one that of the view's slices: so a view of unlabeled images is no cold start, and a
    view without the test split keeps it out. A view that filters the proposals has those that it shows.

    Raises:
        ValueError: an empty or non-image view, an empty pool, fields that are missing or of another type, a view that
            filters the labels, or proposals none of which can be used.
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
    filtered.refuse(samples, label_field, what="label field", why=HALF_LABELED)
    ids = filtered.ids_of(samples)
    names = slices.of(samples)
    mask = labeled_mask(dataset, ids, label_field, labeled_tag)
    if need_pool and mask.all():
        raise ValueError(
            f'all {len(mask)} images have labels in "{label_field}", so there is no pool to score; choose a view with '
            f"unlabeled images, or set the field to None where an image still needs labels"
        )
    whole = isinstance(samples, fo.Dataset)
    labeled = [i for i, known in zip(ids, mask, strict=True) if known]
    if not labeled and not whole:
        everything = labeled_ids(dataset, label_field, labeled_tag, names=names)
        if everything:
            whole = True
            labeled = [i for i in slices.flat(dataset, names).values("id") if i in everything]
            where = "dataset" if names is None else f"dataset's slice {', '.join(names)}"
            notes.append(f"no image of the view has labels: the {len(labeled)} labeled ones of the {where} count")
    unlabeled = [i for i, known in zip(ids, mask, strict=True) if not known]
    source = filtered.source_of(samples, proposals) if proposals else dataset
    found = Pool(
        dataset,
        images(source, unlabeled, proposals, scores=True),
        images(dataset, labeled, label_field),
        whole,
        notes,
        names,
        proposals,
    )
    for what, field_name, part in (
        ("proposals field", proposals, found.pool),
        ("label field", label_field, found.labeled),
    ):
        notes += [text] if (text := usable.note(part.odd, part.file_of, f'{what} "{field_name}"')) else []
    if found.pool.odd and not any(found.pool.boxes or []):
        raise ValueError(f'no box in the proposals field "{proposals}" can be used; {notes[-1]}')
    return found


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


def images(samples: Any, ids: Sequence[str], name: str | None, *, scores: bool = False) -> Images:
    """The images' columns in the order of ``ids``, without those that are gone; no Sample object is made.

    Boxes that cannot be used are left out and told in ``odd``. ``scores``: they are proposals, and need no label.
    """
    paths = ["filepath"]
    boxes = name is not None and samples.has_sample_field(name)
    if boxes:
        paths += [f"{name}.detections.{a}" for a in ("bounding_box", "label", "confidence")]
    rows = rows_of(samples, ids, paths, raw=True)
    here = [i for i in ids if i in rows]
    out = Images(here, [rows[i][0] for i in here])
    if boxes:
        given = [usable.Given(*(c or [] for c in rows[i][1:])) for i in here]
        kept, out.odd = usable.split(dict(zip(here, given, strict=True)), proposals=scores)
        out.boxes = [kept[i].boxes for i in here]
        out.labels = [[label or "" for label in kept[i].labels] for i in here]
        if scores:
            out.scores = [kept[i].confidences for i in here]
    return out
