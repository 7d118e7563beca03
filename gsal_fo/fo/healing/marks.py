"""Rounds whose record, tag, numbers and ledger do not fit each other.

A person may take the tag of an image away, or give it to another: a round of which some images are tagged is as
somebody wanted it. What a killed command leaves is all or nothing: a record without any mark, numbers without any tag.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.audit import entries
from gsal_fo.audit import rounds as history
from gsal_fo.fo import cancelling, journal, ledgers, progress, runs, states, steps
from gsal_fo.fo.dataset import bulk, fields, slices
from gsal_fo.fo.dataset.prepared import Change
from gsal_fo.fo.healing.finding import Cure, Finding, Findings


def findings(dataset: fo.Dataset) -> Findings:
    """What is wrong with the dataset's rounds."""
    numbered = _numbered(dataset)
    known: set[int] = set()
    for key in runs.select_keys(dataset):
        config = runs.load(dataset, key).config
        known.add(config.round)
        yield from _of_record(dataset, key, config, numbered)
    for number in sorted(set(numbered) - known):
        tag, n = fields.ROUND_TAG.format(number), len(numbered[number])
        detail = f"{_images(n)} marked as of round {number}, and no record knows that round"
        cure = f"the marks and the tag {tag} are removed, and the images are in the pool again"
        yield Finding("round without record", detail, cure, act=_clear(tag, numbered[number]))
    for key in runs.score_keys(dataset):
        yield from _of_ledger(dataset, key)


def _of_record(dataset: fo.Dataset, key: str, config: Any, numbered: Mapping[int, set[str]]) -> Findings:
    number, tag = config.round, config.tag
    mine, tagged = numbered.get(number, set()), set(slices.flat(dataset).match_tags(tag).values("id"))
    if _is_cancelled(dataset, config):
        detail = f"the ledger says that round {number} was cancelled, and its record {key} is still there"
        yield Finding("half cancelled round", detail, "the cancelling is finished", act=_cancel(key))
    elif not mine and not tagged:
        picks = {str(p["id"]) for p in runs.picks(dataset, key)} & bulk.ids(dataset)
        elsewhere = picks & set[str]().union(*numbered.values())
        if picks and not elsewhere:
            detail = f"round {number} is recorded as {key}, and none of its {len(picks)} images is marked"
            yield Finding("round without marks", detail, f"they get {tag}", act=_mark(number, tag, picks))
        elif picks or not runs.picks(dataset, key):
            why = f"{len(elsewhere)} of its images are in another round by now" if picks else "what it picked is lost"
            detail = f"round {number} is recorded as {key} and has no images; {why}"
            yield Finding("phantom round", detail, "it is cancelled", act=_cancel(key))
    elif mine and not tagged:
        detail = (
            f"{_images(len(mine))} of round {number}, and none has its tag: they can be neither exported nor picked"
        )
        yield Finding("round without tag", detail, f"they get {tag}", act=_mark(number, tag, mine))


def _of_ledger(dataset: fo.Dataset, key: str) -> Findings:
    """Selections that were written into the ledger and never into the dataset."""
    recorded = set(ledgers.recorded(dataset).values())
    if not Path(runs.load(dataset, key).config.run_dir).is_dir():
        return
    for number, found in sorted(history.replay(ledgers.past(dataset, key)).live.items()):
        if found.selection not in recorded:
            detail = f"the ledger of {key} holds a selection of round {number} that the dataset has no record of"
            cure = "the ledger gets an entry that says it was taken back"
            yield Finding("selection without round", detail, cure, act=_take_back(key, number, found))


def _numbered(dataset: fo.Dataset) -> dict[int, set[str]]:
    """Round -> ids of the images with its number."""
    out: dict[int, set[str]] = defaultdict(set)
    if dataset.has_sample_field("gsal_round"):
        for i, number in zip(*slices.flat(dataset).exists("gsal_round").values(["id", "gsal_round"]), strict=True):
            out[number].add(i)
    return dict(out)


def _is_cancelled(dataset: fo.Dataset, config: Any) -> bool:
    mark = getattr(config, "ledger", None)
    return bool(
        mark and config.score_run in runs.score_keys(dataset) and ledgers.is_cancelled(dataset, config.score_run, mark)
    )


def _images(n: int) -> str:
    return "1 image is" if n == 1 else f"{n} images are"


def _cancel(key: str) -> Cure:
    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        cancelling.take_back(held, key, journal.request_of(command="mend", cancel=key), tell)

    return act


def _mark(number: int, tag: str, ids: set[str]) -> Cure:
    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        changes = ((i, Change({"gsal_round": number, "gsal_status": states.PICKED}, tags=[tag])) for i in sorted(ids))
        values = held.prepare(changes)
        todo = [steps.declare("select"), steps.merge(values), steps.follow_status()]
        held.apply(journal.request_of(command="mend", mark=number), todo, {}, values=values)

    return act


def _clear(tag: str, ids: set[str]) -> Cure:
    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        schema = held.dataset.get_field_schema()
        empty: dict[str, Any] = {name: None for name in fields.SELECT_FIELDS if name in schema}
        values = held.prepare((i, Change(dict(empty), untags=[tag])) for i in sorted(ids))
        held.apply(journal.request_of(command="mend", clear=tag), [steps.merge(values)], {}, values=values)

    return act


def _take_back(key: str, number: int, found: history.Round) -> Cure:
    def act(held: journal.Hold, tell: progress.OnEvent) -> None:
        entry = entries.cancellation(found.selection, round=number, tag=found.tag)
        todo = [steps.note_in_ledger(key, entry, f"{held.token}-{found.selection[:16]}")]
        held.apply(journal.request_of(command="mend", take_back=found.selection), todo, {})

    return act
