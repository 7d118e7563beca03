"""Run folders: where they lie, who works in one, and whether it belongs to the run that asks for it."""

import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from gsal_fo.run_folder import shards


def home() -> Path:
    """``$GSAL_HOME``, by default ``~/.gsal``: run folders and caches."""
    return Path(os.environ.get("GSAL_HOME") or "~/.gsal").expanduser().absolute()


def runs_of(slug: str) -> Path:
    """The folder of all runs of a dataset, named by its slug."""
    return home() / "runs" / slug


def identity(folder: Path) -> str | None:
    """The identity that a run folder was made with; None where it is no run folder yet."""
    if not (folder / "config.json").exists():
        return None
    return str(shards.run_facts(folder, shards.CONFIG).get("identity", ""))


def unfinished(runs: Path, method: str, wanted: str, finished: set[str]) -> str | None:
    """Key of a folder that an interrupted run with the same identity left behind."""
    for folder in sorted(runs.glob(f"{method}_*"), reverse=True):
        if folder.name in finished or not re.fullmatch(r"\w+", folder.name):
            continue
        with suppress(shards.ShardError):  # one damaged folder stops no scoring: it is left alone
            if identity(folder) == wanted:
                return folder.name
    return None


def claim(folder: Path, config: dict[str, Any], *, again: str) -> bool:
    """Make a run folder, or take up one made with the same identity; returns whether it is new.

    Raises:
        ValueError: the folder holds another run or other files; ``again`` says what to do.
        ShardError: it cannot be written.
    """
    sweep(folder)
    made = identity(folder)
    if made is None:
        if folder.exists() and any(p.name not in (".lock", "worker.log") for p in folder.iterdir()):
            raise ValueError(f"{folder} holds files that are no GSAL run; give an empty folder")
        # The files of two runs over the same images fit each other in all but this.
        shards.write_record({**config, "run_id": uuid.uuid4().hex}, folder / shards.CONFIG)
        return True
    if made != config["identity"]:
        raise ValueError(f"{folder} holds a run over other images or with another configuration; {again}")
    return False


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed writers of this machine have left in a folder, as ``shards.atomic`` names
    them: ``.NAME.PID.tmp``."""
    for path in folder.rglob(".*.tmp"):
        found = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name)
        if found and not psutil.pid_exists(int(found[1])):
            path.unlink(missing_ok=True)


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[int]:
    """Hold a folder; yields the file descriptor for a worker to inherit, so that an orphan keeps it held.

    Raises:
        ValueError: another process works in the folder, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot write to {folder}: {reason}; free space or choose another run folder") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            owner = os.pread(handle, 64, 0).decode().strip() or "unknown"
            raise ValueError(f"{folder} is in use by another run (process {owner}); wait for it to end") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)
