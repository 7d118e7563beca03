"""Parquet parts: what a worker stage leaves on disk, written atomically, resumed by id, read back as columns.

A run folder::

    config.json            the stage configs and digests (``write_json``)
    manifest.parquet       one row per image: pool and labeled
    proposals/part-*.parquet  difficulty/part-*.parquet  concepts/part-*.parquet  assignment/part-*.parquet
    screening/part-*.parquet  crops/part-*.parquet  only with a screen: what ``difficulty`` is then made from

Each part carries the digest of the configuration it was made with; a folder that mixes two is refused.
Boxes are flattened ``xywh_rel`` (4 floats per box), posteriors flattened (C + 1 floats per box, background first).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FLOATS = pa.list_(pa.float32())
HALVES = pa.list_(pa.float16())

MANIFEST = pa.schema(
    [
        ("id", pa.string()),
        ("filepath", pa.string()),
        ("role", pa.string()),  # "pool" | "labeled"
        ("boxes", FLOATS),  # labeled: its ground truth; pool: proposals that the dataset already holds, else null
        ("labels", pa.list_(pa.string())),  # one per box
        ("scores", FLOATS),  # pool with given proposals: one per box
    ]
)
EMBEDDINGS = pa.schema(
    [
        ("id", pa.string()),
        ("error", pa.string()),
        ("role", pa.string()),
        ("embeddings", HALVES),  # one unit vector per box
        ("image", HALVES),  # unit vector of the whole image
        ("dim", pa.int32()),
    ]
)
DIFFICULTY = pa.schema(
    [
        ("id", pa.string()),
        ("error", pa.string()),
        ("image_error", pa.float32()),
        ("image_variance", pa.float32()),
        ("proposal_error", FLOATS),
        ("proposal_variance", FLOATS),
        ("screened", pa.bool_()),  # false: left out by the screen, so that its proposals' values are estimates
        ("map", HALVES),  # error map, row by row
        ("map_width", pa.int16()),
    ]
)
STAGES: Mapping[str, pa.Schema] = {
    "proposals": pa.schema(
        [
            ("id", pa.string()),
            ("filepath", pa.string()),
            ("error", pa.string()),  # why the image has no result; null when it has one
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("boxes", FLOATS),
            ("scores", FLOATS),
            ("posterior", FLOATS),  # empty where no detector ran
            ("image_contrast", pa.float32()),  # of ``correction.local_contrast``, of the image and of each box
            ("contrast", FLOATS),
            ("source", pa.string()),  # "detector" | "field" | "grid" | "whole"
        ]
    ),
    "difficulty": DIFFICULTY,
    "screening": DIFFICULTY,  # images, and proposals pooled from their maps
    "crops": pa.schema(
        [("id", pa.string()), ("error", pa.string()), ("proposal_error", FLOATS), ("proposal_variance", FLOATS)]
    ),
    "concepts": EMBEDDINGS,
    # labeled crops, by both candidates for assign="auto"
    "trial_clip": EMBEDDINGS,
    "trial_encoder": EMBEDDINGS,
    "assignment": pa.schema(
        [
            ("id", pa.string()),
            ("error", pa.string()),
            ("role", pa.string()),
            ("fine", pa.list_(pa.int16())),  # index into ConceptGraph.fine; -1 background, -2 unmatched
            ("prob", FLOATS),
            ("margin", FLOATS),
        ]
    ),
}


class ShardError(ValueError):
    """A run folder cannot be used as it is; the message says which file and what to do."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary neighbour of ``path`` to write to, which then takes its name: readers see the whole file or none.

    Raises ShardError where the system refuses (full disk, no folder, no permission), leaving nothing half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror or error
        raise ShardError(f"cannot write {path}: {reason}; free space or choose another output folder") from error


def write_table(table: pa.Table, path: Path) -> None:
    """Write one Parquet file atomically."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_json(value: Any, path: Path) -> None:
    """Write JSON atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_part(folder: Path, stage: str, rows: Sequence[Mapping[str, Any]], *, digest: str, rank: int = 0) -> Path:
    """Write ``rows`` as the next part of ``stage`` by this rank; NumPy arrays become lists. Returns its path."""
    schema = STAGES[stage].with_metadata({"gsal_digest": digest})
    columns = {
        f.name: [v.tolist() if isinstance(v := row.get(f.name), np.ndarray) else v for row in rows] for f in schema
    }
    place = folder / stage
    taken = [int(p.stem.rsplit("-", 1)[1]) for p in place.glob(f"part-{rank:03d}-*.parquet")]
    path = place / f"part-{rank:03d}-{max(taken, default=-1) + 1:06d}.parquet"
    write_table(pa.Table.from_pydict(columns, schema=schema), path)
    return path


def parts(folder: Path, stage: str, *, digest: str | None = None) -> list[Path]:
    """The parts of a stage in name order; raises ShardError where a part's digest is not ``digest`` or differs from
    the others'."""
    found = sorted((folder / stage).glob("part-*.parquet"))
    for path in found:
        try:
            got = (pq.read_schema(path).metadata or {}).get(b"gsal_digest", b"").decode()
        except (pa.ArrowInvalid, OSError) as error:
            raise ShardError(f"{path} is not a readable Parquet part ({error}); delete it and run again") from error
        digest = got if digest is None else digest
        if got != digest:
            raise ShardError(
                f"{path} was made with configuration {got or 'unknown'}, not {digest}: scores of two configurations "
                f"are never mixed; use another run folder or delete {path.parent}"
            )
    return found


def done_ids(folder: Path, stage: str, *, digest: str) -> set[str]:
    """Ids that have a row in the stage's parts: what a restart leaves out."""
    return {
        i for path in parts(folder, stage, digest=digest) for i in pq.read_table(path, columns=["id"])["id"].to_pylist()
    }


def iter_rows(folder: Path, stage: str, *, digest: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a stage, part by part, lists as NumPy arrays: memory holds one part at a time."""
    for path in parts(folder, stage, digest=digest):
        yield from table_rows(pq.read_table(path))


def read_stage(folder: Path, stage: str, *, digest: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """All parts of a stage as one table, in part order."""
    found = parts(folder, stage, digest=digest)
    names = columns or STAGES[stage].names
    if not found:
        return pa.schema([STAGES[stage].field(n) for n in names]).empty_table()
    return pa.concat_tables(pq.read_table(path, columns=names).replace_schema_metadata(None) for path in found)


def table_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table as dicts; numeric lists come as NumPy arrays (null lists as None)."""
    columns = {name: column_values(table[name]) for name in table.column_names}
    for i in range(table.num_rows):
        yield {name: values[i] for name, values in columns.items()}


def column_values(column: pa.ChunkedArray) -> list[Any]:
    """A column as a list; each numeric list in it as a NumPy array."""
    kind = column.type
    if not pa.types.is_list(kind) or pa.types.is_string(kind.value_type):
        return column.to_pylist()
    out: list[Any] = []
    for chunk in column.chunks:
        flat = chunk.values.to_numpy(zero_copy_only=False)
        offsets, valid = chunk.offsets.to_numpy(), chunk.is_valid().to_numpy(zero_copy_only=False)
        out += [flat[a:b] if ok else None for a, b, ok in zip(offsets[:-1], offsets[1:], valid, strict=True)]
    return out


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder; raises ShardError with a sentence where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(f"{path} is missing: {path.parent} is not a GSAL run folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ShardError(f"{path} is not readable JSON ({error})") from error
