"""An append-only record of what happened to rounds: JSON lines, each carrying the hash of the one before.

An append that was cut short (power, a full disk) leaves bytes after the last newline that are no entry. The next append
cuts them off, under the file's lock; anything else that does not fit is told and never mended.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsal_fo.audit.heads import Head

NAME = "ledger.jsonl"
START = "0" * 64  # what the first entry names as the hash before it
KEYS = {"seq", "previous", "hash"}


@dataclass(frozen=True)
class Ledger:
    """What a ledger file holds: ``entries`` that can be read, in order; ``problems``, one sentence per break;
    ``torn``, bytes at the end that never became an entry; ``open``, whether the last entry lacks its newline."""

    entries: list[dict[str, Any]]
    problems: list[str]
    torn: int = 0
    open: bool = False

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return str(self.entries[-1]["hash"]) if self.entries else START


def append(run: Path, entry: Mapping[str, Any], *, head: Head | None = None) -> dict[str, Any]:
    """Add one entry to a run folder's ledger and return it whole; on disk before this returns, or not there at all.

    ``seq`` (1 for the first), ``previous`` and ``hash`` are added. An entry with an ``operation`` that an entry of the
    same dataset already has is not added again: that one is returned.

    Args:
        run: run folder.
        entry: JSON-able values.
        head: what the dataset remembers of this ledger; None where it remembers nothing.

    Raises:
        ValueError: the ledger is broken or is not the one that ``head`` remembers, or it cannot be written; nothing is
            added to it.
    """
    path = run / NAME
    with _held(path) as handle:
        known = parse(_bytes(handle), path)
        problems = known.problems or (head.problems(known.entries, path) if head else [])
        if problems:
            raise ValueError(
                f"{problems[0]}; nothing was changed. See `gsal audit verify`; `gsal audit accept` goes on from what "
                "is there, and says so in the ledger"
            )
        if (done := _done(known, entry)) is not None:
            return done
        full = {**entry, "seq": len(known.entries) + 1, "previous": known.head}
        full["hash"] = entry_hash(full)
        _write(handle, path, (b"\n" if known.open else b"") + canonical(full) + b"\n", torn=known.torn)
        return full


def set_aside(run: Path) -> Path | None:
    """Give a ledger that cannot be gone on with another name, so that a new one can begin; None where there is none."""
    path = run / NAME
    if not path.exists():
        return None
    number = 1
    while (aside := run / f"ledger-{number:03d}.jsonl").exists():
        number += 1
    try:
        path.rename(aside)
        _sync_folder(run)
    except OSError as error:
        raise _refusal(path, error) from error
    return aside


def read(run: Path) -> Ledger:
    """Read a run folder's ledger and check its chain; a missing file is an empty ledger."""
    path = run / NAME
    try:
        return parse(path.read_bytes(), path)
    except FileNotFoundError:
        return Ledger([], [])
    except OSError as error:
        return Ledger([], [f"{path} cannot be read ({error.strerror or error})"])


def parse(data: bytes, path: Path) -> Ledger:
    """The ledger in a file's bytes; ``path`` is for the sentences."""
    *lines, tail = data.split(b"\n")
    torn = 0
    if tail and _value(tail) is None:
        torn = len(tail)
    elif tail:
        lines.append(tail)
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    before = START
    for number, line in enumerate(lines, 1):
        entry = _value(line)
        if not isinstance(entry, dict) or not set(entry) >= KEYS:
            problems.append(f"{path}, line {number}: not a ledger entry")
            continue
        if entry["hash"] != _hash(entry):
            problems.append(f"{path}, line {number}: the entry was altered, its hash does not fit its content")
        if entry["previous"] != before:
            problems.append(f"{path}, line {number}: does not follow the line before; an entry is missing or was moved")
        if entry["seq"] != number:
            problems.append(f"{path}, line {number}: is entry {str(entry['seq'])[:20]} by its own number")
        before = entry["hash"]
        entries.append(entry)
    return Ledger(entries, problems, torn, open=bool(tail) and not torn)


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces; NaN is refused, since it is no JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def entry_hash(entry: Mapping[str, Any]) -> str:
    """SHA-256 of an entry without its own hash."""
    return hashlib.sha256(canonical({k: v for k, v in entry.items() if k != "hash"})).hexdigest()


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _hash(entry: Mapping[str, Any]) -> str | None:
    try:
        return entry_hash(entry)
    except (ValueError, RecursionError):  # NaN, which we never write
        return None


def _done(known: Ledger, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    operation = entry.get("operation")
    same = (e for e in known.entries if e.get("operation") == operation and e.get("dataset_id") == entry["dataset_id"])
    return None if operation is None else next(same, None)


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """The open file, locked: the datasets of a clone and its original write to one ledger, and have locks of their own.

    Raises:
        ValueError: it cannot be opened.
    """
    try:
        new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if new:
            _sync_folder(path.parent)
        yield handle
    finally:
        os.close(handle)


def _bytes(handle: int) -> bytes:
    with os.fdopen(os.dup(handle), "rb") as stream:
        stream.seek(0)
        return stream.read()


def _write(handle: int, path: Path, line: bytes, *, torn: int) -> None:
    """Cut the torn bytes off and add a line; where that fails, the file is as long as it was before them."""
    size = os.fstat(handle).st_size - torn
    try:
        os.ftruncate(handle, size)
        os.lseek(handle, size, os.SEEK_SET)
        left = memoryview(line)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    except BaseException as error:
        with suppress(OSError):
            os.ftruncate(handle, size)
        if isinstance(error, OSError):
            raise _refusal(path, error) from error
        raise


def _refusal(path: Path, error: OSError) -> ValueError:
    reason = error.strerror or error
    return ValueError(f"cannot write {path}: {reason}; nothing was added. Free space, or see that the file is yours")


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # a file system that cannot do it loses at most a new, empty file
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
