"""Counting labels: the coverage of a round is what the label field holds now, never a running total."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import fiftyone as fo
import numpy as np

from gsal_fo import boxes
from gsal_fo.acquisition.ranking import PoolTable
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.fo.dataset import pool
from gsal_fo.run_folder import shards

OVERLAP = 0.3  # IoU from which a proposal and a labeled box are taken for the same thing


def count(
    dataset: fo.Dataset,
    ids: Sequence[str],
    label_field: str,
    graph: ConceptGraph,
    run: Path,
    table_of: Callable[[], PoolTable],
) -> tuple[dict[str, int], list[str]]:
    """Labeled instances per fine node over the images ``ids``, and notes about labels that the graph lacks.

    A label outside the graph counts under the concept that the run assigned to its looks: to its crop, where its image
    was labeled when the run was made, else to the proposal that overlaps it most. What cannot be counted is named.
    """
    images = pool.images(dataset, ids, label_field)
    labels = images.labels or []
    counts = Counter(pool.label_counts(labels))
    outside = {name: n for name, n in sorted(counts.items()) if name not in graph.fine}
    if not outside:
        return dict(counts), []
    table = table_of()  # a large pool takes seconds to read, and known labels need none of it
    facts = run / "assigned.json"
    assigned = shards.run_facts(run, facts.name).get("unknown", {}) if facts.exists() else {}
    row_of = {i: row for row, i in enumerate(table.ids)}
    found: dict[str, Counter[str]] = {name: Counter() for name in outside}
    at_scoring: Counter[str] = Counter()
    for sample_id, names, drawn in zip(images.ids, labels, images.boxes or [], strict=True):
        strange = [k for k, name in enumerate(names) if name in outside]
        if not strange:
            continue
        if sample_id not in row_of:  # labeled when the run was made: the worker has looked at its crops
            at_scoring.update(names[k] for k in strange)
            continue
        mine = np.flatnonzero(table.proposal_image == row_of[sample_id])
        overlap = boxes.iou(np.array([drawn[k] for k in strange]), table.boxes[mine])
        for k, row in zip(strange, overlap, strict=True):
            if len(row) and row.max() >= OVERLAP and (fine := int(table.fine[mine[row.argmax()]])) >= 0:
                found[names[k]][graph.fine[fine]] += 1
    for name, then in assigned.items():
        total = sum(then.values())
        if name in at_scoring and total:
            share = min(1.0, at_scoring[name] / total)  # some may have been taken back since
            found[name].update({fine: round(n * share) for fine, n in then.items()})
    notes = []
    for name, n in outside.items():
        del counts[name]
        counts.update(found[name])
        how = ", ".join(f"{fine} {k}" for fine, k in sorted(found[name].items()) if k) or "nothing"
        boxes_of = "1 box" if n == 1 else f"{n} boxes"
        notes.append(
            f'label "{name}" ({boxes_of}) is not in concept graph "{graph.name}": counted by its looks as {how}'
        )
    return dict(sorted(counts.items())), notes
