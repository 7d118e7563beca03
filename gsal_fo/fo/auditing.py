"""The dataset's side of an audit: whether its tags, rounds and run records are what the ledgers of its scorings say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.audit import entries, ledger
from gsal_fo.audit import verify as audit
from gsal_fo.audit.heads import Head
from gsal_fo.fo import comparing, journal, ledgers, progress, runs
from gsal_fo.fo.dataset import pool


def verify(samples: Any, *, run_key: str | None = None) -> dict[Path, list[str]]:
    """Check every scoring of a dataset that something was selected from, or one of them.

    The ledger against the run folder (`gsal_fo.audit.verify`), its end against what the dataset remembers of it, and
    against both the dataset: tags and ``gsal_round``, run records and their picks.

    Returns:
        Run folder of each scoring -> what was altered, one sentence each; an empty list where all is as it was.

    Raises:
        ValueError: no scoring, or nothing was selected from it yet.
    """
    dataset = pool.check_dataset(samples)
    journal.settle(dataset)
    wanted = [runs.load(dataset, run_key).key] if run_key else runs.score_keys(dataset)
    used = [key for key in wanted if _used(dataset, key)]
    if not used:
        raise ValueError(_nothing(dataset, wanted))
    out: dict[Path, list[str]] = {}
    for key in used:
        run = _folder(dataset, key)
        found = audit.verify(run, ledgers.recorded(dataset, key), head=ledgers.head(dataset, key))
        if not _broken(dataset, key):  # what a ledger says of the rounds can be compared where all of it is there
            found += comparing.problems(dataset, key)
        out.setdefault(run, []).extend(text for text in found if text not in out[run])
    if run_key is None:
        out[_folder(dataset, used[-1])] += comparing.strangers(dataset)
    return out


def accept(samples: Any, *, run_key: str | None = None, on_event: progress.OnEvent | None = None) -> dict[Path, str]:
    """Take the rounds as they are in the dataset now, and say so in the ledger: who, when, and what did not fit.

    For tags that somebody moved on purpose, and for a ledger that cannot be gone on with: that one is moved aside and a
    new one begun. Files that were altered stay altered: what was picked from them cannot be proven any more.

    Returns:
        Run folder -> what was done, one sentence; empty where nothing was to accept.

    Raises:
        ValueError: nothing was selected yet, or a ledger cannot be written.
    """
    dataset = pool.check_dataset(samples)
    with journal.hold(dataset, "audit accept", on_event or (lambda event: None)):
        wanted = [runs.load(dataset, run_key).key] if run_key else runs.score_keys(dataset)
        used = [key for key in wanted if _used(dataset, key)]
        if not used:
            raise ValueError(_nothing(dataset, wanted))
        done = {_folder(dataset, key): _accepted(dataset, key, last=key == used[-1]) for key in used}
    return {run: said for run, said in done.items() if said}


def _accepted(dataset: fo.Dataset, key: str, *, last: bool) -> str:
    run = _folder(dataset, key)
    broken, lost = _broken(dataset, key), audit.unrecorded(ledger.read(run).entries, ledgers.recorded(dataset, key))
    moved = [] if broken else comparing.problems(dataset, key)
    moved += comparing.strangers(dataset) if last else []
    if not [*broken, *lost, *moved]:
        return ""
    rounds = comparing.rounds_now(dataset, key, strangers=last)
    files = {}
    if broken:
        taken = ledgers.numbers_taken(dataset)
        aside = ledger.set_aside(run)
        files = {aside.name: entries.file_digest(aside)} if aside else {}
        ledgers.forget_entries(dataset, key, Head(ledgers.identity(dataset), 0, ledger.START, max(taken, default=0)))
    entry = entries.acceptance([*broken, *lost, *moved], rounds, score_run=key, aside=files)
    ledgers.record(dataset, key, entry)
    beside = f"; the ledger that was there is {', '.join(files)} now" if files else ""
    return f"{len(broken) + len(lost) + len(moved)} differences are accepted{beside}"


def _nothing(dataset: fo.Dataset, wanted: Sequence[str]) -> str:
    """Why there is nothing to verify."""
    if lost := comparing.orphans(dataset):
        return lost[0]
    return f"nothing was selected yet from {', '.join(wanted) or 'this dataset'}; run select first"


def _broken(dataset: fo.Dataset, key: str) -> list[str]:
    """Why a ledger cannot be gone on with, one sentence each."""
    run, head = _folder(dataset, key), ledgers.head(dataset, key)
    known = ledger.read(run)
    return [*known.problems, *(head.problems(known.entries, run / ledger.NAME) if head else [])]


def _used(dataset: fo.Dataset, key: str) -> bool:
    """Whether something was selected from a scoring that a ledger must know of."""
    head = ledgers.head(dataset, key)
    return bool(ledgers.recorded(dataset, key)) or bool(head and (head.count or head.round))


def _folder(dataset: fo.Dataset, key: str) -> Path:
    return Path(runs.load(dataset, key).config.run_dir)
