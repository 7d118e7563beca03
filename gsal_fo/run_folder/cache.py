"""A run's columns in one file beside its parts: parsing hundreds of parts takes seconds, and a panel must open at once.

The files hold nothing that the parts do not; they can be deleted at any time, and are made again when a part changes.
"""

import dataclasses
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.config import digest
from gsal_fo.run_folder import shards
from gsal_fo.run_folder.pool_columns import PoolTable, load_pool

COLUMNS, VECTORS = "columns.npz", "image_vectors.npy"
READ = ("proposals", "difficulty", "assignment")  # the stages that ``load_pool`` reads
TEXTS = ("ids", "source")  # kept with a fixed width, handed out as plain strings


def load(run: Path) -> PoolTable:
    """``load_pool(run)``, from the cache where that is as new as the parts."""
    run = Path(run)
    mark = _mark(run, READ)
    table = _stored(run / COLUMNS, mark)
    return save(run, load_pool(run)) if table is None else table


def save(run: Path, table: PoolTable) -> PoolTable:
    """Keep what ``load_pool(run)`` returned; returns it."""
    columns: dict[str, Any] = {name: getattr(table, name) for name in _columns()}
    columns |= {name: np.asarray(columns[name], dtype=np.str_) for name in TEXTS}
    columns["failed_ids"] = np.array(list(table.failed), np.str_)
    columns["failed_reasons"] = np.array(list(table.failed.values()), np.str_)
    columns["mark"] = np.array(_mark(run, READ))
    # A run folder may be another person's, or the disk full: the cache saves time, and its lack changes no result.
    with suppress(shards.ShardError), shards.atomic(run / COLUMNS) as path, path.open("wb") as stream:
        np.savez(stream, **columns)
    return table


def image_vectors(run: Path, table: PoolTable) -> np.ndarray | None:
    """Stored image embeddings (N, D) float16 of the table's rows, unit length, NaN where an image has none.

    Memory-mapped, so that looking at a batch of a large pool reads the batch. None where the run has no embeddings.
    """
    run = Path(run)
    if not (parts := shards.parts(run, "concepts")):
        return None
    path, mark = run / VECTORS, _mark(run, ("concepts",))
    with suppress(OSError, ValueError):
        if (run / f"{VECTORS}.mark").read_text(encoding="utf-8") == mark:
            return np.load(path, mmap_mode="r", allow_pickle=False)
    out: np.ndarray | None = None
    row_of = {str(i): row for row, i in enumerate(table.ids)}
    for part in parts:
        columns = shards.read_part(part, ["id", "image"])
        vectors = columns["image"].combine_chunks()
        lengths = np.diff(vectors.offsets.to_numpy()) * np.asarray(vectors.is_valid())
        if not lengths.any():
            continue
        width = int(lengths.max())
        if out is None:
            out = np.full((len(table.ids), width), np.nan, dtype=np.float16)
        values, starts = vectors.values.to_numpy(zero_copy_only=False), vectors.offsets.to_numpy()
        for k, sample_id in enumerate(columns["id"].to_pylist()):
            if lengths[k] == out.shape[1] and sample_id in row_of:
                out[row_of[sample_id]] = values[starts[k] : starts[k] + lengths[k]]
    if out is not None:
        with suppress(shards.ShardError):
            with shards.atomic(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, out)
            with shards.atomic(run / f"{VECTORS}.mark") as temporary:
                temporary.write_text(mark, encoding="utf-8")
    return out


def _stored(path: Path, mark: str) -> PoolTable | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["mark"]) != mark:
                return None
            found: dict[str, Any] = {n: stored[n] for n in stored.files}
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
    ):  # no cache yet, or a damaged one: the parts hold all of it
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
