"""Concept graphs from a dataset: of its labels, and of what its pool shows beyond them."""

from pathlib import Path
from typing import Any

from gsal_fo.concepts.build import building
from gsal_fo.concepts.build import file as graph_file
from gsal_fo.fo import runs
from gsal_fo.fo.dataset import filtered, pool


def label_names(samples: Any, label_field: str = "ground_truth") -> list[str]:
    """The label names in a Detections field, sorted; raises ValueError where there is no such field or label."""
    dataset, samples = pool.check_images(samples)
    if not pool.check_detections(dataset, label_field, what="label field"):
        raise ValueError(f'dataset "{dataset.name}" has no field "{label_field}"; name a Detections field')
    view = filtered.all_fields(samples)  # a view that filters labels gives the names of those that it shows
    names = [n for n in view.distinct(f"{label_field}.detections.label") if n is not None]
    return graph_file.checked_labels(names, f'field "{label_field}" of dataset "{dataset.name}"')


def run_folder(samples: Any, run_key: str | None = None) -> Path:
    """The run folder of a scoring (None: the latest); raises ValueError where there is none."""
    record = runs.scoring_of(pool.check_images(samples)[1], run_key)
    if not hasattr(record.config, "run_dir"):
        raise ValueError(f'run "{run_key}" is no scoring; give the key of a scoring')
    return Path(record.config.run_dir)


def build_concepts(
    samples: Any, out: str | Path, *, label_field: str = "ground_truth", **settings: Any
) -> building.Built:
    """Draft a concept graph of a dataset's labels and write it to ``out`` (YAML); ``settings`` are those of
    `gsal_fo.graph_building.from_labels`.

    Raises:
        ValueError: field, labels, settings or file cannot be used; nothing was written.
    """
    return building.from_labels(label_names(samples, label_field), Path(out), **settings)


def propose_concepts(
    samples: Any, page: str | Path, *, run_key: str | None = None, **settings: Any
) -> building.Proposed:
    """Show what a scored pool holds beyond the graph, and add candidates on request; ``settings`` are those of
    `gsal_fo.graph_building.from_pool`.

    Raises:
        ValueError: no such scoring, or settings or files cannot be used.
    """
    return building.from_pool(run_folder(samples, run_key), Path(page), **settings)
