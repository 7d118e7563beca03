"""What a command has decided to do to a dataset, written down before it does any of it.

A command works in three parts, under the dataset's lock (`locks`):

1. It decides everything: numbers, keys, ids, every value (`prepared`). Nothing of it can be seen. Killed here, it has
   not happened.
2. It writes the decision down: the steps (`steps`), its request, and its result. From here on it has happened.
3. It does the steps, each of which can be done again. Killed here, whoever takes the lock next finishes them first.
   Where that is the same request again, it gets the result and does nothing more: one round, not two.

The last write gives back the lock and removes the decision, in one command of the server.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
from bson import Binary

from gsal_fo.config import digest
from gsal_fo.fo import locks, owners, steps
from gsal_fo.fo.dataset import prepared, reloading


@dataclass(frozen=True)
class Finished:
    """A command that was cut short and has been finished: its ``request`` digest and its ``result``."""

    command: str
    request: str
    result: dict[str, Any]


@dataclass
class Hold:
    """The right to write into a dataset. ``finished``: what a killed command had left, done by now."""

    dataset: fo.Dataset
    lease: locks.Lease
    finished: Finished | None = None
    settled: bool = True  # nothing is left to do
    running: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # run key -> who scores under it
    ends: list[str] = field(default_factory=list)  # further parts of the lock that end with it
    left: set[str] = field(default_factory=set)  # names of what is prepared and not removed yet

    @property
    def token(self) -> str:
        """Names this command: what it prepares, and its entries in ledgers."""
        return self.lease.token

    def prepare(self, changes: Iterable[tuple[str, prepared.Change]]) -> str:
        """Prepare changes of samples; returns their name. They are removed with the hold."""
        if self.token in self.left:  # of something that came to nothing
            prepared.drop(self.token)
        self.left.add(self.token)
        for _ in prepared.add(self.token, changes):
            pass
        return self.token

    def result_of(self, request: str) -> dict[str, Any] | None:
        """The result of this very request, with the facts of its steps, where it was cut short and is finished now."""
        return self.finished.result if self.finished and self.finished.request == request else None

    def apply(
        self, request: str, todo: Sequence[steps.Step], result: Mapping[str, Any], *, values: str | None = None
    ) -> steps.Facts:
        """Write the decision down and do it.

        Args:
            request: of `request_of`.
            todo: the steps.
            result: what the command answers, as JSON.
            values: name of what was prepared, where it is to be removed at the end.

        Returns:
            What the steps found out.

        Raises:
            ValueError: the first step cannot be done, so nothing was; or a later one cannot, and the next command on
                the dataset goes on from there.
        """
        self.lease.check()
        plan = {"steps": list(todo), "result": dict(result)}
        pending = {
            "command": self.lease.me["command"],
            "user": owners.user(),
            "since": datetime.now(UTC),
            "request": request,
            "values": values,
            "done": 0,
            "facts": {},
            # Packed: names of labels may hold dots and dollar signs, and the picks of a large round are long.
            "plan": Binary(zlib.compress(json.dumps(plan).encode())),
        }
        locks.collection().update_one(self.lease.mine, {"$set": {"pending": pending}})
        return self._do(pending)

    def _do(self, pending: Mapping[str, Any]) -> steps.Facts:
        """Do what is left of a decision; returns the facts."""
        plan, facts = json.loads(zlib.decompress(pending["plan"])), dict(pending["facts"])
        self.settled = False
        for number, step in enumerate(plan["steps"]):
            if number < pending["done"]:
                continue
            try:
                steps.do(self.dataset, step, facts)
            except ValueError as error:
                if number == 0:  # nothing was done: the command is taken back
                    self._end(pending)
                    raise
                raise ValueError(
                    f"{pending['command']} is not finished, the next command on this dataset goes on with it ({error})"
                ) from error
            mark = {"pending.done": number + 1, "pending.facts": facts}
            locks.collection().update_one(self.lease.mine, {"$set": mark})
        self._end(pending)
        return facts

    def reserve(self, key: str, **about: Any) -> locks.Lease:
        """Take a run key, which somebody who is gone may have left."""
        self.ends = [part for part in self.ends if part != f"running.{key}"]
        return locks.reserve(self.lease, key, **about)

    def ends_with(self, reserved: locks.Lease) -> None:
        """Give back a reserved key together with the lock, and remove what was prepared under it."""
        self.ends.append(reserved.part)
        self.left.add(reserved.token)
        reserved.given_back = True

    def _end(self, pending: Mapping[str, Any]) -> None:
        self.settled = True
        if pending["values"]:
            prepared.drop(pending["values"])
            self.left.discard(pending["values"])


def request_of(**what: Any) -> str:
    """A digest of what a command was asked: the same by the same user is the same request."""
    return digest({**what, "user": owners.user()})


@contextmanager
def hold(dataset: fo.Dataset, command: str, tell: locks.Tell = lambda event: None) -> Iterator[Hold]:
    """Hold a dataset's lock, with the dataset as it is in the database now; what a killed command left is done first.

    Raises:
        ValueError: somebody else holds it all the time, or what was left cannot be done.
    """
    lease = locks.acquire(dataset, command, tell)
    held = Hold(dataset, lease)
    with lease.beating():
        try:
            reloading.document(dataset)
            _heal(held, tell)
            yield held
        finally:
            if held.settled:
                for name in held.left:
                    prepared.drop(name)
            lease.release(*held.ends, settled=held.settled)


@contextmanager
def kept(reserved: locks.Lease) -> Iterator[None]:
    """Keep a reserved key meanwhile; it is given back at the end, where no hold has done so."""
    with reserved.beating():
        try:
            yield
        finally:
            if not reserved.given_back:
                prepared.drop(reserved.token)
                reserved.release(settled=False)


def settle(dataset: fo.Dataset, tell: locks.Tell = lambda event: None) -> None:
    """Finish what a killed command left, before the dataset is read; waits for nobody who is at work."""
    found = locks.read(dataset)
    if found is None:
        return
    owner = found.get("owner")
    if owner is not None and not locks.is_gone(found, owner):
        return
    gone = [o for o in found.get("running", {}).values() if locks.is_gone(found, o)]
    if owner or found.get("pending") or gone:
        with hold(dataset, "the next command", tell):
            pass


def _heal(held: Hold, tell: locks.Tell) -> None:
    """Do what a killed owner had decided, and remove what one had only prepared."""
    found, before = held.lease.found, held.lease.before
    pending = found.get("pending")
    kept = pending["values"] if pending else None
    if before and before["token"] != kept:
        prepared.drop(before["token"])
    now = locks.read(held.dataset) or found
    for key, owner in now.get("running", {}).items():
        if locks.is_gone(now, owner):
            if owner["token"] != kept:
                prepared.drop(owner["token"])
            held.ends.append(f"running.{key}")
        else:
            held.running[key] = owner
    if not pending:
        return
    held.settled = False
    plan = json.loads(zlib.decompress(pending["plan"]))
    what = f"{pending['command']} of {pending['user']} that was cut short"
    try:
        facts = held._do(pending)
    except ValueError as error:
        if not held.settled:
            raise
        tell({"event": "note", "message": f"{what} could not be done and has not happened: {error}"})
        return
    held.finished = Finished(pending["command"], pending["request"], {**plan["result"], **facts})
    tell({"event": "note", "message": f"finished {what}"})
