"""The steps that commands are made of, once all is decided: each can be cut short and done again, with the same result.

A step is a plain dictionary: ``do``, the verb, and what the verb needs. So a journal can hold it, and another process,
or another user, can do it. What a step finds out for later ones goes into the facts, which the journal holds, too.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo

from gsal_fo.fo import ledgers, runs, states
from gsal_fo.fo.app import sidebar
from gsal_fo.fo.dataset import bulk, fields, prepared, records

Step = dict[str, Any]
Facts = dict[str, Any]


def do(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    """Do one step.

    Raises:
        ValueError: it cannot be done, or this version does not know it.
    """
    try:
        verb = VERBS[step["do"]]
    except KeyError:
        raise ValueError(f'this version of gsal-fo does not know the step "{step.get("do")}"; update it') from None
    verb(dataset, step, facts)


def note_in_ledger(score_run: str, entry: Mapping[str, Any], operation: str) -> Step:
    """Append an entry to the ledger of a scoring, once for the operation; its hash is the fact ``ledger``."""
    return {"do": "ledger", "score_run": score_run, "entry": dict(entry), "operation": operation}


def declare(owner: str) -> Step:
    """Declare the fields of one kind of run and show them in the sidebar."""
    return {"do": "declare", "owner": owner}


def record(made: Mapping[str, Any], *facts: str) -> Step:
    """Write a run record that `records.new` made; ``facts`` of earlier steps become part of its config."""
    return {"do": "record", "record": dict(made), "facts": list(facts)}


def amend(key: str, **values: Any) -> Step:
    """Change values of a run record's config."""
    return {"do": "amend", "key": key, "values": values}


def forget(key: str) -> Step:
    """Remove a run record."""
    return {"do": "forget", "key": key}


def forget_lost(document: str) -> Step:
    """Remove a run document that nothing refers to."""
    return {"do": "forget_lost", "id": document}


def merge(name: str, fill: tuple[str, ...] = ()) -> Step:
    """Take prepared values over into the samples."""
    return {"do": "merge", "prepared": name, "fill": list(fill)}


def written_by(key: str) -> Step:
    """Note whose values the score fields hold."""
    return {"do": "written_by", "key": key}


def remove_fields(names: tuple[str, ...]) -> Step:
    """Remove fields of ours, with their indexes."""
    return {"do": "remove_fields", "names": list(names)}


def have_labels(name: str) -> Step:
    """Make a label field, where the dataset has none of that name."""
    return {"do": "have_labels", "field": name}


def labels_in_ledger(name: str, ids: Sequence[str], ingest: str, operation: str, about: Mapping[str, Any]) -> Step:
    """Append to the ledgers that an ingest's labels were taken, those of its images ``ids`` that it has written."""
    what = {"field": name, "ids": list(ids), "ingest": ingest, "operation": operation, "about": dict(about)}
    return {"do": "labels_in_ledger", **what}


def sent_in_ledger(ids: Sequence[str], operation: str, about: Mapping[str, Any]) -> Step:
    """Append to the ledgers that images were sent to labelers."""
    return {"do": "sent_in_ledger", "ids": list(ids), "operation": operation, "about": dict(about)}


def sent(ids: Sequence[str]) -> Step:
    """Note that images were handed to labelers now."""
    return {"do": "sent", "ids": list(ids), "time": datetime.now(UTC).replace(microsecond=0).isoformat()}


def follow_status() -> Step:
    """Derive where each image of a round is."""
    return {"do": "follow_status"}


def follow_rounds() -> Step:
    """Point our saved views at the rounds that are there."""
    return {"do": "follow_rounds"}


def _ledger(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    facts["ledger"] = ledgers.record(dataset, step["score_run"], step["entry"], operation=step["operation"])


def _declare(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    fields.add_schema(dataset, step["owner"])
    sidebar.follow(dataset)


def _record(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    known = {name: facts[name] for name in step["facts"]}
    records.write(dataset, {**step["record"], "config": {**step["record"]["config"], **known}})


def _amend(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    records.amend(dataset, step["key"], **step["values"])


def _forget(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    records.remove(dataset, step["key"])


def _forget_lost(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    records.remove_lost(dataset, step["id"])


def _merge(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    prepared.merge(dataset, step["prepared"], fill=step["fill"])


def _written_by(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    runs.mark_writer(dataset, step["key"])


def _remove_fields(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    fields.delete(dataset, tuple(step["names"]))


def _have_labels(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    if not dataset.has_sample_field(step["field"]):
        dataset.add_sample_field(step["field"], fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)


def _labels_in_ledger(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    taken = bulk.matching(dataset, step["ids"], {f"{step['field']}.{fields.LABEL_SOURCE}.ingest": step["ingest"]})
    ids = [i for i in step["ids"] if i in taken]
    facts["notes"] = ledgers.labels_taken(dataset, ids, operation=step["operation"], **step["about"])


def _sent_in_ledger(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    facts["notes"] = ledgers.sent(dataset, step["ids"], operation=step["operation"], **step["about"])


def _sent(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    states.sent(dataset, step["ids"], datetime.fromisoformat(step["time"]))


def _follow_status(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    states.refresh(dataset)


def _follow_rounds(dataset: fo.Dataset, step: Mapping[str, Any], facts: Facts) -> None:
    from gsal_fo.fo.app import views  # it knows rounds, and rounds know steps

    views.follow_rounds(dataset)


VERBS: dict[str, Callable[[fo.Dataset, Mapping[str, Any], Facts], None]] = {
    "ledger": _ledger,
    "declare": _declare,
    "record": _record,
    "amend": _amend,
    "forget": _forget,
    "forget_lost": _forget_lost,
    "merge": _merge,
    "written_by": _written_by,
    "remove_fields": _remove_fields,
    "have_labels": _have_labels,
    "labels_in_ledger": _labels_in_ledger,
    "sent": _sent,
    "sent_in_ledger": _sent_in_ledger,
    "follow_status": _follow_status,
    "follow_rounds": _follow_rounds,
}
