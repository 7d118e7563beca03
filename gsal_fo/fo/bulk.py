"""Bulk writes: all fields of a sample in one update, made of documents as FiftyOne stores them.

``set_values`` makes one pass over the collection per field and takes label objects; a scoring has twelve fields and a
hundred thousand boxes.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
from bson import ObjectId
from pymongo import UpdateOne


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
