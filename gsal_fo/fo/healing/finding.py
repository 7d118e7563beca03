"""One thing that is not as a command would have left it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gsal_fo.fo import journal, progress

Cure = Callable[[journal.Hold, progress.OnEvent], None]


@dataclass(frozen=True)
class Finding:
    """What was found: ``kind`` in a few words, ``detail`` in a sentence, ``cure``: what mends it.

    ``mendable``: whether `mend` does it, or a person must. ``mended``: it has.
    """

    kind: str
    detail: str
    cure: str
    mendable: bool = True
    mended: bool = False
    act: Cure | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("kind", "detail", "cure", "mendable", "mended")
        return {name: getattr(self, name) for name in names}


Findings = Iterator[Finding]
