"""Locks and decisions that an owner who is gone has left."""

import fiftyone as fo

from gsal_fo.fo import locks, owners
from gsal_fo.fo.healing.finding import Finding, Findings

UNFINISHED = "unfinished command"


def findings(dataset: fo.Dataset) -> Findings:
    """What lies in the dataset's lock. A command that is at work is no finding; its lock is `mend`'s to wait for."""
    found = locks.read(dataset) or {}
    owner, pending = found.get("owner"), found.get("pending")
    at_work = owner is not None and not locks.is_gone(found, owner)
    if pending and not at_work:
        yield Finding(
            UNFINISHED,
            f"{pending['command']} of {pending['user']} was cut short at {pending['since']:%Y-%m-%d %H:%M} UTC",
            "the next command on the dataset finishes it",
        )
    elif owner and not at_work:
        yield Finding("stale lock", f"{owners.describe(owner)} is gone", "the next command on the dataset removes it")
    for key, runner in found.get("running", {}).items():
        if locks.is_gone(found, runner):
            yield Finding(
                "stale run key",
                f"{key} is taken by {owners.describe(runner)}, which is gone",
                "the next command on the dataset gives it back; the same command goes on from what it has left",
            )
