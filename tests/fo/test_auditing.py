"""The audit of a dataset: its run records hold the hashes that the ledger must still have."""

import html
import json
import shutil
from pathlib import Path

import fiftyone as fo
import pytest

import gsal_fo.fo as gfo
from gsal_fo import cli
from gsal_fo.audit import entries, ledger
from gsal_fo.fo import auditing, ledgers

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
        folder(own): [
            f"{path}: 1 entry is gone from its end; the dataset remembers 2",
            f"{path}: the dataset records the selection gsal_round_002, and its entry is gone",
        ]
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


@pytest.fixture
def apart(scored, tmp_path):
    """A scored dataset whose run folder is its own; two rounds selected."""
    info = gfo.runs.load(scored)
    info.config.run_dir = str(shutil.copytree(info.config.run_dir, tmp_path / "run"))
    (tmp_path / "run" / ledger.NAME).unlink(missing_ok=True)  # of the template's other clones
    scored.update_run_config(info.key, info.config)
    gfo.select(scored, 2)
    gfo.select(scored, 3)
    return scored


def problems(dataset) -> list[str]:
    (found,) = auditing.verify(dataset).values()
    return found


def lines(dataset) -> list[dict]:
    return ledger.read(folder(dataset)).entries


def cut(dataset, count: int = 1) -> None:
    path = folder(dataset) / ledger.NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-count]))


def ids(dataset, tag: str) -> list[str]:
    return sorted(dataset.match_tags(tag).values("id"))


def test_a_tag_that_was_moved_is_named_until_it_is_accepted(apart, capsys):
    lost, kept = ids(apart, "gsal_round_001")
    (more,) = apart.match(~fo.ViewField("tags").contains(["gsal_round_001", "gsal_round_002"])).limit(1).values("id")
    apart.select(lost).untag_samples("gsal_round_001")
    apart.select(more).tag_samples("gsal_round_001")
    assert problems(apart) == [
        f'tag "gsal_round_001": 1 image ({lost}) is without it, and of round 1 by the ledger',
        f'tag "gsal_round_001": 1 image ({more}) is with it, and not of round 1 by the ledger',
    ]
    assert cli.main(["audit", "verify", apart.name]) == 3
    assert cli.main(["audit", "accept", apart.name]) == 0
    assert "2 differences are accepted" in capsys.readouterr().out
    assert problems(apart) == []
    entry = lines(apart)[-1]
    assert entry["kind"] == "accepted" and entry["who"] and len(entry["problems"]) == 2
    assert set(entry["rounds"]["1"]["tagged"]) == {kept, more} and sorted(entry["rounds"]) == ["1", "2"]
    apart.select(kept).untag_samples("gsal_round_001")
    assert len(problems(apart)) == 1
    assert cli.main(["audit", "accept", apart.name]) == 0 and cli.main(["audit", "accept", apart.name]) == 0
    assert "nothing differs" in capsys.readouterr().out and len(lines(apart)) == 4


def test_a_number_that_was_changed_and_an_image_that_is_gone_are_named(apart):
    one, two = ids(apart, "gsal_round_001")
    apart.set_values("gsal_round", {one: 2}, key_field="id")
    apart.delete_samples([two])
    assert problems(apart) == [
        f"round 1: 1 image ({two}) is no longer in the dataset",
        f"gsal_round 1: 1 image ({one}) is without it, and of round 1 by the ledger",
        f"gsal_round 2: 1 image ({one}) is with it, and not of round 2 by the ledger",
    ]
    auditing.accept(apart)
    assert problems(apart) == []


def test_a_cancellation_that_was_cut_off_is_noticed_and_its_number_is_not_given_out_again(apart):
    gfo.cancel(apart)
    cut(apart)
    (said,) = problems(apart)
    assert said == f"{folder(apart) / ledger.NAME}: 1 entry is gone from its end; the dataset remembers 3"
    before = apart.count_sample_tags(), lines(apart)
    with pytest.raises(ValueError, match=r"1 entry is gone .*nothing was changed. See `gsal audit verify`"):
        gfo.select(apart, 1)
    assert (apart.count_sample_tags(), lines(apart)) == before
    cut(apart)  # the selection itself, too
    assert "2 entries are gone" in problems(apart)[0]
    auditing.accept(apart)
    assert problems(apart) == []
    (kept,) = folder(apart).glob("ledger-*.jsonl")
    assert lines(apart)[0]["aside"] == {kept.name: entries.file_digest(kept)}
    assert sorted(gfo.select(apart, 1).distinct("tags")) == ["gsal_round_003"]
    assert problems(apart) == []


