"""Views that change what is inside their images, such as ``filter_labels``: honoured or refused, never ignored.

Most stages choose or order images, and everything else here works on the dataset by the ids of those. A stage that
filters, edits or maps labels shows other boxes than the dataset holds: whoever reads such a field asks here first.
"""

from typing import Any

import fiftyone as fo
import fiftyone.core.stages as fos

# Stages that choose or order whole images, and those that choose the fields to be seen: no box is another in them.
WHOLE = (
    fos.Exclude,
    fos.ExcludeBy,
    fos.ExcludeGroups,
    fos.ExcludeGroupSlices,
    fos.Exists,
    fos.Flatten,
    fos.GeoNear,
    fos.GeoWithin,
    fos.Limit,
    fos.Match,
    fos.MatchLabels,
    fos.MatchTags,
    fos.Select,
    fos.SelectBy,
    fos.SelectGroups,
    fos.SelectGroupSlices,
    fos.Shuffle,
    fos.Skip,
    fos.SortBy,
    fos.SortBySimilarity,
    fos.Take,
)
SHOWN = (fos.SelectFields, fos.ExcludeFields)
COMPARED = ("_id", "label", "bounding_box", "confidence")


def ids_of(samples: Any) -> list[str]:
    """Ids of the images of a dataset or view in its order, each once: ``concat`` may show one twice."""
    return list(dict.fromkeys(samples.values("id")))


def all_fields(samples: Any) -> Any:
    """The same view without its choice of fields: what a view does not show may be read all the same."""
    if isinstance(samples, fo.Dataset) or not any(isinstance(s, SHOWN) for s in samples._stages):
        return samples
    view = samples._dataset.view()
    for stage in samples._stages:
        view = view if isinstance(stage, SHOWN) else view.add_stage(stage)
    return view


def changes(samples: Any, name: str) -> bool:
    """Whether a view shows other labels in the Detections field ``name`` than the dataset holds for its images."""
    if isinstance(samples, fo.Dataset) or all(isinstance(s, (*WHOLE, *SHOWN)) for s in samples._stages):
        return False
    view = all_fields(samples)
    if not view.has_sample_field(name):
        return False
    columns = [fo.Values("id"), *(fo.Values(f"{name}.detections.{a}", _raw=True) for a in COMPARED)]
    there = {row[0]: _text(row) for row in zip(*_source(samples).aggregate(columns), strict=True)}
    return any(there.get(row[0], _text(row)) != _text(row) for row in zip(*view.aggregate(columns), strict=True))


def _text(row: Any) -> str:
    return repr(row)  # NaN is not equal to itself


def source_of(samples: Any, name: str) -> Any:
    """Where the labels of a Detections field are to be read: in the view, where that shows others than the dataset."""
    return all_fields(samples) if changes(samples, name) else samples._root_dataset


def refuse(samples: Any, name: str, *, what: str, why: str) -> None:
    """Raise ValueError where a view changes the labels in a field.

    Args:
        samples: dataset or view.
        name: the Detections field.
        what: what the field is to the reader, such as "label field".
        why: what would come of it, as a clause.
    """
    if changes(samples, name):
        raise ValueError(
            f'the view of "{samples._root_dataset.name}" filters or changes the labels in its {what} "{name}": {why}; '
            f"choose whole images, for instance with match_labels, or clone the view into a dataset of its own"
        )


def _source(samples: Any) -> Any:
    """The images of a view as the dataset holds them."""
    ids, root = ids_of(samples), samples._root_dataset
    if root.media_type == "group":
        root = root.select_group_slices(_allow_mixed=True)
    return root.select(ids)
