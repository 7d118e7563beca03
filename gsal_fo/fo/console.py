"""What the command line asks of FiftyOne itself; ``python -m gsal_fo.fo.console`` answers `gsal doctor` in JSON."""

import json
from typing import Any

import fiftyone as fo
from fiftyone.plugins import list_plugins

from gsal_fo.fo import runs
from gsal_fo.fo.dataset import pool, slices


def open_samples(name: str, view: str | None = None, slice: str | None = None) -> fo.Dataset | fo.DatasetView:
    """The dataset ``name``, or its saved view ``view``, or those of its images that are in the group slice ``slice``.

    Raises:
        ValueError: there is no such dataset, view or slice; the sentence names those that exist.
    """
    if not fo.dataset_exists(name):
        known = fo.list_datasets()
        there = f"there are {', '.join(known[:10])}" if known else "there is none yet; `gsal demo` makes one"
        raise ValueError(f'FiftyOne has no dataset "{name}"; {there}')
    dataset = fo.load_dataset(name)
    if view is not None and not dataset.has_saved_view(view):
        known = ", ".join(dataset.list_saved_views()) or "none"
        raise ValueError(f'dataset "{name}" has no saved view "{view}"; it has {known}')
    samples = dataset if view is None else dataset.load_saved_view(view)
    return samples if slice is None else slices.only(samples, slice)


def batch_of(samples: fo.Dataset | fo.DatasetView, tag: str | None) -> tuple[str, fo.DatasetView]:
    """The images tagged ``tag`` (None: the latest round's tag), and the tag; raises ValueError where there are none."""
    _, samples = pool.check_images(samples)
    rounds = sorted(t for t in samples.distinct("tags") if t.startswith("gsal_round_"))
    if tag is None and not rounds:
        raise ValueError("no image is selected yet; run `gsal select` first")
    tag = tag or rounds[-1]
    batch = samples.match_tags(tag)
    if not len(batch):
        raise ValueError(f'no image has the tag "{tag}"; the rounds are {", ".join(rounds) or "none"}')
    return tag, batch


def backend_of(name: str | None) -> str:
    """An annotation backend that FiftyOne is configured with (None: its default); raises ValueError for others."""
    config = fo.annotation_config
    name = name or config.default_backend
    if name not in config.backends:
        raise ValueError(f'FiftyOne has no annotation backend "{name}"; it has {", ".join(sorted(config.backends))}')
    return str(name)


def selection(samples: fo.Dataset | fo.DatasetView) -> tuple[str, str, list[dict[str, Any]]]:
    """The latest selection: its run key, its tag, and its picks, best first."""
    dataset = dataset_of(samples)
    key = runs.select_keys(dataset)[-1]
    return key, dataset.get_run_info(key).config.tag, runs.picks(dataset, key)


def dataset_of(samples: fo.Dataset | fo.DatasetView) -> fo.Dataset:
    """The dataset behind a view."""
    return samples._root_dataset


if __name__ == "__main__":
    found = [p.directory for p in list_plugins(builtin=False) if p.name == "@gsal/active-learning"]
    answer = {"version": fo.__version__, "datasets": len(fo.list_datasets()), "plugin": found[0] if found else None}
    print(json.dumps(answer))
