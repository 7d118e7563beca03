"""Values prepared beside a dataset's samples: all of them first, in a collection of their own, then one command of the
server takes them over.

Whatever fails while they are prepared leaves the samples as they were; a takeover that is cut short is given again, and
changes nothing where it had come.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
from bson import ObjectId

from gsal_fo.fo.dataset import reloading
from gsal_fo.fo.dataset.fields import LABEL_SOURCE

COLLECTION = "gsal_prepared_{}"
CHUNK = 2000  # samples per insert: about 10 MB of boxes


@dataclass
class Change:
    """What becomes of one sample.

    ``set``: top-level field -> value as MongoDB holds it. ``fill``: label field -> Detections as MongoDB holds them,
    only where the field is still None then, or, if these have boxes, holds an empty answer that ingest itself has
    written. ``tags``, ``untags``: added and removed. ``numbers``: for each of its ``gsal_proposals``, by position, what
    changes in it; left out where a person has deleted some, since the rest cannot be told apart.
    """

    set: dict[str, Any] = field(default_factory=dict)
    fill: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    untags: list[str] = field(default_factory=list)
    numbers: list[dict[str, Any]] | None = None

    def with_(self, other: "Change") -> "Change":
        """Both, the other's values before these."""
        return Change(
            {**self.set, **other.set},
            {**self.fill, **other.fill},
            self.tags + other.tags,
            self.untags + other.untags,
            self.numbers if other.numbers is None else other.numbers,
        )

    def document(self, sample_id: str) -> dict[str, Any]:
        """As it lies in the collection."""
        fill = {k: v for name, value in self.fill.items() for k, v in _nested(name, value).items()}
        parts = {"set": self.set, "fill": fill, "tags": self.tags, "untags": self.untags, "numbers": self.numbers}
        return {"_id": ObjectId(sample_id), **{name: value for name, value in parts.items() if value}}


def add(name: str, changes: Iterable[tuple[str, Change]]) -> Iterator[int]:
    """Prepare changes, each of another sample, under a name; yields how many of them are there."""
    chunk: list[dict[str, Any]] = []
    done = 0
    for sample_id, change in changes:
        chunk.append(change.document(sample_id))
        if len(chunk) == CHUNK:
            done += _insert(name, chunk)
            yield done
            chunk = []
    if chunk:
        yield done + _insert(name, chunk)


def merge(dataset: fo.Dataset, name: str, *, fill: Sequence[str] = ()) -> None:
    """Take the prepared changes over into the samples; one that is gone meanwhile is passed over.

    ``fill``: the fields that some change fills. As every write of FiftyOne's own does, this sets ``last_modified_at``
    and reloads sample objects that the caller holds.
    """
    into = {
        "into": dataset._sample_collection_name,
        "on": "_id",
        "whenMatched": _pipeline(fill),
        "whenNotMatched": "discard",
    }
    values = foo.get_db_conn()[COLLECTION.format(name)]
    values.aggregate([{"$merge": into}])
    if here := reloading.in_memory(dataset):
        reloading.samples(dataset, only=values.distinct("_id", {"_id": {"$in": here}}))


def drop(name: str) -> None:
    """Remove what was prepared under this name."""
    foo.get_db_conn().drop_collection(COLLECTION.format(name))


def combined(changes: Iterable[tuple[str, Change]], more: Mapping[str, Change]) -> Iterator[tuple[str, Change]]:
    """The changes with ``more`` of some samples, whose values go before."""
    left = dict(more)
    for sample_id, change in changes:
        other = left.pop(sample_id, None)
        yield sample_id, change if other is None else change.with_(other)
    yield from left.items()


def _insert(name: str, chunk: list[dict[str, Any]]) -> int:
    foo.get_db_conn()[COLLECTION.format(name)].insert_many(chunk, ordered=False)
    return len(chunk)


def _pipeline(fill: Sequence[str]) -> list[dict[str, Any]]:
    """What the server does with a sample and its change, which it calls ``$$new``."""
    had, add, remove = (
        {"$ifNull": ["$tags", []]},
        {"$ifNull": ["$$new.tags", []]},
        {"$ifNull": ["$$new.untags", []]},
    )
    kept = {"$filter": {"input": had, "cond": {"$not": {"$in": ["$$this", remove]}}}}
    added = {"$filter": {"input": add, "cond": {"$not": {"$in": ["$$this", had]}}}}
    named = {"$gt": [{"$size": {"$concatArrays": [add, remove]}}, 0]}
    boxes = {"$ifNull": ["$gsal_proposals.detections", []]}
    numbers = {"$ifNull": ["$$new.numbers", []]}
    renewed = {
        "$map": {
            "input": {"$range": [0, {"$size": boxes}]},
            "as": "k",
            "in": {"$mergeObjects": [{"$arrayElemAt": [boxes, "$$k"]}, {"$arrayElemAt": [numbers, "$$k"]}]},
        }
    }
    fits = {"$and": [{"$gt": [{"$size": numbers}, 0]}, {"$eq": [{"$size": numbers}, {"$size": boxes}]}]}
    whole = {"$mergeObjects": ["$gsal_proposals", {"detections": renewed}]}
    return [
        {"$set": {"tags": {"$cond": [named, {"$concatArrays": [kept, added]}, "$tags"]}}},
        {"$set": {"gsal_proposals": {"$cond": [fits, whole, "$gsal_proposals"]}}},
        *({"$set": {name: _filled(name)}} for name in fill),
        {"$replaceWith": {"$mergeObjects": ["$$ROOT", "$$new.set", {"last_modified_at": "$$NOW"}]}},
    ]


def _filled(name: str) -> dict[str, Any]:
    """The value of a label field after a change that fills it."""
    here, new = f"${name}", f"$$new.fill.{name}"
    boxes = {"$size": {"$ifNull": [f"{new}.detections", []]}}
    before = {"$size": {"$ifNull": [f"{here}.detections", []]}}
    unlabeled = {"$eq": [{"$ifNull": [here, None]}, None]}
    emptied = [{"$gt": [boxes, 0]}, {"$eq": [before, 0]}, {"$eq": [f"{here}.{LABEL_SOURCE}.boxes", 0]}]
    return {"$cond": [{"$or": [unlabeled, {"$and": emptied}]}, {"$ifNull": [new, here]}, here]}


def _nested(name: str, value: Any) -> dict[str, Any]:
    """A field in an embedded document, by its dotted name."""
    first, _, rest = name.partition(".")
    return {first: _nested(rest, value) if rest else value}
