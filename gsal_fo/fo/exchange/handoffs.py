"""What was sent to labelers, kept for each hand-off: an answer is judged by what its own hand-off has sent.

The proposals of a dataset change with the next scoring, and ``gsal_prelabels`` with the next `annotate`. So each export
and each annotation run leaves a run record of its own, with the boxes that went along; a round that is cancelled leaves
them, since labels may still come back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo

from gsal_fo.fo import runs
from gsal_fo.fo.dataset import records
from gsal_fo.fo.exchange.comparing import Boxes

EXPORT, ANNOTATE = "export", "annotate"


@dataclass(frozen=True)
class Sent:
    """What went along with one image: ``boxes`` as (label, xywh_rel); ``size``: upright width and height in pixels,
    None where it is not known."""

    boxes: Boxes
    size: tuple[int, int] | None


def new(
    dataset: fo.Dataset, kind: str, name: str, sent: Mapping[str, Sent], *, complete: bool = True
) -> dict[str, Any]:
    """The record of what is handed over, for `records.write`, under the dataset's lock. ``name``: the annotation run's,
    or the export's folder; not ``complete``: a backend is still to receive it."""
    key = runs.next_key(dataset, runs.HANDOFF)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    config = runs.GSALHandoffRunConfig(kind=kind, name=name, time=time, images=len(sent), complete=complete)
    rows = [
        {"id": i, "size": s.size and list(s.size), "boxes": [[label, *box] for label, box in s.boxes]}
        for i, s in sent.items()
    ]
    return records.new(dataset, key, config, runs.GSALHandoffRunResults(dataset, config, key, sent=rows))


def incomplete(dataset: fo.Dataset, anno_key: str) -> list[str]:
    """Keys of the hand-offs to an annotation run of that name which were cut short."""
    mine = [key for key in runs.handoff_keys(dataset) if _is(dataset, key, ANNOTATE, anno_key)]
    return [key for key in mine if not getattr(dataset.get_run_info(key).config, "complete", True)]


def of_annotation(dataset: fo.Dataset, anno_key: str) -> dict[str, list[Sent]] | None:
    """Sample id -> what the annotation run of that name has sent; None where nothing is kept of it."""
    keys = [k for k in runs.handoff_keys(dataset) if _is(dataset, k, ANNOTATE, anno_key)]
    return {i: [sent] for i, sent in _load(dataset, keys[-1]).items()} if keys else None


def ever(dataset: fo.Dataset, ids: Iterable[str]) -> dict[str, list[Sent]]:
    """Sample id -> everything that any hand-off has sent with it: for labels of which nobody knows the hand-off."""
    out: dict[str, list[Sent]] = {i: [] for i in ids}
    for key in runs.handoff_keys(dataset):
        for i, sent in _load(dataset, key).items():
            if i in out:
                out[i].append(sent)
    return out


def _is(dataset: fo.Dataset, key: str, kind: str, name: str) -> bool:
    config = dataset.get_run_info(key).config
    return bool(config.kind == kind and config.name == name)


def _load(dataset: fo.Dataset, key: str) -> dict[str, Sent]:
    results = dataset.load_run_results(key, cache=False, load_view=False)
    rows: list[dict[str, Any]] = results.sent if results is not None else []  # cut short before they were written
    return {
        r["id"]: Sent([(label, box) for label, *box in r["boxes"]], tuple(r["size"]) if r["size"] else None)
        for r in rows
    }
