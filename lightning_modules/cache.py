"""A cache of diffusion statistics across runs: SQLite, one file per rank, keyed by scorer, file content and box.

A statistic depends on the image file, the quantized box and the scorer alone, so a later round reads it back unchanged.
Each value carries a checksum. A file that is damaged, and a value that was altered, count as not there: they are told
once and written anew. A cache saves time, and its lack changes no result.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

LOOKUP = 500  # keys per query, under SQLite's limit on parameters
CHECK = 8  # bytes of a value's checksum
# What is wrong with the disk or with somebody else's lock, not with the content of the file.
ELSEWHERE = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
)


class StatisticsCache:
    """float32 arrays by text key. Reads every rank's file, writes this rank's own.

    Connections open on first use, so that the object can travel to a loader process. ``trouble``: file -> sentence, of
    each file that could not be used, or held a value that was altered; a loader's is handed to the process that writes.
    """

    def __init__(self, folder: Path, *, scorer: str, rank: int = 0) -> None:
        self.folder, self.rank = Path(folder) / scorer, rank
        self.trouble: dict[str, str] = {}
        self._readers: dict[Path, sqlite3.Connection | None] | None = None
        self._writer: sqlite3.Connection | None = None
        self._told: set[str] = set()
        self._replaced = self._off = False

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_readers": None, "_writer": None}

    @property
    def path(self) -> Path:
        """This rank's file."""
        return self.folder / f"rank-{self.rank:03d}.sqlite"

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays that are there, flat, by key."""
        if self._readers is None:
            self._readers = dict.fromkeys(sorted(self.folder.glob("rank-*.sqlite")))
        out: dict[str, np.ndarray] = {}
        for path in list(self._readers):
            try:
                reader = self._readers[path] = self._readers[path] or _reader(path)
                for key, value, check in _rows(reader, keys):
                    if _check(key, value) == check:
                        out[key] = np.frombuffer(value, dtype=np.float32)
                    else:
                        text = f"{path} holds a value that was altered; it is computed again"
                        self.trouble.setdefault(str(path), text)
            except sqlite3.Error as error:
                if (opened := self._readers.pop(path)) is not None:
                    opened.close()
                if "no such table" not in str(error):  # a file of before 0.2 has another one, without checksums
                    self.trouble[str(path)] = _sentence(path, error)
        return out

    def put(self, values: Mapping[str, np.ndarray]) -> None:
        """Store arrays; one transaction, so that a kill leaves the file whole."""
        if not values or self._off:
            return
        rows = [(key, np.ascontiguousarray(value, dtype=np.float32).tobytes()) for key, value in values.items()]
        checked = [(key, value, _check(key, value)) for key, value in rows]
        try:
            if str(self.path) in self.trouble and not self._replaced and is_damaged(self.path):
                self._replace()
            try:
                self._write(checked)
            except sqlite3.Error as error:
                if _elsewhere(error) or self._replaced:
                    raise
                self.trouble[str(self.path)] = _sentence(self.path, error)
                self._replace()
                self._write(checked)
        except (sqlite3.Error, OSError) as error:
            self._off = True
            self.trouble[str(self.path)] = (
                f"{self.path} cannot be written ({error}); nothing is kept for later scorings"
            )

    def tell(self) -> list[str]:
        """The sentences of ``trouble`` that were not told yet."""
        new = sorted(set(self.trouble.values()) - self._told)
        self._told.update(new)
        return new

    def remove_damaged(self) -> None:
        """Remove files that were found damaged and are so still: no rank of this run may write to them again."""
        self.close()
        for name in self.trouble:
            if is_damaged(Path(name)):
                _remove(Path(name))

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        for connection in [*(self._readers or {}).values(), self._writer]:
            if connection is not None:
                connection.close()
        self._readers, self._writer = None, None

    def _write(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = sqlite3.connect(self.path, timeout=60)
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA synchronous=NORMAL")
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS checked (key TEXT PRIMARY KEY, value BLOB, checksum BLOB) WITHOUT ROWID"
            )
        with self._writer:
            self._writer.executemany("INSERT OR REPLACE INTO checked VALUES (?, ?, ?)", rows)

    def _replace(self) -> None:
        """Begin this rank's file anew."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._replaced = True
        _remove(self.path)


def is_damaged(path: Path) -> bool:
    """Whether SQLite says so of a file's content; reads all of it."""
    if not path.is_file():
        return False
    try:
        with closing(_reader(path)) as reader:
            return bool(reader.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.Error as error:
        return not _elsewhere(error)


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=60)


def _rows(reader: sqlite3.Connection, keys: Sequence[str]) -> Iterator[tuple[str, bytes, bytes]]:
    for start in range(0, len(keys), LOOKUP):
        some = keys[start : start + LOOKUP]
        marks = ",".join("?" * len(some))
        yield from reader.execute(f"SELECT key, value, checksum FROM checked WHERE key IN ({marks})", some)


def _check(key: str, value: object) -> bytes:
    """The checksum of a value under its key; of what is no value of ours, one that fits nothing."""
    if not isinstance(value, bytes) or len(value) % 4:
        return b"no value"[: CHECK - 1]
    return hashlib.blake2b(value, digest_size=CHECK, key=hashlib.sha256(key.encode()).digest()).digest()


def _elsewhere(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in ELSEWHERE


def _sentence(path: Path, error: sqlite3.Error) -> str:
    if _elsewhere(error):
        return f"{path} cannot be read ({error}); what it holds is computed again"
    return f"{path} is damaged ({error}); what it held is computed again and written anew"


def _remove(path: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(FileNotFoundError):
            name.unlink()
