"""Bulk reads and writes, past FiftyOne's objects.

``set_values`` makes one pass over the collection per field and takes label objects; a scoring has twelve fields and a
hundred thousand boxes. ``values("id")`` makes two objects of each sample.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from pymongo import UpdateOne

ID_ALONE = np.dtype([("head", "V9"), ("id", "V12"), ("end", "V1")])  # {"_id": ObjectId}: length, type and name; the id


def ids(dataset: fo.Dataset) -> set[str]:
    """Ids of all samples, from the index on them and without an object for each."""
    found: set[str] = set()
    for batch in dataset._sample_collection.find_raw_batches({}, {"_id": 1}).hint("_id_"):
        text = np.frombuffer(batch, ID_ALONE)["id"].tobytes().hex()
        found.update(text[i : i + 24] for i in range(0, len(text), 24))
    return found


def update(dataset: fo.Dataset, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Set fields of samples: sample id -> field path -> value as MongoDB holds it.

    The schema must be declared. As every write of FiftyOne's own does, this sets ``last_modified_at`` and reloads
    sample objects that the caller holds; an id that is gone is passed over.
    """
    now = datetime.now(UTC)
    updates = [
        UpdateOne({"_id": ObjectId(i)}, {"$set": {**fields, "last_modified_at": now}})
        for i, fields in values.items()
        if fields
    ]
    if updates:
        dataset._bulk_write(updates, ids=list(values))
