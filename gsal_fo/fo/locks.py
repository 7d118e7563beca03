"""Locks of datasets, in the database that all their users share: who writes, and which run keys are taken.

A dataset that anybody works on has one document in the collection `COLLECTION`; it goes when nobody does::

    _id      the dataset's id, so that a clone inherits nothing
    dataset  its name, for a person who looks
    owner    who writes into the dataset now (`owners`), with its last ``beat``
    pending  what that command has decided (`journal`); it outlives its owner
    running  run key -> who scores under it, likewise: the key is taken though no record has it yet

Each change is one command of the server, so two users cannot both succeed. A lock whose owner is gone is taken over.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, PyMongoError

from gsal_fo.fo import owners

COLLECTION = "gsal_locks"
WAIT = 600.0  # seconds: an operator of the App ends by then
PATIENCE = 1.0  # seconds of waiting after which it is said for whom
Tell = Callable[[dict[str, Any]], None]
Found = Mapping[str, Any]


def collection() -> Collection:
    """Where the documents lie."""
    return foo.get_db_conn()[COLLECTION]


def read(dataset: fo.Dataset) -> Found | None:
    """The dataset's document, None where nobody works on it; ``now`` is the database's clock."""
    steps = [{"$match": {"_id": dataset._doc.id}}, {"$addFields": {"now": "$$NOW"}}]
    return next(iter(collection().aggregate(steps)), None)


def is_gone(found: Found, owner: Mapping[str, Any]) -> bool:
    """Whether an owner of the document has ended: its process here, its beat where that cannot be seen."""
    if owners.is_local(owner):
        return owners.is_dead(owner)
    return bool(found["now"] - owner["beat"] > timedelta(seconds=owners.LEASE))


@dataclass
class Lease:
    """A part of the document that is this call's: ``owner``, or a key of ``running``. ``found``: the document as it was
    when it became ours; ``before``: the owner who was gone, if any."""

    dataset: fo.Dataset
    part: str
    me: dict[str, Any]
    found: Found
    before: Mapping[str, Any] | None = None
    given_back: bool = False

    @property
    def token(self) -> str:
        """Names what the call prepares."""
        return str(self.me["token"])

    @property
    def mine(self) -> dict[str, Any]:
        """Matches the document while the part is still ours."""
        return {"_id": self.found["_id"], f"{self.part}.token": self.token}

    def check(self) -> None:
        """Raise ValueError where somebody took it over: this process had given no sign of life for too long."""
        if collection().find_one(self.mine, {"_id": 1}) is None:
            raise ValueError(
                f'{self.me["command"]} lost its lock on dataset "{self.dataset.name}" to another user, since this '
                f"process stood still for {owners.LEASE:g} s; give the command again"
            )

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life meanwhile."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(owners.BEAT):
                with suppress(PyMongoError):  # the next one may reach the server
                    collection().update_one(self.mine, [{"$set": {f"{self.part}.beat": "$$NOW"}}])

        thread = threading.Thread(target=beat, name=f"gsal-{self.part}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def release(self, *also: str, settled: bool = True) -> None:
        """Give it back, and the parts ``also``, in one command: nothing is half released. Not ``settled``: what is
        pending stays for the next owner."""
        gone = [self.part, *also, *(["pending"] if settled else [])]
        keys = [p.removeprefix("running.") for p in gone if p.startswith("running.")]
        others = {"$map": {"input": {"$objectToArray": {"$ifNull": ["$running", {}]}}, "in": "$$this.k"}}
        unused: dict[str, Any] = {"$expr": {"$setIsSubset": [others, {"$literal": keys}]}}
        unused |= {} if "owner" in gone else {"owner": None}
        unused |= {} if "pending" in gone else {"pending": None}
        if not collection().delete_one({**self.mine, **unused}).deleted_count:
            collection().update_one(self.mine, {"$unset": dict.fromkeys(gone, "")})
        self.given_back = True


def acquire(dataset: fo.Dataset, command: str, tell: Tell, *, wait: float = WAIT) -> Lease:
    """Become the one who writes into the dataset, after whoever does so now.

    Args:
        dataset: the dataset.
        command: what for, in a word: others read it.
        tell: receives a note where somebody has to be waited for.
        wait: seconds to wait at most.

    Raises:
        ValueError: somebody else holds it all the time, or this very thread does.
    """
    me, started, told, pause = owners.me(command), time.monotonic(), False, 0.01
    while True:
        if lease := _take(dataset, me):
            return lease
        owner = (read(dataset) or {}).get("owner")
        if owner is None:
            continue
        if owners.is_mine(owner):
            raise ValueError(f'{command}: {owner["command"]} is not done with dataset "{dataset.name}"; end it first')
        waited = time.monotonic() - started
        if waited > wait:
            raise ValueError(
                f'dataset "{dataset.name}" is in use: {owners.describe(owner)}; wait for it to end, or end it'
            )
        if waited > PATIENCE and not told:
            tell({"event": "note", "message": f"waiting for {owners.describe(owner)}"})
            told = True
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _take(dataset: fo.Dataset, me: dict[str, Any]) -> Lease | None:
    """The lock, where it is free or its owner is gone."""
    take = {"$set": {"dataset": {"$literal": dataset.name}, "owner": _signed(me)}}
    free = {"_id": dataset._doc.id, "owner": None}
    with suppress(DuplicateKeyError):  # the document is there, with an owner
        found = collection().find_one_and_update(free, [take], upsert=True, return_document=ReturnDocument.AFTER)
        return Lease(dataset, "owner", me, found)
    doc = read(dataset)
    before = (doc or {}).get("owner")
    if doc is None or before is None or not is_gone(doc, before):
        return None
    same = {"_id": doc["_id"], "owner.token": before["token"], "owner.beat": before["beat"]}
    found = collection().find_one_and_update(same, [take], return_document=ReturnDocument.AFTER)
    return Lease(dataset, "owner", me, found, before) if found else None


def reserve(lease: Lease, key: str, **about: Any) -> Lease:
    """Take a run key, under the dataset's lock; ``about`` lies beside it for others to read."""
    me = owners.me(lease.me["command"])
    part = f"running.{key}"
    found = collection().find_one_and_update(
        lease.mine, [{"$set": {part: _signed({**me, **about})}}], return_document=ReturnDocument.AFTER
    )
    if found is None:
        lease.check()
    return Lease(lease.dataset, part, me, found)


def _signed(me: Mapping[str, Any]) -> dict[str, Any]:
    return {"$mergeObjects": [{"$literal": dict(me)}, {"beat": "$$NOW"}]}
