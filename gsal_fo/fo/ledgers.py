"""A dataset and its ledgers: one way to add an entry, and what the dataset remembers of each ledger.

Every scoring has a ledger in its run folder. Its head, the last entry that this dataset wrote, lies in the scoring's
run record: it is cloned and deleted with that, and nothing of the user's is touched.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.audit import entries, ledger
from gsal_fo.audit import rounds as history
from gsal_fo.audit.heads import Head
from gsal_fo.fo import runs
from gsal_fo.fo.dataset import pool

LOG = logging.getLogger(__name__)


def record(dataset: fo.Dataset, score_key: str, entry: Mapping[str, Any], *, operation: str | None = None) -> str:
    """Add an entry to the ledger of a scoring, move the dataset's head on, and return the entry's hash.

    Called again with the same ``operation``, after a kill say, nothing is added a second time: the hash is that of the
    entry that is there, and the head follows. The caller holds the lock of the dataset's runs.

    Raises:
        ValueError: no such scoring, or its ledger is broken, cut or cannot be written; nothing is added.
    """
    run = Path(runs.load(dataset, score_key).config.run_dir)
    known = head(dataset, score_key)
    whose = {"dataset": dataset.name, "dataset_id": identity(dataset)}
    if operation is not None:
        whose["operation"] = operation
    written = ledger.append(run, {**entry, **whose}, head=known)
    known = known or Head(identity(dataset), 0, ledger.START)
    runs.set_ledger_head(dataset, score_key, known.after(written).to_dict())
    return str(written["hash"])


def sent(dataset: fo.Dataset, ids: Sequence[str], *, operation: str | None = None, **about: Any) -> list[str]:
    """Record that images were sent to labelers, in the ledger of each round that they are of; other images are in no
    ledger. ``about``: how and where to, JSON-able.

    Returns:
        A sentence per ledger that could not be written, also told in the log: what was sent is sent, whatever state a
        ledger is in.
    """
    of_run = _by_scoring(dataset, ids)
    of_run.pop(None, None)
    notes = _recorded_for(dataset, of_run, entries.hand_off, operation, about)
    for text in notes:
        LOG.warning("%s", text)
    return notes


def labels_taken(dataset: fo.Dataset, ids: Sequence[str], *, operation: str | None = None, **about: Any) -> list[str]:
    """Record that labels were taken, in the ledger of each round that their images are of; those of images in no round
    in the latest scoring's. ``about``: where they came from, with digests of files, JSON-able.

    Returns:
        A sentence per ledger that could not be written: labels are the user's and stay, whatever state a ledger is in.
    """
    of_run = _by_scoring(dataset, ids)
    others = of_run.pop(None, [])
    if others and (scorings := runs.score_keys(dataset)):
        of_run.setdefault(scorings[-1], []).extend(others)
    return _recorded_for(dataset, of_run, entries.labels_taken, operation, about)


def _by_scoring(dataset: fo.Dataset, ids: Sequence[str]) -> dict[str | None, list[str]]:
    """The images by the scoring that their round was picked from; None: in no round of one that is there."""
    scorings = set(runs.score_keys(dataset))
    of_round = {c.round: c.score_run for key in runs.select_keys(dataset) for c in [runs.load(dataset, key).config]}
    numbers: dict[str, int | None] = {}
    if dataset.has_sample_field("gsal_round"):
        numbers = {i: row[0] for i, row in pool.rows_of(dataset, ids, ["gsal_round"]).items()}
    out: dict[str | None, list[str]] = {}
    for i in ids:
        key = of_round.get(numbers.get(i))
        out.setdefault(key if key in scorings else None, []).append(i)
    return out


def _recorded_for(
    dataset: fo.Dataset,
    of_run: Mapping[str | None, Sequence[str]],
    entry_of: Callable[..., dict[str, Any]],
    operation: str | None,
    about: Mapping[str, Any],
) -> list[str]:
    notes = []
    for key, ids in of_run.items():
        try:
            record(dataset, str(key), entry_of(ids, **about), operation=operation)
        except ValueError as error:
            notes.append(f"not in the ledger of {key}: {error}")
    return notes


def identity(dataset: fo.Dataset) -> str:
    """What stays when a dataset is renamed, and differs in its clone."""
    return str(dataset._doc.id)


def head(dataset: fo.Dataset, score_key: str) -> Head | None:
    """What a dataset remembers of the ledger of a scoring; None where nothing was written there yet, or before heads
    were kept.

    Read from the database, not from the record in memory: another process may have written since. Two scorings may
    share a run folder: the later head of them counts.
    """
    folder = runs.load(dataset, score_key).config.run_dir
    same = [key for key in runs.score_keys(dataset) if runs.load(dataset, key).config.run_dir == folder]
    found = [Head.from_dict(value) for key in same if (value := runs.ledger_head(dataset, key)) is not None]
    return max(found, key=lambda h: h.count).seen_by(identity(dataset)) if found else None


def is_cancelled(dataset: fo.Dataset, score_key: str, selection: str) -> bool:
    """Whether this dataset, and not only a clone of it, has taken back the selection with this hash."""
    return any(e.get("cancels") == selection for e in past(dataset, score_key))


def forget_entries(dataset: fo.Dataset, score_key: str, start: Head) -> None:
    """Begin a ledger anew: the dataset remembers ``start`` of it alone."""
    run_dir = runs.load(dataset, score_key).config.run_dir
    for key in runs.score_keys(dataset):
        if runs.load(dataset, key).config.run_dir == run_dir:
            runs.set_ledger_head(dataset, key, start.to_dict())


def numbers_taken(dataset: fo.Dataset) -> set[int]:
    """Numbers of rounds that a ledger of the dataset knows, or its head where the ledger is cut: none is given out
    twice."""
    out: set[int] = set()
    for key in runs.score_keys(dataset):
        known = head(dataset, key)
        out |= {known.round} if known else set()
        out |= {e["round"] for e in past(dataset, key) if isinstance(e.get("round"), int)}
    return out


def past(dataset: fo.Dataset, score_key: str) -> list[Mapping[str, Any]]:
    """The entries of a scoring's ledger that are this dataset's history: its own, and its originals' of before it was
    cloned."""
    run = Path(runs.load(dataset, score_key).config.run_dir)
    known = ledger.read(run).entries
    return history.own(known, head(dataset, score_key), identity(dataset), dataset.name, recorded(dataset).values())


def recorded(dataset: fo.Dataset, score_key: str | None = None) -> dict[str, str]:
    """Tag -> hash of the selections that the dataset's run records know, all of them or a scoring's."""
    out = {}
    for key in runs.select_keys(dataset):
        config = runs.load(dataset, key).config
        # Selections of before the ledger have no hash.
        if getattr(config, "ledger", None) and score_key in (None, config.score_run):
            out[str(config.tag)] = str(config.ledger)
    return out
