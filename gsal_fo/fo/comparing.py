"""What the tags, fields and run records of a dataset say of its rounds, against what its ledgers say."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from gsal_fo.audit.rounds import Round, replay
from gsal_fo.fo import ledgers, runs
from gsal_fo.fo.dataset import bulk, slices

TAG = re.compile(r"gsal_round_(\d+)")
SHOWN = 3  # ids in a sentence


def problems(dataset: fo.Dataset, score_key: str) -> list[str]:
    """How the rounds of a scoring differ from its ledger, one sentence each."""
    past = ledgers.past(dataset, score_key)
    state, entry_of = replay(past), {str(e["hash"]): e for e in past}
    here = bulk.ids(dataset)
    records = {
        c.ledger: (key, c)
        for key in runs.select_keys(dataset)
        if getattr(c := runs.load(dataset, key).config, "ledger", None)
    }
    out = []
    for number, known in sorted(state.live.items()):
        gone = (known.tagged | known.numbered) - here
        if gone:
            out.append(f"round {number}: {_images(gone)} no longer in the dataset")
        out += _moved(f'tag "{known.tag}"', known.tagged & here, _tagged(dataset, known.tag), number)
        out += _moved(f"gsal_round {number}", known.numbered & here, _numbered(dataset, number), number)
        if not known.selection:
            continue  # a tag that somebody made and accepted; no selection is behind it
        if known.selection not in records:
            out.append(f"round {number}: the run record of its selection is gone, and the ledger says nothing of it")
        elif known.selection in entry_of:
            out += _record(dataset, *records[known.selection], entry_of[known.selection])
    taken_back = state.taken - set(state.live) - {c.round for _, c in records.values()}
    for number in sorted(taken_back):
        if left := _tagged(dataset, f"gsal_round_{number:03d}") | _numbered(dataset, number):
            out.append(f"round {number} was taken back, and {_images(left)} marked as of it")
    return out


def strangers(dataset: fo.Dataset) -> list[str]:
    """Rounds that no ledger of the dataset speaks of: images are marked with them, or a selection is recorded."""
    out = orphans(dataset)
    for number, (tagged, numbered) in sorted(_strange(dataset).items()):
        if tagged:
            out.append(f'tag "gsal_round_{number:03d}": {_images(tagged)} tagged, and no such round was selected')
        if numbered:
            out.append(f"gsal_round {number}: {_images(numbered)} in it, and no such round was selected")
    return out


def orphans(dataset: fo.Dataset) -> list[str]:
    """Selections whose scoring is no longer recorded, and with it where their ledger lies; but for accepted ones."""
    return [
        f"{key}: its scoring {config.score_run} is gone from the dataset, and its picks cannot be proven"
        for key, config in _orphans(dataset)
    ]


def _orphans(dataset: fo.Dataset) -> list[tuple[str, Any]]:
    scorings = runs.score_keys(dataset)
    accepted = {r.selection for key in scorings for r in replay(ledgers.past(dataset, key)).live.values()}
    found = [(key, runs.load(dataset, key).config) for key in runs.select_keys(dataset)]
    lost = [(key, c) for key, c in found if c.score_run not in scorings and getattr(c, "ledger", None)]
    return [(key, c) for key, c in lost if c.ledger not in accepted]


def rounds_now(dataset: fo.Dataset, score_key: str, *, strangers: bool) -> dict[int, dict[str, Any]]:
    """The rounds of a scoring as the dataset has them, for an entry that accepts them; with the strangers' or not."""
    out = {}
    for key in runs.select_keys(dataset):
        config = runs.load(dataset, key).config
        orphan = strangers and config.score_run not in runs.score_keys(dataset)
        if (config.score_run == score_key or orphan) and getattr(config, "ledger", None):
            tagged, numbered = _tagged(dataset, config.tag), _numbered(dataset, config.round)
            out[config.round] = Round(config.tag, config.ledger, frozenset(tagged), frozenset(numbered)).to_dict()
    for number, (tagged, numbered) in _strange(dataset).items() if strangers else ():
        out[number] = Round(f"gsal_round_{number:03d}", "", frozenset(tagged), frozenset(numbered)).to_dict()
    return out


def _strange(dataset: fo.Dataset) -> dict[int, tuple[set[str], set[str]]]:
    """Number -> the images with the tag and those with the number, of rounds that nothing knows."""
    known = {runs.load(dataset, key).config.round for key in runs.select_keys(dataset)}
    for key in runs.score_keys(dataset):
        known |= replay(ledgers.past(dataset, key)).taken
    numbers = {int(m[1]) for tag in slices.flat(dataset).distinct("tags") if (m := TAG.fullmatch(tag))}
    if dataset.has_sample_field("gsal_round"):
        numbers |= {int(n) for n in slices.flat(dataset).distinct("gsal_round")}
    return {n: (_tagged(dataset, f"gsal_round_{n:03d}"), _numbered(dataset, n)) for n in numbers - known}


def _moved(mark: str, wanted: Collection[str], found: Collection[str], number: int) -> Iterator[str]:
    lost, more = set(wanted) - set(found), set(found) - set(wanted)
    if lost:
        yield f"{mark}: {_images(lost)} without it, and of round {number} by the ledger"
    if more:
        yield f"{mark}: {_images(more)} with it, and not of round {number} by the ledger"


def _record(dataset: fo.Dataset, key: str, config: Any, entry: Mapping[str, Any]) -> Iterator[str]:
    """What the run record of a selection says otherwise than its entry."""
    for name in ("round", "tag", "budget", "params", "thresholds", "digests"):
        if name in entry and (said := getattr(config, name, None)) != entry[name]:
            yield f"{key}: {name} is {_short(said)}, and the ledger says {_short(entry[name])}"
    picks = [(p["id"], p["rank"], p["score"]) for p in runs.picks(dataset, key)]
    if picks != [(p["id"], p["rank"], p["score"]) for p in entry["picks"]]:
        yield f"{key}: its picks are not those of the ledger"


def _tagged(dataset: fo.Dataset, tag: str) -> set[str]:
    return set(slices.flat(dataset).match_tags(tag).values("id"))


def _numbered(dataset: fo.Dataset, number: int) -> set[str]:
    if not dataset.has_sample_field("gsal_round"):
        return set()
    return set(slices.flat(dataset).match(F("gsal_round") == number).values("id"))


def _images(ids: Collection[str]) -> str:
    some = ", ".join(sorted(ids)[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
    return f"1 image ({some}) is" if len(ids) == 1 else f"{len(ids)} images ({some}) are"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
