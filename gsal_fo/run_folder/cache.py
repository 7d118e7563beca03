"""A run's columns in one file beside its parts: parsing hundreds of parts takes seconds, and a panel must open at once.

The files hold nothing that the parts do not; they can be deleted at any time, and are made again when a part changes.
Each carries a checksum: a damaged one counts as not there, is told in the log, and is written anew.
"""

import dataclasses
import hashlib
import json
import logging
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.config import digest
from gsal_fo.run_folder import embeddings, shards
from gsal_fo.run_folder.pool_columns import PoolTable, load_pool

LOG = logging.getLogger(__name__)
COLUMNS, VECTORS = "columns.npz", "image_vectors.bin"
READ = ("proposals", "difficulty", "assignment")  # the stages that ``load_pool`` reads
TEXTS = ("ids", "source")  # kept with a fixed width, handed out as plain strings
CHECK = 8  # bytes of a vector's checksum


def load(run: Path) -> PoolTable:
    """``load_pool(run)``, from the cache where that is as new as the parts."""
    run = Path(run)
    table = _stored(run, _mark(run, READ))
    return save(run, load_pool(run)) if table is None else table


def save(run: Path, table: PoolTable) -> PoolTable:
    """Keep what ``load_pool(run)`` returned; returns it."""
    columns: dict[str, Any] = {name: getattr(table, name) for name in _columns()}
    columns |= {name: np.asarray(columns[name], dtype=np.str_) for name in TEXTS}
    columns["failed_ids"] = np.array(list(table.failed), np.str_)
    columns["failed_reasons"] = np.array(list(table.failed.values()), np.str_)
    path, mark = run / COLUMNS, _mark(run, READ)
    # A run folder may be another person's, or the disk full: the cache saves time, and its lack changes no result.
    with suppress(shards.ShardError, OSError):
        with shards.atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **columns)
        _keep_mark(path, {"made from": mark, "checksum": _checksum(path)})
    return table


def image_vectors(run: Path, table: PoolTable, rows: Sequence[int]) -> np.ndarray | None:
    """Stored image embeddings (n, D) float16 of these rows of the table, unit length, NaN where an image has none.

    A batch of a large pool is read, not the pool. None where the run has no embeddings.
    """
    run = Path(run)
    if not shards.parts(run, embeddings.STAGE):
        return None
    path, ids = run / VECTORS, [str(table.ids[row]) for row in rows]
    mark, places = _mark(run, (*READ, embeddings.STAGE)), np.asarray(rows, dtype=np.int64)
    known = _marked(path, mark)
    if known is not None:
        # Plain rows of bytes, each vector and its checksum: there is no header that could be damaged.
        with suppress(OSError, ValueError, TypeError, KeyError):
            found = np.array(np.memmap(path, np.uint8, "r", shape=(len(table.ids), 2 * known["width"] + CHECK))[places])
            if [_row_check(i, v) for i, v in zip(ids, found[:, :-CHECK], strict=True)] == _bytes(found[:, -CHECK:]):
                return np.ascontiguousarray(found[:, :-CHECK]).view(np.float16)
        LOG.warning("%s is damaged; it is made again from the parts", path)
    whole = _gathered(run, table)
    with suppress(shards.ShardError, OSError):
        with shards.atomic(path) as temporary, temporary.open("wb") as stream:
            for image, vector in zip(table.ids, whole, strict=True):
                stream.write(vector.tobytes() + _row_check(str(image), vector))
        _keep_mark(path, {"made from": mark, "width": whole.shape[1]})
    return whole[places]


def _gathered(run: Path, table: PoolTable) -> np.ndarray:
    out: np.ndarray | None = None
    row_of = {str(i): row for row, i in enumerate(table.ids)}
    for found in embeddings.each(run):
        if out is None:
            out = np.full((len(table.ids), len(found.image)), np.nan, dtype=np.float16)
        if found.id in row_of and not found.labeled:
            out[row_of[found.id]] = found.image
    return np.full((len(table.ids), 1), np.nan, dtype=np.float16) if out is None else out


def _stored(run: Path, mark: str) -> PoolTable | None:
    path = run / COLUMNS
    known = _marked(path, mark)
    if known is None:
        return None
    try:
        if _checksum(path) != known.get("checksum"):
            raise ValueError("its checksum does not fit")
        with np.load(path, allow_pickle=False) as stored:
            found: dict[str, Any] = {n: stored[n] for n in stored.files}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        LOG.warning("%s is damaged (%s); it is made again from the parts", path, error)
        return None
    names = _columns()
    if not names <= set(found):
        return None  # written by an older version
    failed = dict(zip(found["failed_ids"].tolist(), found["failed_reasons"].tolist(), strict=True))
    columns = {n: found[n].astype(object) if n in TEXTS else found[n] for n in names}
    return PoolTable(failed=failed, run=path.parent, **columns)


def _columns() -> set[str]:
    return {f.name for f in dataclasses.fields(PoolTable)} - {"failed", "run"}


def _mark(run: Path, stages: tuple[str, ...]) -> str:
    """What the cache depends on: name, size and time of every file that it was made from."""
    files = [run / "manifest.parquet"]
    for stage in stages:
        files += sorted((run / stage).glob("part-*.parquet"))
    facts = [(f.relative_to(run).as_posix(), s.st_size, s.st_mtime_ns) for f in files if f.exists() for s in [f.stat()]]
    return digest(facts)


def _keep_mark(path: Path, facts: dict[str, Any]) -> None:
    shards.write_json(facts, path.with_name(f"{path.name}.mark"))


def _marked(path: Path, mark: str) -> dict[str, Any] | None:
    """What was noted beside a file; None where there is no file, or it was made from other parts."""
    try:
        known = json.loads(path.with_name(f"{path.name}.mark").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return known if isinstance(known, dict) and known.get("made from") == mark and path.exists() else None


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _row_check(image: str, vector: np.ndarray) -> bytes:
    return hashlib.blake2b(image.encode() + b":" + vector.tobytes(), digest_size=CHECK).digest()


def _bytes(rows: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in rows]
