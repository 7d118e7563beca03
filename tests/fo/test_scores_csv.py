"""scores.csv: what a spreadsheet opens runs nothing, and what a script reads is what was written."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsal_fo.fo.exchange import scores_csv
from gsal_fo.fo.exchange.formats import Item

STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def item(name: str, **row) -> Item:
    return Item("0" * 24, Path(name), name, name, (64, 48), [], {"path": None, **row})


def read_back(path):
    """As README says: a cell that begins with an apostrophe has one too many."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return rows, [{k: v.removeprefix("'") for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("start", STARTS)
def test_no_cell_of_text_begins_as_a_formula_does(tmp_path, start):
    text = f'{start}HYPERLINK("http://x")'
    scores_csv.write([item(f"{text}.png", rationale=text, path=[text, "b"])], tmp_path / "s.csv")
    ((row,), (plain,)) = read_back(tmp_path / "s.csv")
    for name in ("file", "rationale", "path"):
        assert row[name].startswith("'" + start)
    assert (plain["file"], plain["rationale"], plain["path"]) == (f"{text}.png", text, f"{text} > b")


def test_numbers_stay_numbers(tmp_path):
    scores_csv.write([item("a.png", score=-1.5, rank=1, difficulty=-0.25, rarity=None)], tmp_path / "s.csv")
    ((row,), _) = read_back(tmp_path / "s.csv")
    assert (row["score"], row["rank"], row["difficulty"], row["rarity"]) == ("-1.5", "1", "-0.25", "")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(["'", "''=", "'a", "=1"]))
def test_any_text_reads_back(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("csv") / "s.csv"
    scores_csv.write([item("a.png", rationale=text)], path)
    ((row,), (plain,)) = read_back(path)
    assert plain["rationale"] == text and not row["rationale"].startswith(STARTS)
