"""``scores.csv``: rank, score and reason of each exported image, for a spreadsheet or a script."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsal_fo.fo.exchange.formats import Item

NAME = "scores.csv"
COLUMNS = ("file", "id", "rank", "score", "difficulty", "rarity", "round", "path", "rationale")
# A spreadsheet runs a cell that begins so as a formula, whoever wrote it. The last four are full-width forms.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
QUOTE = "'"


def write(items: Sequence[Item], path: Path) -> None:
    """Write the table, one row per image."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for i in items:
            row = {**i.row, "file": i.name, "id": i.id, "path": " > ".join(i.row["path"] or [])}
            writer.writerow({name: _cell(row.get(name)) for name in COLUMNS})


def _cell(value: Any) -> Any:
    """Text that would run as a formula, or begins with an apostrophe, gets one in front; a reader takes one off.

    Numbers are written as they are: a negative one is no formula.
    """
    return QUOTE + value if isinstance(value, str) and value.startswith((*FORMULA, QUOTE)) else value
