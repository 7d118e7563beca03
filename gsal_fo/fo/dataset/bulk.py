"""Bulk reads and writes, past FiftyOne's objects.

``set_values`` makes one pass over the collection per field and takes label objects; a scoring has twelve fields and a
hundred thousand boxes. ``values("id")`` makes two objects of each sample.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
from bson import ObjectId
from pymongo import UpdateOne

IDS_AT_ONCE = 200_000  # at 37 bytes each; a document of MongoDB ends at 16 MiB


def ids(dataset: fo.Dataset) -> set[str]:
    """Ids of all samples, from the index on them; joined by the server, so that no object is made of each."""
    found: set[str] = set()
    after: dict[str, Any] = {}
    while True:
        steps = [
            {"$match": after},
            {"$sort": {"_id": 1}},
            {"$limit": IDS_AT_ONCE},
            {"$project": {"_id": 1}},
            {"$group": {"_id": None, "last": {"$last": "$_id"}, "ids": {"$push": {"$toString": "$_id"}}}},
        ]
        joined = next(iter(dataset._sample_collection.aggregate(steps, hint="_id_")), None)
        if joined is None:
            return found
        found.update(joined["ids"])
        after = {"_id": {"$gt": joined["last"]}}


def update(
    dataset: fo.Dataset, values: Mapping[str, Mapping[str, Any]], *, where: Mapping[str, Any] | None = None
) -> None:
    """Set fields of samples: sample id -> field path -> value as MongoDB holds it.

    The schema must be declared. As every write of FiftyOne's own does, this sets ``last_modified_at`` and reloads
    sample objects that the caller holds; an id that is gone is passed over, and so is one that does not match ``where``
    (a query of MongoDB's, asked in the moment of writing) any more.
    """
    now = datetime.now(UTC)
    updates = [
        UpdateOne({"_id": ObjectId(i), **(where or {})}, {"$set": {**fields, "last_modified_at": now}})
        for i, fields in values.items()
        if fields
    ]
    if updates:
        dataset._bulk_write(updates, ids=list(values))


def matching(dataset: fo.Dataset, ids: Iterable[str], where: Mapping[str, Any]) -> set[str]:
    """Which of the samples match a query of MongoDB's now."""
    wanted, found = list(ids), set[str]()
    for start in range(0, len(wanted), IDS_AT_ONCE):
        some = [ObjectId(i) for i in wanted[start : start + IDS_AT_ONCE]]
        docs = dataset._sample_collection.find({"_id": {"$in": some}, **where}, {"_id": 1})
        found.update(str(d["_id"]) for d in docs)
    return found
