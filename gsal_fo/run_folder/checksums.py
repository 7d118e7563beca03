"""Checksums of what a file says, not of its bytes: another compression or an added column changes none of them.

They find accidents: flipped bits, a script that wrote into a column, a file copied over another. Whoever wants to
deceive can compute them anew; the ledger's digests are against that.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SIZE = 16  # bytes of a digest


def of_table(table: pa.Table) -> dict[str, str]:
    """Column -> BLAKE2b of its name, type and values, in order; about a gigabyte a second."""
    return {name: of_column(name, table[name]) for name in table.column_names}


def of_column(name: str, column: pa.ChunkedArray) -> str:
    """The checksum of one column; however it is cut into chunks, and whatever lies under its nulls."""
    digest = hashlib.blake2b(f"{name}:{_kind(column.type)}".encode(), digest_size=SIZE)
    _feed(digest, column)
    return digest.hexdigest()


def of_json(value: Mapping[str, Any]) -> str:
    """The checksum of a JSON object, however it is written down."""
    read_back = json.loads(json.dumps(value))  # keys that are numbers sort in another way than the texts they become
    text = json.dumps(read_back, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=SIZE).hexdigest()


def _kind(kind: pa.DataType) -> str:
    # The name of a list's inner field depends on who wrote the file.
    return f"list<{_kind(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


def _feed(digest: Any, column: pa.ChunkedArray) -> None:
    digest.update(f":{len(column)}:{column.null_count}:".encode())
    if column.null_count:
        digest.update(np.packbits(column.is_valid().to_numpy()).tobytes())
    kind = column.type
    if pa.types.is_list(kind):
        digest.update(_numbers(pc.fill_null(pc.list_value_length(column), 0)))
        _feed(digest, _chunked(pc.list_flatten(column)))
    elif pa.types.is_string(kind):
        digest.update(_numbers(pc.fill_null(pc.binary_length(column), 0)))
        for chunk in column.chunks:
            digest.update(_text(chunk.fill_null("") if chunk.null_count else chunk))
    else:
        digest.update(_numbers(column))


def _chunked(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def _numbers(column: pa.ChunkedArray) -> memoryview:
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(0).cast(column.type))
    return np.ascontiguousarray(column.to_numpy()).data.cast("B") if len(column) else memoryview(b"")


def _text(chunk: pa.StringArray) -> memoryview:
    """The bytes of all its texts, one after the other."""
    _, offsets, data = chunk.buffers()
    if data is None or not len(chunk):
        return memoryview(b"")
    ends = np.frombuffer(offsets, dtype=np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    return memoryview(data)[ends[0] : ends[-1]]
