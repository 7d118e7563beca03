"""Parquet files of a run folder: each column is held against its checksum when it is read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gsal_fo.run_folder import checksums
from gsal_fo.run_folder.files import ShardError, atomic

CHECKSUMS = "gsal_checksums"  # in a file's metadata: JSON, column -> checksum, and "" -> that of the other metadata
# What Arrow raises for bytes that are no Parquet file any more, wherever in them something was changed.
DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, MemoryError, OverflowError, TypeError)
AGAIN = "delete it and run the same scoring command again, or score again"


def write_table(table: pa.Table, path: Path) -> None:
    """Write one Parquet file atomically, the checksums of its columns and of its metadata beside that."""
    facts = _text(table.schema)
    sums = {"": checksums.of_json(facts), **checksums.of_table(table)}
    with atomic(path) as temporary:
        written = table.replace_schema_metadata({**facts, CHECKSUMS: json.dumps(sums)})
        pq.write_table(written, temporary, compression="zstd")


def metadata(path: Path) -> dict[str, str]:
    """A file's metadata; raises ShardError where it cannot be read or was altered."""
    with _opened(path) as file:
        facts, sums = _text(file.schema_arrow), _checksums(file, path)
    if sums and sums.get("") != checksums.of_json(facts):
        raise ShardError(f"{path} was altered: what it says of itself does not fit its checksum; {AGAIN}")
    return facts


def is_checked(path: Path) -> bool:
    """Whether a file carries checksums; those of before 0.2 do not."""
    with _opened(path) as file:
        return bool(_checksums(file, path))


def rows(path: Path) -> int:
    """How many rows a file has."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def columns_of(path: Path) -> list[str]:
    """The names of a file's columns."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_table(
    path: Path, columns: Sequence[str] | None = None, *, schema: pa.Schema | None = None, optional: frozenset[str]
) -> pa.Table:
    """Read a file, or some of its columns, without its metadata.

    Args:
        path: the file.
        columns: None reads all.
        schema: the columns that it should have and their types; None takes any.
        optional: columns that older versions did not write; left out of what is read where they are not there.

    Raises:
        ShardError: it is missing, damaged, lacks a column, holds another type or other values than were written, or an
            ``id`` without a value.
    """
    wanted = list(columns) if columns is not None else schema.names if schema is not None else None
    with _opened(path) as file:
        there, said = file.schema_arrow, _checksums(file, path)
        if wanted is None:
            wanted = there.names
        names = [n for n in wanted if n in there.names]
        if lost := [n for n in wanted if n not in there.names and (n not in optional or n in said)]:
            raise ShardError(f"{path} was altered: it has no column {', '.join(lost)}; {AGAIN}")
        for name in names:
            kind, right = there.field(name).type, schema.field(name).type if schema else None
            if right is not None and kind != right:
                raise ShardError(f"{path} was altered: column {name} holds {str(kind)[:60]}, not {right}; {AGAIN}")
        try:
            table = file.read(columns=names).replace_schema_metadata(None)
            bad = [n for n in names if said and said.get(n) != checksums.of_column(n, table[n])]
        except DAMAGE as error:
            raise _unreadable(path, error) from error
    if bad:
        raise ShardError(f"{path} was altered: what {', '.join(bad)} holds does not fit its checksum; {AGAIN}")
    if "id" in names and (table["id"].null_count or pc.any(pc.equal(table["id"], "")).as_py()):
        raise ShardError(f"{path} was altered: it has a row without an id; {AGAIN}")
    return table


def _text(schema: pa.Schema) -> dict[str, str]:
    """A schema's metadata but for the checksums."""
    found = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in (schema.metadata or {}).items()}
    return {k: v for k, v in found.items() if k != CHECKSUMS}


def _checksums(file: pq.ParquetFile, path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((file.schema_arrow.metadata or {}).get(CHECKSUMS.encode(), b"{}")))
    except (TypeError, ValueError, RecursionError) as error:
        raise ShardError(f"{path} was altered: its checksums cannot be read; {AGAIN}") from error


def _opened(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
        file.schema_arrow  # noqa: B018  (parsed on first use; a damaged one is found here)
        return file
    except FileNotFoundError:
        raise ShardError(f"{path} is missing; score again") from None
    except DAMAGE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> ShardError:
    if isinstance(error, ShardError):
        return error
    return ShardError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())[:200]}); {AGAIN}")


def flat(table: pa.Table, name: str, path: Path) -> Any:
    """All numbers of a list column, one list after the other, as a NumPy array.

    Raises:
        ShardError: a list holds a null.
    """
    values = pc.list_flatten(table[name])
    if values.null_count:
        raise ShardError(f"{path} was altered: a list of {name} holds a null; {AGAIN}")
    return values.to_numpy()
