"""Taking over what other processes have written, and leaving what the caller has changed and not saved yet.

FiftyOne's own ``dataset.reload()`` drops such changes, of the dataset and of every sample object in memory, and fails
where one of those samples is gone.
"""

from collections.abc import Collection

import fiftyone as fo
import fiftyone.core.odm as foo
import fiftyone.core.sample as fos
from bson import ObjectId

REFERENCES = ("runs", "annotation_runs", "brain_methods", "saved_views", "workspaces")


def document(dataset: fo.Dataset) -> None:
    """Know the runs, views and fields that the dataset has in the database now.

    Raises:
        ValueError: the dataset is gone.
    """
    stored = foo.get_db_conn().datasets.find_one({"_id": dataset._doc.id}, {"sample_fields": 1, "name": 1})
    if stored is None:
        raise ValueError(f'dataset "{dataset.name}" is gone; somebody has deleted it')
    known = [field.to_mongo() for field in dataset._doc.sample_fields]
    if stored["name"] == dataset.name and _shapes(stored["sample_fields"]) == _shapes(known):
        dataset._doc.reload(*REFERENCES)
        return
    changed = {name.split(".")[0] for name in dataset._doc._get_changed_fields()} - {"sample_fields", *REFERENCES}
    unsaved = {name: dataset._doc[name] for name in changed}
    if stored["name"] != dataset.name:
        dataset._doc.name = stored["name"]  # renamed elsewhere: FiftyOne loads by name
    dataset._reload(hard=True)
    for name, value in unsaved.items():
        setattr(dataset._doc, name, value)
    samples(dataset, hard=True)


def samples(dataset: fo.Dataset, only: Collection[ObjectId] | None = None, *, hard: bool = False) -> None:
    """Give sample objects that the caller holds the values of now; ``only``: those of these ids; ``hard``: and the
    fields."""
    here = in_memory(dataset)
    wanted = here if only is None else [i for i in here if i in only]
    there = dataset._sample_collection.distinct("_id", {"_id": {"$in": wanted}}) if wanted else []
    fos.Sample._reload_docs(dataset._sample_collection_name, sample_ids=there, hard=hard)


def in_memory(dataset: fo.Dataset) -> list[ObjectId]:
    """Ids of the samples that somebody in this process holds as objects."""
    return [ObjectId(i) for i in list(fos.Sample._instances.get(dataset._sample_collection_name, ()))]


def _shapes(stored: list[dict]) -> list[tuple]:  # type: ignore[type-arg]
    """What of fields makes other code read them differently: names and types, nested ones too."""
    return [(f.get("name"), f.get("ftype"), f.get("subfield"), _shapes(f.get("fields") or [])) for f in stored]
