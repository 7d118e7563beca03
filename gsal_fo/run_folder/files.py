"""Files of a run folder, whole or not at all, and JSON that carries a checksum of what it says."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gsal_fo.run_folder import checksums

ANEW = "make that run again in a new folder"


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


def write_json(value: Any, path: Path) -> None:
    """Write JSON atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder; raises ShardError with a sentence where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(f"{path} is missing: {path.parent} is not a GSAL run folder") from None
    except OSError as error:
        raise ShardError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path} is not readable JSON ({str(error)[:200]}); {ANEW}") from error


def write_record(value: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object with a checksum of the rest in ``checksum``."""
    write_json({**value, "checksum": checksums.of_json(value)}, path)


def read_record(path: Path, *, checked: bool) -> dict[str, Any]:
    """Read what `write_record` wrote; without the checksum.

    ``checked``: whether a file without a checksum is refused; those of before 0.2 have none.

    Raises:
        ShardError: the file is missing, broken or was altered.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ShardError(f"{path} was altered: it holds no JSON object; {ANEW}")
    said = value.pop("checksum", None)
    if said is None and checked:
        raise ShardError(f"{path} was altered: its checksum is gone; {ANEW}")
    if said is not None and said != checksums.of_json(value):
        raise ShardError(f"{path} was altered: its checksum does not fit what it says; {ANEW}")
    return value
