"""Slices of a grouped dataset.

FiftyOne's methods of a grouped dataset see its active slice alone, and which one that is changes with a click in the
App. So nothing of ours reads a grouped dataset itself: ``flat`` shows the images of all its slices, or of some,
whichever is active, and no slice that a person has chosen is changed.
"""

from collections.abc import Iterable
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom


def is_grouped(dataset: fo.Dataset) -> bool:
    """Whether a dataset consists of groups, each with a sample per slice."""
    return bool(dataset.media_type == fom.GROUP)


def of_images(dataset: fo.Dataset) -> list[str]:
    """The slices of a grouped dataset that hold images, sorted."""
    return sorted(name for name, kind in dataset.group_media_types.items() if kind == fom.IMAGE)


def flat(dataset: fo.Dataset, names: Iterable[str] | None = None) -> fo.Dataset | fo.DatasetView:
    """All images of a dataset; of a grouped one, of its slices ``names`` (None: all that hold images).

    Raises:
        ValueError: the dataset has lost one of the slices.
    """
    if not is_grouped(dataset):
        return dataset
    if names is None:
        return dataset.select_group_slices(media_type=fom.IMAGE)
    return dataset.select_group_slices(sorted(_known(dataset, names)))


def only(samples: Any, name: str) -> fo.DatasetView:
    """The images of one slice, of a grouped dataset or of a view of it, grouped or flat.

    Raises:
        ValueError: there is no such slice, or it holds no images.
    """
    dataset = samples._root_dataset
    if not is_grouped(dataset):
        raise ValueError(f'dataset "{dataset.name}" is not grouped, so it has no slice "{name}"; leave the slice out')
    (name,) = _known(dataset, [name])
    if samples.media_type == fom.GROUP:
        return samples.select_group_slices(name)
    return samples.match({f"{dataset.group_field}.name": name})


def of(samples: Any) -> list[str] | None:
    """The slices that the images of a flat view are in, sorted; None where the dataset is not grouped."""
    dataset = samples._root_dataset
    if not is_grouped(dataset):
        return None
    if samples.media_type == fom.GROUP:
        return of_images(dataset)
    return sorted(samples.distinct(f"{dataset.group_field}.name"))


def hint(dataset: fo.Dataset) -> str:
    """What to do where a grouped dataset is given and one slice is needed."""
    names = of_images(dataset)
    if not names:
        kinds = ", ".join(f"{name}: {kind}" for name, kind in sorted(dataset.group_media_types.items()))
        return f"none of its slices holds images ({kinds})"
    return (
        f'choose a slice of images ({", ".join(names)}) with select_group_slices("{names[0]}"), or with '
        f"--slice {names[0]} on the command line"
    )


def _known(dataset: fo.Dataset, names: Iterable[str]) -> list[str]:
    wanted, there = list(names), of_images(dataset)
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(
            f'dataset "{dataset.name}" has no slice of images "{missing[0]}"; it has {", ".join(there) or "none"}'
        )
    return wanted
