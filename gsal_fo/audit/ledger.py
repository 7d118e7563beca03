"""An append-only record of what was selected: JSON lines, each carrying the hash of the one before."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "ledger.jsonl"
START = "0" * 64  # what the first entry names as the hash before it


@dataclass(frozen=True)
class Ledger:
    """What a ledger file holds: ``entries`` that can be read, in order; ``problems``, one sentence per break."""

    entries: list[dict[str, Any]]
    problems: list[str]

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return str(self.entries[-1]["hash"]) if self.entries else START


def append(run: Path, entry: Mapping[str, Any]) -> str:
    """Add one entry to a run folder's ledger and return its hash; on disk before this returns.

    ``seq`` (1 for the first), ``previous`` and ``hash`` are added. The caller holds the lock of the dataset's runs.

    Raises:
        ValueError: the ledger that is there is broken; nothing is added to it.
    """
    known = read(run)
    if known.problems:
        raise ValueError(f"{known.problems[0]}; see `gsal audit verify`, move the ledger aside, and select again")
    full = {**entry, "seq": len(known.entries) + 1, "previous": known.head}
    full["hash"] = entry_hash(full)
    with (run / NAME).open("ab") as stream:
        stream.write(canonical(full) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    return str(full["hash"])


def read(run: Path) -> Ledger:
    """Read a run folder's ledger and check its chain; a missing file is an empty ledger."""
    path = run / NAME
    if not path.is_file():
        return Ledger([], [])
    text = path.read_bytes()
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    if text and not text.endswith(b"\n"):
        problems.append(f"{path} ends in the middle of an entry")
    before = START
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not {"seq", "previous", "hash"} <= set(entry):
                raise ValueError
        except ValueError:
            problems.append(f"{path}, line {number}: not a ledger entry")
            continue
        if entry["hash"] != entry_hash(entry):
            problems.append(f"{path}, line {number}: the entry was altered, its hash does not fit its content")
        if entry["previous"] != before:
            problems.append(f"{path}, line {number}: does not follow the line before; an entry is missing or was moved")
        if entry["seq"] != number:
            problems.append(f"{path}, line {number}: is entry {entry['seq']} by its own number")
        before = entry["hash"]
        entries.append(entry)
    return Ledger(entries, problems)


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces; NaN is refused, since it is no JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def entry_hash(entry: Mapping[str, Any]) -> str:
    """SHA-256 of an entry without its own hash."""
    return hashlib.sha256(canonical({k: v for k, v in entry.items() if k != "hash"})).hexdigest()
