"""What a dataset remembers of a ledger, so that the end of the file cannot be cut off or written anew unnoticed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Head:
    """The last entry that a dataset knows of.

    ``dataset``: id of the dataset that wrote it (a clone has its original's head until it writes an entry itself);
    ``count``: entries up to and with it; ``hash``: its hash; ``round``: the highest number of a round given out;
    ``lineage``: (dataset id, count) of the datasets that this one was cloned from: their entries up to there are its
    own history, what they wrote later is not.
    """

    dataset: str
    count: int
    hash: str
    round: int = 0
    lineage: tuple[tuple[str, int], ...] = ()

    def seen_by(self, dataset: str) -> "Head":
        """The head as this dataset has it: a clone's history ends where it was cloned."""
        if self.dataset == dataset:
            return self
        return replace(self, dataset=dataset, lineage=(*self.lineage, (self.dataset, self.count)))

    def problems(self, entries: Sequence[Mapping[str, Any]], path: Path) -> list[str]:
        """What a ledger's entries lack of what the dataset remembers, one sentence."""
        if len(entries) < self.count:
            gone = self.count - len(entries)
            what = "entry is" if gone == 1 else "entries are"
            return [f"{path}: {gone} {what} gone from its end; the dataset remembers {self.count}"]
        if self.count and entries[self.count - 1]["hash"] != self.hash:
            return [f"{path}: entry {self.count} is not the one that the dataset remembers; the file was written anew"]
        return []

    def after(self, entry: Mapping[str, Any]) -> "Head":
        """The head once the dataset has written ``entry``; one that it wrote before changes nothing."""
        if entry["seq"] <= self.count:
            return self
        number = entry.get("round")
        highest = max(self.round, number if isinstance(number, int) else 0)
        return replace(self, count=entry["seq"], hash=entry["hash"], round=highest)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the database."""
        return {**asdict(self), "lineage": [list(pair) for pair in self.lineage]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Head":
        """What ``to_dict`` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            lineage = tuple((str(dataset), int(count)) for dataset, count in value["lineage"])
            return cls(str(value["dataset"]), int(value["count"]), str(value["hash"]), int(value["round"]), lineage)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the dataset's record of a ledger was altered: {dict(value)!r:.200}") from error
