"""The audit of a dataset: its run records hold the hashes that the ledger must still have."""

import html
import json
from pathlib import Path

import pytest

import gsal_fo.fo as gfo
from gsal_fo import cli
from gsal_fo.fo import auditing

FIRST = "gsal_score_001"


@pytest.fixture
def own(dataset, graph, tiny):
    """A dataset with a run folder of its own, which a test may damage; two rounds selected."""
    gfo.score(dataset, concepts=graph)
    gfo.select(dataset, 2)
    gfo.select(dataset, 3)
    return dataset


def folder(dataset) -> Path:
    return Path(gfo.runs.load(dataset, FIRST).config.run_dir)


def test_two_rounds_can_be_derived_again_from_what_is_stored(own, capsys):
    assert auditing.verify(own) == {folder(own): []}
    assert cli.main(["audit", "verify", own.name]) == 0
    assert "as it was" in capsys.readouterr().out


def test_the_record_of_a_selection_holds_the_hash_of_its_entry(own):
    entries = [json.loads(line) for line in (folder(own) / "ledger.jsonl").read_text().splitlines()]
    heads = [gfo.runs.load(own, key).config.ledger for key in ("gsal_select_001", "gsal_select_002")]
    assert heads == [e["hash"] for e in entries]
    assert [p["id"] for p in entries[1]["picks"]] == [p["id"] for p in gfo.runs.picks(own, "gsal_select_002")]
    assert (entries[0]["dataset"], entries[0]["tag"], entries[1]["previous"]) == (own.name, "gsal_round_001", heads[0])


def test_an_altered_part_is_named_and_the_exit_code_says_so(own, capsys):
    part = sorted((folder(own) / "difficulty").glob("part-*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert cli.main(["audit", "verify", own.name, "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["altered"] and any(
        f"difficulty/{part.name} was altered" in text for text in said["problems"][str(folder(own))]
    )


def test_a_ledger_written_anew_does_not_fit_the_records(own):
    """Whoever can write files can build a chain that is sound in itself; the dataset still knows the old hashes."""
    path = folder(own) / "ledger.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert auditing.verify(own) == {
        folder(own): [f"{path}: the dataset records the selection gsal_round_002, and its entry is gone"]
    }


def test_labels_that_came_back_and_a_new_scoring_change_no_verdict(own, graph):
    gfo.score(own, concepts=graph)
    assert auditing.verify(own) == {folder(own): []}


def test_a_clone_selects_from_the_same_folder_and_both_are_sound(own):
    other = own.clone()
    gfo.select(other, 1)
    assert auditing.verify(own) == auditing.verify(other) == {folder(own): []}
    other.delete()


def test_a_dataset_without_selections_is_a_sentence(scored, capsys):
    assert cli.main(["audit", "verify", scored.name]) == 1
    assert "nothing was selected yet" in capsys.readouterr().err


def test_the_report_shows_each_pick_its_sentence_and_who_came_next(own, tmp_path, capsys):
    out = tmp_path / "audit.html"
    assert cli.main(["audit", "report", own.name, "--out", str(out), "--round", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["picks"] == 3
    page = out.read_text()
    for pick in gfo.runs.picks(own, "gsal_select_002"):
        assert html.escape(pick["rationale"]) in page and pick["id"] in page
    assert page.count('alt="image"') == 4 and page.count('alt="decisive crop"') == 4, "three picks and the next best"
    assert "nothing was altered" in page and "was not picked: its score" in page
    assert gfo.runs.load(own, "gsal_select_002").config.ledger in page
    assert "gsal_round_001" not in page


def test_the_report_of_an_altered_run_says_so_first(own, tmp_path):
    part = sorted((folder(own) / "assignment").glob("part-*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert cli.main(["audit", "report", own.name, "--out", str(tmp_path / "a.html")]) == 3
    assert f"assignment/{part.name} was altered" in (tmp_path / "a.html").read_text()


def test_a_round_that_is_not_there_is_a_sentence(own, tmp_path, capsys):
    assert cli.main(["audit", "report", own.name, "--out", str(tmp_path / "a.html"), "--round", "7"]) == 1
    assert "has no selection ['gsal_round_007']; it has gsal_round_001, gsal_round_002" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()