def test_a_ledger_that_is_gone_is_noticed_after_every_round_was_cancelled(apart):
    gfo.cancel(apart)
    gfo.cancel(apart)
    assert problems(apart) == []
    (folder(apart) / ledger.NAME).unlink()
    assert "4 entries are gone from its end" in problems(apart)[0]
    auditing.accept(apart)
    assert sorted(gfo.select(apart, 1).distinct("tags")) == ["gsal_round_003"]


def test_marks_of_a_cancelled_round_and_of_one_that_nobody_selected_are_named(apart):
    (one, *_), three = ids(apart, "gsal_round_001"), ids(apart, "gsal_round_002")
    gfo.cancel(apart)
    apart.select(three[0]).tag_samples("gsal_round_002")
    apart.select(three[1]).tag_samples("gsal_round_007")
    apart.set_values("gsal_round", {three[2]: 9}, key_field="id")
    assert problems(apart) == [
        f"round 2 was taken back, and 1 image ({three[0]}) is marked as of it",
        f'tag "gsal_round_007": 1 image ({three[1]}) is tagged, and no such round was selected',
        f"gsal_round 9: 1 image ({three[2]}) is in it, and no such round was selected",
    ]
    auditing.accept(apart)
    assert one and [p for p in problems(apart) if "round 2" not in p] == []


def test_a_run_record_that_was_altered_or_removed_is_named(apart):
    info = gfo.runs.load(apart, "gsal_select_001")
    info.config.budget, info.config.params = 7, {**info.config.params, "lam": 3.0}
    apart.update_run_config(info.key, info.config)
    picks = gfo.runs.picks(apart, "gsal_select_002")
    config = gfo.runs.load(apart, "gsal_select_002").config
    results = gfo.runs.GSALSelectRunResults(apart, config, "gsal_select_002", picks=picks[::-1])
    apart.save_run_results("gsal_select_002", results)
    budget, params, order = problems(apart)
    assert budget == "gsal_select_001: budget is 7, and the ledger says 2"
    assert params.startswith("gsal_select_001: params is {") and order.endswith("its picks are not those of the ledger")


def test_a_deleted_selection_is_cancelled_and_a_deleted_scoring_leaves_nothing_to_prove(apart, graph, tiny, capsys):
    apart.delete_run("gsal_select_001")
    assert problems(apart) == [] and (lines(apart)[-1]["kind"], lines(apart)[-1]["round"]) == ("cancel", 1)
    apart.delete_run(FIRST)
    lost = "gsal_select_002: its scoring gsal_score_001 is gone from the dataset, and its picks cannot be proven"
    assert cli.main(["audit", "verify", apart.name]) == 1 and lost in capsys.readouterr().err
    second = gfo.score(apart, concepts=graph)
    gfo.select(apart, 1, run_key=second)
    assert problems(apart) == [lost]
    auditing.accept(apart)
    assert problems(apart) == []


def test_what_a_clone_cancels_is_not_cancelled_in_the_original(apart):
    other = apart.clone()
    gfo.cancel(other, round=1)
    gfo.select(other, 1)
    assert problems(apart) == problems(other) == []
    apart.name = f"{apart.name[:40]}-renamed"
    assert gfo.cancel(apart, round=1)["images"] == 2
    assert problems(apart) == problems(other) == []
    gfo.cancel(apart)
    assert sorted(gfo.select(apart, 1).distinct("tags")) == ["gsal_round_003"], "its own number, never given out here"
    assert [(e["kind"], e["round"]) for e in lines(apart) if e["dataset_id"] == ledgers.identity(other)] == [
        ("cancel", 1),
        ("select", 3),
    ]
    assert problems(apart) == problems(other) == []
    other.delete()


def test_what_is_cut_from_the_end_of_a_clones_history_is_noticed_by_the_clone(apart):
    other = apart.clone()
    gfo.cancel(other)
    cut(apart)
    assert problems(apart) == []
    assert "1 entry is gone" in problems(other)[0]
    other.delete()


