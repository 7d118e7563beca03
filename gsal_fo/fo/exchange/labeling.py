"""Labels into the label field: only where none are, by the database's own condition, and each with where it is from."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fiftyone as fo
from bson import ObjectId

from gsal_fo.fo.dataset import bulk, pool
from gsal_fo.fo.dataset.fields import LABEL_SOURCE
from gsal_fo.fo.dataset.prepared import Change
from gsal_fo.fo.exchange.comparing import Boxes
from gsal_fo.fo.exchange.formats import file_digest

LABELS = (".json", ".xml", ".txt", ".yaml", ".names")  # suffixes of label files


@dataclass(frozen=True)
class Source:
    """Where the labels of one ingest come from; see ``fields.SOURCE_FIELDS``."""

    name: str
    digest: str | None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


def digest_of(labels: Path) -> str:
    """SHA-256 of a label file; of a folder, over the names and digests of the label files in it."""
    if not labels.is_dir():
        return file_digest(labels)
    files = sorted(p for p in labels.rglob("*") if p.suffix.lower() in LABELS and p.is_file())
    lines = [f"{p.relative_to(labels).as_posix()} {file_digest(p)}\n" for p in files]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def fresh(detection: fo.Detection) -> fo.Detection:
    """A copy with an id of its own: FiftyOne takes two labels of one id for the same."""
    copy: fo.Detection = detection.copy()
    copy.id = str(ObjectId())
    return copy


@dataclass(frozen=True)
class Present:
    """Labels that are there: ``replaceable`` where ingest itself took the image as empty and nobody has drawn since."""

    boxes: Boxes
    replaceable: bool


def present(dataset: fo.Dataset, name: str, ids: Sequence[str]) -> dict[str, Present]:
    """What the label field holds of these images; those without labels are left out."""
    if not dataset.has_sample_field(name):
        return {}
    each = f"{name}.detections"
    paths = [f"{each}.label", f"{each}.bounding_box", f"{name}.{LABEL_SOURCE}.boxes"]
    labeled = sorted(bulk.matching(dataset, ids, {name: {"$ne": None}}))
    rows = pool.rows_of(dataset, labeled, paths)
    return {
        i: Present(list(zip(names or [], boxes or [], strict=True)), not names and written == 0)
        for i, (names, boxes, written) in rows.items()
    }


def changes(
    name: str, new: Mapping[str, Sequence[fo.Detection]], source: Source, ingest: str
) -> Iterator[tuple[str, Change]]:
    """What becomes of the images; a non-empty answer also replaces an empty one that ingest itself made.

    Between reading and writing a person may label an image in the App: MongoDB is asked in the moment of writing, and
    what is there stays. `written` tells which were written. ``ingest`` names this one; ids of labels follow from it, so
    that an ingest that is given again after a kill makes the same labels.
    """
    for i, detections in new.items():
        for k, detection in enumerate(detections):
            detection.id = hashlib.sha256(f"{ingest} {name} {i} {k}".encode()).hexdigest()[:24]
        yield i, Change(fill={name: _document(detections, source, ingest)})


def written(dataset: fo.Dataset, name: str, ids: Iterable[str], ingest: str) -> set[str]:
    """Which of the images have the labels of an ingest; the others were labeled meanwhile, or are gone."""
    return bulk.matching(dataset, ids, {f"{name}.{LABEL_SOURCE}.ingest": ingest})


def _document(detections: Sequence[fo.Detection], source: Source, ingest: str) -> dict[str, Any]:
    about = fo.DynamicEmbeddedDocument(
        name=source.name, digest=source.digest, time=source.time, boxes=len(detections), ingest=ingest
    )
    labels = fo.Detections(detections=list(detections), **{LABEL_SOURCE: about})
    return dict(labels.to_dict())
