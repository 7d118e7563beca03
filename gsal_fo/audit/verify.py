"""The proof that the picks of a ledger follow from what its run folder holds."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo import config as cfg
from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import RULES, PoolTable, Ranking, load_pool, rank
from gsal_fo.audit import entries, ledger
from gsal_fo.audit.heads import Head
from gsal_fo.concepts.graph import ConceptGraph

SCORE_TOLERANCE = 1e-9  # of a recomputed score: other machines add in another order
# What an entry that somebody wrote by hand may raise: its hash may fit whatever it holds.
UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def verify(run: Path, recorded: Mapping[str, str] | None = None, *, head: Head | None = None) -> list[str]:
    """Everything in a run folder that does not fit its ledger, one sentence each; empty when all is as it was.

    The chain of hashes, its end, the digests of the files, and the picks, derived again from the stored statistics.

    Args:
        run: run folder of a scoring.
        recorded: {tag: hash} as the dataset's own run records hold them; entries that are gone or differ are named.
        head: the last entry that the dataset remembers; None where nobody can say.

    Raises:
        ValueError: the folder has no ledger, and nobody says that it should hold anything.
    """
    path, known = run / ledger.NAME, ledger.read(run)
    if not (known.entries or known.problems or known.torn or recorded or (head and head.count)):
        raise ValueError(f"{run} has no {ledger.NAME}; there is nothing to verify before the first selection")
    out = list(known.problems)
    if head is not None and not known.problems:
        out += head.problems(known.entries, path)
    elif known.torn:  # with a head that fits, the torn bytes are known to be no entry that was ever completed
        out.append(f"{path} ends in the middle of an entry; the next command cuts off what was never written whole")
    hashes = {str(e["hash"]) for e in known.entries}
    out += [f"{path}: {text}" for text in unrecorded(known.entries, recorded or {})]
    proof = Proof(run)
    for entry in known.entries:
        name, kind = f"entry {entry['seq']} ({entry.get('tag')})", entries.kind_of(entry)
        if kind == entries.CANCEL and entry["cancels"] not in hashes | _settled(known.entries):
            out.append(f"{name}: cancels a selection that the ledger does not hold")
        if kind == entries.SELECT:  # one that was taken back is still proven: it happened
            out += [f"{name}: {text}" for text in proof.problems(entry)]
    return out


def unrecorded(known: Sequence[Mapping[str, Any]], recorded: Mapping[str, str]) -> list[str]:
    """The selections, {tag: hash}, that a dataset records and a ledger's entries lack, one sentence each."""
    # By hash, not by tag: a cloned dataset selects from the same run folder, and both may call a round the first.
    tags = {str(e.get("tag")) for e in known}
    hashes = {str(e["hash"]) for e in known} | _settled(known)
    return [
        f"the entry of {tag} is not the one that the dataset records"
        if tag in tags
        else f"the dataset records the selection {tag}, and its entry is gone"
        for tag, mark in recorded.items()
        if mark not in hashes
    ]


def _settled(known: Sequence[Mapping[str, Any]]) -> set[str]:
    """Hashes of selections whose entries are gone, and that somebody has accepted as they are."""
    accepted = [e for e in known if entries.kind_of(e) == entries.ACCEPTED]
    return {str(r.get("selection")) for e in accepted for r in e.get("rounds", {}).values()}


class Proof:
    """Holds entries against a run folder, whose files are read once."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._table: PoolTable | None = None
        self._now: dict[tuple[str, ...], dict[str, str]] = {}

    def problems(self, entry: Mapping[str, Any]) -> list[str]:
        """What a selection's entry says and the folder does not, one sentence each."""
        try:
            stages = entries.stages_of(entry)
            if stages not in self._now:
                self._now[stages] = entries.file_digests(self.run, stages)
            found = list(_changed(entry["files"], self._now[stages]))
        except UNFIT as error:
            found = [f"its files cannot be compared ({_line(error)})"]
        try:
            return [*found, *_derived(self.table, entry)]
        except UNFIT as error:
            return [*found, f"its picks cannot be derived again ({_line(error)})"]

    @property
    def table(self) -> PoolTable:
        """The stored statistics."""
        if self._table is None:
            self._table = load_pool(self.run)
        return self._table


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for path in sorted({*then, *now}):
        if path not in now:
            yield f"{path} is gone"
        elif path not in then:
            yield f"{path} was not there at the selection"
        elif then[path] != now[path]:
            yield f"{path} was altered since the selection"


def derive(run: Path, entry: Mapping[str, Any]) -> tuple[Ranking, list[int]]:
    """The ranking of an entry and the rows picked, again from what the run folder holds; no hash is read.

    Raises:
        ValueError: the entry does not fit the folder (ShardError where the folder itself is broken).
    """
    return _picked(load_pool(run), entry)


def _picked(table: PoolTable, entry: Mapping[str, Any]) -> tuple[Ranking, list[int]]:
    ranking = ranking_of(table, entry)
    return ranking, pick(ranking, len(entry["picks"]), distinct=entry.get("distinct"))


def ranking_of(table: PoolTable, entry: Mapping[str, Any]) -> Ranking:
    """The ranking of an entry, from the statistics of its run; raises ValueError where they do not fit together."""
    rules = int(entry.get("rules", 1))  # entries of before there were several name none
    if not 1 <= rules <= RULES:
        raise ValueError(f"it goes by the rules {rules}, and this version knows those up to {RULES}; update gsal-fo")
    # Those of the first rules name one set of images: all of it was ranked, and could be picked.
    sets = {name: _unpacked(entry[name], len(table.ids)) for name in ("pool", "free", "pickable") if name in entry}
    graph = ConceptGraph.from_dict(entry["graph"], source="the ledger's graph")
    return rank(
        table,
        graph,
        entry["labels"],
        cfg.from_dict(cfg.GsalParams, entry["params"]),
        keep=sets["pool"],
        free=sets.get("free"),
        pickable=sets.get("pickable"),
        rules=rules,
    )


def _unpacked(text: str, count: int) -> np.ndarray:
    """(count,) bool of an entry's set of images."""
    bits = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    if len(bits) != -(-count // 8):
        raise ValueError(f"it speaks of another number of images than the {count} that are stored")
    return np.unpackbits(bits, count=count).astype(bool)


def _derived(table: PoolTable, entry: Mapping[str, Any]) -> Iterator[str]:
    ranking, rows = _picked(table, entry)
    thresholds = {k: int(v) for k, v in ranking.thresholds.items()}
    if thresholds != entry["thresholds"]:
        yield f"thresholds are {thresholds} by the stored data, and the entry says {entry['thresholds']}"
    for place, (row, said) in enumerate(zip(rows, entry["picks"], strict=True), 1):
        sample_id, score = str(table.ids[row]), float(ranking.score[row])
        if sample_id != said["id"]:
            yield f"pick {place} is {sample_id} by the stored data, and the entry says {said['id']}"
        elif abs(score - said["score"]) > SCORE_TOLERANCE * max(1.0, abs(score)):
            yield f"pick {place}, {sample_id}, scores {score!r} by the stored data; the entry says {said['score']!r}"
        elif said["rank"] != (int(ranking.rank[row]) or None):
            yield f"pick {place}, {sample_id}, has rank {ranking.rank[row]}, and the entry says {said['rank']}"
