"""The rounds of a dataset as its ledger has them: which are there, which images are theirs, which numbers are taken."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gsal_fo.audit import entries
from gsal_fo.audit.heads import Head


@dataclass(frozen=True)
class Round:
    """A round that was not taken back: its tag, the hash of its selection's entry, the images with its tag and those
    with its number in ``gsal_round``."""

    tag: str
    selection: str
    tagged: frozenset[str]
    numbered: frozenset[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for an entry."""
        return {
            "tag": self.tag,
            "selection": self.selection,
            "tagged": sorted(self.tagged),
            "numbered": sorted(self.numbered),
        }


@dataclass
class Rounds:
    """``live``: rounds by number; ``taken``: every number that was ever given out."""

    live: dict[int, Round] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)


def own(
    known: Sequence[Mapping[str, Any]], head: Head | None, dataset: str, name: str, recorded: Collection[str] = ()
) -> list[Mapping[str, Any]]:
    """The entries that are a dataset's history: its own, and its originals' of before it was cloned.

    Args:
        known: all entries of the ledger.
        head: the dataset's, as ``seen_by`` it.
        dataset: its id.
        name: its name, which entries of before 0.2 have instead of an id.
        recorded: hashes of selections that its run records hold.
    """
    upto = dict(head.lineage) if head else {}

    def mine(entry: Mapping[str, Any]) -> bool:
        writer = entry.get("dataset_id")
        if writer is None:
            return entry.get("dataset") == name or entry.get("hash") in recorded
        return bool(writer == dataset or entry["seq"] <= upto.get(writer, 0))

    return [entry for entry in known if mine(entry)]


def replay(history: Iterable[Mapping[str, Any]]) -> Rounds:
    """The rounds after all entries of a dataset's history."""
    out = Rounds()
    for entry in history:
        kind, number = entries.kind_of(entry), entry.get("round")
        if isinstance(number, int):
            out.taken.add(number)
        if kind == entries.SELECT and isinstance(number, int):
            ids = frozenset(str(p["id"]) for p in entry["picks"])
            out.live[number] = Round(str(entry.get("tag")), str(entry["hash"]), ids, ids)
        elif kind == entries.CANCEL:
            out.live = {k: r for k, r in out.live.items() if r.selection != entry["cancels"]}
        elif kind == entries.ACCEPTED:
            out.live = {int(k): _stated(r) for k, r in entry["rounds"].items()}
            out.taken |= set(out.live)
    return out


def _stated(value: Mapping[str, Any]) -> Round:
    return Round(str(value["tag"]), str(value["selection"]), frozenset(value["tagged"]), frozenset(value["numbered"]))
