"""A cache of diffusion statistics across runs: SQLite, one file per rank, keyed by scorer, file content and box.

A statistic depends on the image file, the quantized box and the scorer alone, so a later round reads it back unchanged.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

LOOKUP = 500  # keys per query, under SQLite's limit on parameters


class StatisticsCache:
    """float32 arrays by text key. Reads every rank's file, writes this rank's own.

    Connections open on first use, so that the object can travel to a loader process.
    """

    def __init__(self, folder: Path, *, scorer: str, rank: int = 0) -> None:
        self.folder, self.rank = Path(folder) / scorer, rank
        self._readers: list[sqlite3.Connection] | None = None
        self._writer: sqlite3.Connection | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_readers": None, "_writer": None}

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays that are there, flat, by key."""
        if self._readers is None:
            found = sorted(self.folder.glob("rank-*.sqlite"))
            self._readers = [sqlite3.connect(f"{p.resolve().as_uri()}?mode=ro", uri=True, timeout=60) for p in found]
        out: dict[str, np.ndarray] = {}
        for reader in self._readers:
            for start in range(0, len(keys), LOOKUP):
                some = keys[start : start + LOOKUP]
                marks = ",".join("?" * len(some))
                rows = reader.execute(f"SELECT key, value FROM statistics WHERE key IN ({marks})", some)
                out |= {key: np.frombuffer(value, dtype=np.float32) for key, value in rows}
        return out

    def put(self, values: Mapping[str, np.ndarray]) -> None:
        """Store arrays; one transaction, so that a kill leaves the file whole."""
        if not values:
            return
        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = sqlite3.connect(self.folder / f"rank-{self.rank:03d}.sqlite", timeout=60)
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA synchronous=NORMAL")
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS statistics (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"
            )
        with self._writer:
            rows = [(key, np.ascontiguousarray(value, dtype=np.float32).tobytes()) for key, value in values.items()]
            self._writer.executemany("INSERT OR REPLACE INTO statistics VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        for connection in [*(self._readers or []), *([self._writer] if self._writer else [])]:
            connection.close()
        self._readers, self._writer = None, None