def test_an_entry_is_added_once_whenever_its_operation_is_cut_short(apart):
    key = FIRST
    entry = {"kind": "sent", "rounds": [1], "images": []}
    done = {**entry, "dataset": apart.name, "dataset_id": ledgers.identity(apart), "operation": "op"}
    first = ledger.append(folder(apart), done)  # killed before the head followed
    assert ledgers.head(apart, key).count == 2
    assert ledgers.record(apart, key, entry, operation="op") == first["hash"]
    head = ledgers.head(apart, key)
    assert (head.count, head.hash, head.round, len(lines(apart))) == (3, first["hash"], 2, 3)
    ledgers.record(apart, key, entry, operation="another")
    assert ledgers.record(apart, key, entry, operation="op") == first["hash"]
    assert ledgers.head(apart, key).count == len(lines(apart)) == 4


def test_a_torn_append_is_no_alteration_and_the_next_command_goes_on(apart):
    path = folder(apart) / ledger.NAME
    path.write_bytes(path.read_bytes() + b'{"kind": "sel')
    assert problems(apart) == []
    gfo.cancel(apart)
    assert problems(apart) == [] and len(lines(apart)) == 3


def as_before_heads(dataset) -> None:
    """The ledger, and what the dataset knows of it, as version 0.1 wrote them."""
    old = [{k: v for k, v in e.items() if k not in ("kind", "dataset_id", "operation")} for e in lines(dataset)]
    (folder(dataset) / ledger.NAME).unlink()
    marks = [ledger.append(folder(dataset), e)["hash"] for e in old]
    info = gfo.runs.load(dataset, FIRST)
    del info.config.ledger_head
    dataset.update_run_config(FIRST, info.config)
    for key, mark in zip(gfo.runs.select_keys(dataset), marks, strict=True):
        info = gfo.runs.load(dataset, key)
        info.config.ledger = mark
        dataset.update_run_config(key, info.config)


def test_a_ledger_of_before_heads_verifies_goes_on_and_is_guarded_from_then_on(apart):
    as_before_heads(apart)
    assert problems(apart) == [] and ledgers.head(apart, FIRST) is None
    gfo.cancel(apart)
    assert problems(apart) == [] and ledgers.head(apart, FIRST).count == 3
    assert sorted(gfo.select(apart, 1).distinct("tags")) == ["gsal_round_003"]
    cut(apart, 2)
    assert "2 entries are gone" in problems(apart)[0]


def test_a_record_of_the_head_that_was_altered_is_a_sentence(apart, capsys):
    info = gfo.runs.load(apart, FIRST)
    info.config.ledger_head = {"count": "many"}
    apart.update_run_config(FIRST, info.config)
    assert cli.main(["audit", "verify", apart.name]) == 1
    assert "the dataset's record of a ledger was altered" in capsys.readouterr().err


def test_what_was_sent_and_what_came_back_are_entries(apart, tmp_path):
    batch = apart.match_tags("gsal_round_001")
    out = gfo.export(batch, tmp_path / "out", "coco")
    report = gfo.ingest(apart, out, accept_prelabels=True, empty_means_done=True)
    sent, taken = lines(apart)[-2:]
    assert (sent["kind"], sent["to"], sent["format"]) == ("sent", str(out), "coco")
    assert (taken["kind"], taken["source"], taken["label_field"]) == ("labels", "out", "ground_truth") and taken[
        "digest"
    ]
    assert sent["images"] == taken["images"] == ids(apart, "gsal_round_001") == sorted(report.labeled)
    assert problems(apart) == [] and ledgers.head(apart, FIRST).count == 4
    gfo.ingest(apart, out, accept_prelabels=True, empty_means_done=True)
    assert len(lines(apart)) == 4, "nothing new came"


def test_a_ledger_that_is_broken_keeps_no_labels_out_and_is_told(apart, tmp_path, caplog):
    cut(apart)
    out = gfo.export(apart.match_tags("gsal_round_001"), tmp_path / "out", "coco")
    assert [r.message for r in caplog.records if "not in the ledger of gsal_score_001" in r.message]
    report = gfo.ingest(apart, out, accept_prelabels=True, empty_means_done=True)
    assert len(report.labeled) == 2
    assert [text for text in report.notes if "not in the ledger of gsal_score_001" in text]
    assert len(lines(apart)) == 1
