"""Run records as FiftyOne stores them, written and removed so that each step can be cut short and given again.

FiftyOne's own ``register_run`` makes a document, a reference to it and a results file under ids that nobody knows
before, and ``delete_run`` takes the reference away last: killed in between, they leave a record without results, or a
reference to nothing. Here the ids are decided first, and a reference exists only while all that it needs does.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.constants as foc
import fiftyone.core.odm as foo
import gridfs
from bson import ObjectId, json_util

RUNS = "runs"  # FiftyOne's collection of run documents; those of a dataset are referred to in its field of that name


def new(
    dataset: fo.Dataset, key: str, config: Any, results: Any = None, *, time: datetime | None = None
) -> dict[str, Any]:
    """A record as plain values, with the ids under which it will lie: those of the run of that key, where there is one.

    Nothing is written. ``config``, ``results``: FiftyOne's objects; ``time``: UTC, None is now.
    """
    referred = _reference(dataset, key)
    return {
        "key": key,
        "config": config.serialize(),
        "results": results.serialize() if results is not None else None,
        "id": str(referred or ObjectId()),
        "results_id": str(ObjectId()),
        "time": (time or datetime.now(UTC)).isoformat(),
    }


def write(dataset: fo.Dataset, record: Mapping[str, Any]) -> None:
    """Write what `new` made; again, where it was written before.

    Raises:
        ValueError: the dataset has another run of that key.
    """
    db = foo.get_db_conn()
    results_id = None
    if record["results"] is not None:
        results_id = ObjectId(record["results_id"])
        files = gridfs.GridFS(db)
        files.delete(results_id)  # pieces of a write that was cut short would be in the way
        files.put(json_util.dumps(record["results"]).encode(), _id=results_id, content_type="application/json")
    document = {
        "_dataset_id": dataset._doc.id,
        "key": record["key"],
        "version": foc.VERSION,
        "timestamp": datetime.fromisoformat(record["time"]),
        "config": record["config"],
        "results_meta": {},
    }
    if results_id is not None:
        document["results"] = results_id
    found = ObjectId(record["id"])
    dataset._run_cache.pop(record["key"], None)
    db[RUNS].replace_one({"_id": found}, document, upsert=True)
    place = f"runs.{record['key']}"
    free = {"_id": dataset._doc.id, place: {"$in": [None, found]}}
    if not db.datasets.update_one(free, {"$set": {place: found}}).matched_count:
        raise ValueError(f'dataset "{dataset.name}" has another run "{record["key"]}"; give the command again')
    dataset._doc.reload("runs")


def amend(dataset: fo.Dataset, key: str, **values: Any) -> None:
    """Change values of a run's config; nothing where the run is gone."""
    changes = {f"config.{name}": value for name, value in values.items()}
    foo.get_db_conn()[RUNS].update_one({"_id": _reference(dataset, key)}, {"$set": changes})
    dataset._doc.reload("runs")


def remove(dataset: fo.Dataset, key: str) -> None:
    """Remove a run's record and results, not what it wrote; nothing where there is none."""
    db = foo.get_db_conn()
    referred = _reference(dataset, key)
    db.datasets.update_one({"_id": dataset._doc.id}, {"$unset": {f"runs.{key}": ""}})
    # By dataset and key, too: a removal that was cut short has left no reference to the rest. Brain and annotation runs
    # lie in the same collection and may have that key.
    ours = {"_dataset_id": dataset._doc.id, "key": key, "config.type": "run"}
    for document in db[RUNS].find({"$or": [{"_id": referred}, ours]}):
        _delete(document)
    dataset._run_cache.pop(key, None)
    dataset._doc.reload("runs")


def broken(dataset: fo.Dataset) -> tuple[list[str], list[tuple[str, str]]]:
    """Keys that refer to no document, and (key, id) of documents of ours that nothing refers to."""
    db = foo.get_db_conn()
    found = db.datasets.find_one({"_id": dataset._doc.id}, {"runs": 1}) or {}
    references = {key: ObjectId(value) for key, value in found.get("runs", {}).items()}
    there = set(db[RUNS].distinct("_id", {"_id": {"$in": list(references.values())}}))
    ours = {"_dataset_id": dataset._doc.id, "config.cls": {"$regex": r"^gsal_fo\."}}
    lost = [(d["key"], str(d["_id"])) for d in db[RUNS].find(ours) if d["_id"] not in references.values()]
    return [key for key, value in references.items() if value not in there], lost


def remove_lost(dataset: fo.Dataset, document_id: str) -> None:
    """Remove a document of `broken`, where still nothing refers to it."""
    db = foo.get_db_conn()
    if (document := db[RUNS].find_one({"_id": ObjectId(document_id)})) is None:
        return
    if _reference(dataset, document["key"]) != document["_id"]:
        _delete(document)


def _delete(document: Mapping[str, Any]) -> None:
    db = foo.get_db_conn()
    if document.get("results") is not None:
        gridfs.GridFS(db).delete(document["results"])
    db[RUNS].delete_one({"_id": document["_id"]})


def _reference(dataset: fo.Dataset, key: str) -> ObjectId | None:
    """The id under which the run of a key lies, as the database has it now."""
    found = foo.get_db_conn().datasets.find_one({"_id": dataset._doc.id}, {f"runs.{key}": 1}) or {}
    value = found.get("runs", {}).get(key)
    return ObjectId(value) if value is not None else None
