"""Concept graphs from a dataset: of its labels, and of what its pool shows beyond them."""

from typing import Any

from gsal_fo import graph_file
from gsal_fo.fo import pool


def label_names(samples: Any, label_field: str = "ground_truth") -> list[str]:
    """The label names in a Detections field, sorted; raises ValueError where there is no such field or label."""
    dataset = pool.check_samples(samples)
    if not pool.check_detections(dataset, label_field, what="label field"):
        raise ValueError(f'dataset "{dataset.name}" has no field "{label_field}"; name a Detections field')
    names = [n for n in samples.distinct(f"{label_field}.detections.label") if n is not None]
    return graph_file.checked_labels(names, f'field "{label_field}" of dataset "{dataset.name}"')
