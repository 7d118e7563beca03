"""Parquet parts: what a worker stage leaves on disk, written atomically, resumed by id, read back as columns.

A run folder::

    config.json            the stage configs and digests (``write_json``)
    manifest.parquet       one row per image: pool and labeled
    proposals/part-*.parquet  difficulty/part-*.parquet  concepts/part-*.parquet  assignment/part-*.parquet
    screening/part-*.parquet  crops/part-*.parquet  only with a screen: what ``difficulty`` is then made from
    looks/part-*.parquet  only with labels that the graph lacks (`looks`)

Each part carries the digest of the configuration it was made with, its own name, the run that it belongs to, and the
checksums of its columns (`tables`); a folder that mixes two configurations or runs, and a file that was altered, are
refused. Files of before 0.2 carry the first alone, and are read as they are.
Boxes are flattened ``xywh_rel`` (4 floats per box), posteriors flattened (C + 1 floats per box, background first).
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gsal_fo.run_folder import tables
from gsal_fo.run_folder.files import ShardError, atomic, read_json, read_record, write_json, write_record
from gsal_fo.run_folder.tables import AGAIN, write_table

__all__ = ["ShardError", "atomic", "read_json", "write_json", "write_record", "write_table"]

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
            ("content", pa.string()),  # digest of the file, as ``images.read_image`` gives it
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
    # labeled boxes whose label the graph lacks, each with the concept of its own crop
    "looks": pa.schema(
        [("id", pa.string()), ("error", pa.string()), ("boxes", FLOATS), ("fine", pa.list_(pa.int16()))]
    ),
}

ROLES = ("pool", "labeled")
MANIFEST_NAME, CONFIG = "manifest.parquet", "config.json"
OPTIONAL = frozenset(
    {"screened", "image_contrast", "contrast", "image", "content"}
)  # what older versions did not write


def write_manifest(table: pa.Table, path: Path) -> None:
    """Write the manifest of a run folder, marked as of the run that its ``config.json`` names."""
    config = path.parent / CONFIG
    run = read_json(config).get("run_id") if config.is_file() else None
    write_table(table.replace_schema_metadata({"gsal_run": run or uuid.uuid4().hex}), path)


def read_manifest(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The manifest of a run folder, or some of its columns.

    Raises:
        ShardError: it is missing or was altered.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ShardError(f"{path} is missing: {folder} is not a GSAL run folder")
    if _run(folder) and not tables.is_checked(path):
        raise ShardError(f"{path} was altered: its checksums are gone; {AGAIN}")
    table = tables.read_table(path, columns, schema=MANIFEST, optional=OPTIONAL)
    if "role" in table.column_names and pc.any(pc.invert(pc.is_in(table["role"], pa.array(ROLES)))).as_py():
        raise ShardError(f"{path} was altered: a role is none of {', '.join(ROLES)}; {AGAIN}")
    return table


def check_run(folder: Path) -> None:
    """Raise ShardError where the manifest is not of the run that ``config.json`` names."""
    run, wanted = _run(folder), run_facts(folder, CONFIG).get("run_id")
    if None not in (run, wanted) and run != wanted:
        raise ShardError(f"{folder / MANIFEST_NAME} is of another run than {folder / CONFIG}; {AGAIN}")


def run_facts(folder: Path, name: str) -> dict[str, Any]:
    """A run folder's ``config.json``, ``assigned.json`` or another JSON file that the run left.

    Raises:
        ShardError: it is missing, broken or was altered.
    """
    return read_record(folder / name, checked=bool(_run(folder)))


def write_part(folder: Path, stage: str, rows: Sequence[Mapping[str, Any]], *, digest: str, rank: int = 0) -> Path:
    """Write ``rows`` as the next part of ``stage`` by this rank; NumPy arrays become lists. Returns its path."""
    schema = STAGES[stage]
    columns = {
        f.name: [v.tolist() if isinstance(v := row.get(f.name), np.ndarray) else v for row in rows] for f in schema
    }
    place = folder / stage
    taken = [int(p.stem.rsplit("-", 1)[1]) for p in place.glob(f"part-{rank:03d}-*.parquet")]
    path = place / f"part-{rank:03d}-{max(taken, default=-1) + 1:06d}.parquet"
    write_part_table(path, pa.Table.from_pydict(columns, schema=schema), digest=digest)
    return path


def write_part_table(path: Path, table: pa.Table, *, digest: str) -> None:
    """Write a whole part of the stage whose folder it lies in."""
    stage = path.parent.name
    facts = {"gsal_digest": digest, "gsal_part": f"{stage}/{path.name}", "gsal_run": _run(path.parent.parent) or ""}
    write_table(table.select(STAGES[stage].names).cast(STAGES[stage].with_metadata(facts)), path)


def parts(folder: Path, stage: str, *, digest: str | None = None) -> list[Path]:
    """The parts of a stage in name order.

    Raises:
        ShardError: a part cannot be read, is of another stage or run, or its digest is not ``digest`` or differs from
            the others'.
    """
    found = sorted((folder / stage).glob("part-*.parquet"))
    run = _run(folder) if found else None
    for path in found:
        facts = tables.metadata(path)
        got = facts.get("gsal_digest", "")
        digest = got if digest is None else digest
        if got != digest or not got:
            like = "" if path == found[0] else f" as {found[0].name}"
            raise ShardError(
                f"{path} was made with configuration {got[:64] or 'unknown'}, not {digest or 'one of this run'}{like}: "
                f"scores of two configurations are never mixed; use another run folder or delete {path.parent}"
            )
        if run and not tables.is_checked(path):
            raise ShardError(f"{path} was altered: its checksums are gone; {AGAIN}")
        own = f"{stage}/{path.name}"
        if (other := facts.get("gsal_part", "" if run else own)) != own:
            raise ShardError(f"{path} is a copy of {other[:100] or 'a file without a name'}; {AGAIN}")
        if run is not None and facts.get("gsal_run", "") != run:
            raise ShardError(f"{path} is of another run than {folder / MANIFEST_NAME}; {AGAIN}")
    return found


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A part of the stage whose folder it lies in, or some of its columns; also a manifest.

    Raises:
        ShardError: it cannot be read or was altered.
    """
    if path.name == MANIFEST_NAME:
        return read_manifest(path.parent, columns)
    return tables.read_table(path, columns, schema=STAGES[path.parent.name], optional=OPTIONAL)


