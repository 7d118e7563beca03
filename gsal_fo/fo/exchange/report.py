"""What an ingest has taken, what it has not, and why."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class IngestReport:
    """What came back. Lists hold sample ids where nothing else is said.

    - ``labeled``: labeled now; of them ``empty`` without a box, ``replaced``: had been taken as empty by an earlier
      ingest. ``boxes``: how many were written.
    - ``unchanged``: the same labels were there, or labels are there and nothing that counts as an answer came.
    - ``conflicts``: other labels were there and stay; of them ``raced``: somebody labeled them while this ran.
    - ``untouched``: came back as they were sent, without a sign that somebody finished them (``accept_prelabels`` takes
      those).
    - ``unanswered``: came back without a box and without such a sign (``empty_means_done`` takes those).
    - ``waiting``: images of a round that are still with the labelers.
    - ``unread``: "NAME: reason" for what could not be read; its image stays as it is. ``unmatched``: names that fit no
      sample, or several. ``dropped``: what annotators wrote and a Detection cannot hold, with counts. ``notes``: what
      was decided in reading.
    - ``unknown_labels``: labels that the scoring's graph lacks, with counts.
    """

    labeled: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    raced: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    boxes: int = 0
    unknown_labels: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """One sentence."""
        parts = [f"{len(self.labeled)} images labeled with {self.boxes} boxes, {len(self.empty)} of them empty"]
        for count, what in (
            (len(self.replaced), "of them had been taken as empty before"),
            (len(self.unchanged), "already had their labels"),
            (len(self.conflicts), "have other labels and were left as they are"),
            (len(self.raced), "of those were labeled by somebody else meanwhile"),
            (
                len(self.untouched),
                "came back exactly as they were sent and were not taken (--accept-prelabels takes them)",
            ),
            (
                len(self.unanswered),
                "came back without a box or a sign that somebody finished them and were not taken "
                "(--empty-means-done takes them)",
            ),
            (len(self.unread), "entries could not be read, and their images stay as they are"),
            (len(self.unmatched), "matched no sample"),
            (len(self.waiting), "are still with the labelers"),
        ):
            parts += [f"{count} {what}"] if count else []
        if self.dropped:
            parts.append("not kept: " + ", ".join(f"{n} {what}" for what, n in sorted(self.dropped.items())))
        if self.unknown_labels:
            parts.append(f"labels outside the concept graph: {', '.join(sorted(self.unknown_labels))}")
        return "; ".join(parts) + "."

    def details(self) -> list[str]:
        """What is named beside the summary, a line each, at most ten of a kind."""
        lines: list[str] = []
        for what, names in (("not read", self.unread), ("no sample", self.unmatched), ("note", self.notes)):
            lines += [f"{what}: {name}" for name in names[:10]]
            lines += [f"{what}: and {len(names) - 10} more"] if len(names) > 10 else []
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