def _run(folder: Path) -> str | None:
    """The run that a folder's manifest is of, whose files all carry checksums; "" for one of before there were any,
    None without a manifest."""
    path = folder / MANIFEST_NAME
    return tables.metadata(path).get("gsal_run", "") if path.is_file() else None


def holders(folder: Path, stage: str, image: str) -> str:
    """The parts of a stage that hold an image, for a sentence."""
    found = [path for path in parts(folder, stage) if image in read_part(path, ["id"])["id"].to_pylist()]
    return " and ".join(str(path) if k == 0 else path.name for k, path in enumerate(found))


def done_ids(folder: Path, stage: str, *, digest: str) -> set[str]:
    """Ids that have a row in the stage's parts: what a restart leaves out."""
    return {i for path in parts(folder, stage, digest=digest) for i in read_part(path, ["id"])["id"].to_pylist()}


def iter_rows(folder: Path, stage: str, *, digest: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a stage, part by part, lists as NumPy arrays: memory holds one part at a time."""
    for path in parts(folder, stage, digest=digest):
        yield from table_rows(read_part(path))


def read_stage(folder: Path, stage: str, *, digest: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """All parts of a stage as one table, in part order."""
    found = parts(folder, stage, digest=digest)
    names = columns or STAGES[stage].names
    if not found:
        return pa.schema([STAGES[stage].field(n) for n in names]).empty_table()
    return pa.concat_tables(read_part(path, names) for path in found)


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
