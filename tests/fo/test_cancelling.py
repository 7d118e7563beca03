"""A round taken back: tag, fields and record go, labels and the ledger stay."""

from pathlib import Path

import fiftyone as fo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.audit import ledger
from gsal_fo.fo import auditing
from gsal_fo.fo.dataset import prepared
from tests.fo_pool import box

OURS = ["tags", "gsal_round", "gsal_sent", "gsal_status"]


@pytest.fixture
def own(dataset, graph, tiny):
    """A scored dataset with a run folder of its own: the ledger lies there."""
    gfo.score(dataset, concepts=graph)
    return dataset


def test_a_cancelled_round_leaves_no_trace_but_labels_and_the_ledger(own, tmp_path):
    before = own.values(["id", *["gsal_score", "gsal_rank"]])
    first = gfo.select(own, 2).values("id")
    kept = own.values(["tags", "gsal_round"])
    second = gfo.select(own, 3)
    gfo.export(second, tmp_path / "out")
    sample = second.first()
    sample["ground_truth"] = fo.Detections(detections=[box("petal")])
    sample.save()
    done = gfo.cancel(own)
    own.reload()
    assert done == {"round": 2, "tag": "gsal_round_002", "images": 3, "labeled": 1}
    assert own.values(["tags", "gsal_round"]) == kept
    assert own.list_runs() == ["gsal_handoff_001", "gsal_score_001", "gsal_select_001"], (
        "its labels may still come back"
    )
    assert all(own[i][f] is None for i in second.values("id") for f in OURS[1:])
    assert [d.label for d in own[sample.id].ground_truth.detections] == ["petal"]
    assert own.match(fo.ViewField("gsal_status") == "picked").values("id") == sorted(first, key=own.values("id").index)
    ranked = own.exists("gsal_rank").values("id")
    assert len(ranked) == 6, "9 in the pool, 2 in the first round, 1 labeled"
    gfo.cancel(own, round=1)
    own.reload()
    assert not any(own.has_sample_field(f) for f in OURS[1:]) and not own.count_sample_tags()
    own[sample.id].clear_field("ground_truth")
    labeled = own[sample.id]
    labeled["ground_truth"] = None
    labeled.save()
    gfo.select(own, 1)
    gfo.cancel(own)
    own.reload()
    assert own.values(["id", "gsal_score", "gsal_rank"]) == before, "the ranking is what it was before any round"


def test_the_ledger_says_who_cancelled_and_still_verifies(own):
    gfo.select(own, 2)
    gfo.cancel(own)
    gfo.select(own, 2)
    record = gfo.runs.load(own).config
    entries = ledger.read(Path(record.run_dir)).entries
    assert [(e["tag"], e.get("cancels")) for e in entries] == [
        ("gsal_round_001", None),
        ("gsal_round_001", entries[0]["hash"]),
        ("gsal_round_002", None),
    ], "a cancelled round keeps its number"
    assert entries[1]["who"] and entries[1]["when"]
    assert list(auditing.verify(own).values()) == [[]]


def test_what_cannot_be_cancelled_is_a_sentence(own):
    with pytest.raises(ValueError, match=r"has no round to cancel; it has none"):
        gfo.cancel(own)
    gfo.select(own, 1)
    with pytest.raises(ValueError, match=r"has no round 7; its rounds are 1"):
        gfo.cancel(own, round=7)


def test_an_interrupted_cancel_is_finished_by_the_next_command(own, monkeypatch):
    """Ctrl-C while the samples are written: the round is half gone, and asking how far it is takes it to its end."""
    gfo.select(own, 2)
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "merge", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            gfo.cancel(own)
    own.reload()
    assert own.count_sample_tags() == {"gsal_round_001": 2}
    assert gfo.status(own) == [] and own.count_sample_tags() == {}
    run = Path(gfo.runs.load(own).config.run_dir)
    assert len([e for e in ledger.read(run).entries if "cancels" in e]) == 1


def test_a_cancel_whose_ledger_cannot_be_written_has_not_happened(own):
    gfo.select(own, 2)
    run = Path(gfo.runs.load(own).config.run_dir)
    kept = (run / ledger.NAME).read_bytes()
    (run / ledger.NAME).write_bytes(kept.replace(b'"budget":2', b'"budget":3'))
    with pytest.raises(ValueError, match="the entry was altered"):
        gfo.cancel(own)
    (run / ledger.NAME).write_bytes(kept)
    assert gfo.status(own)[0]["picked"] == 2 and own.count_sample_tags() == {"gsal_round_001": 2}
    assert gfo.cancel(own)["images"] == 2


def test_deleting_a_selections_run_by_fiftyone_is_cancelling_it(own):
    before = own.values(["id", "gsal_score", "gsal_rank"])
    gfo.select(own, 2)
    own.delete_run("gsal_select_001")
    own.reload()
    assert own.values(["id", "gsal_score", "gsal_rank"]) == before
    assert not own.count_sample_tags() and own.list_runs() == ["gsal_score_001"]
    entries = ledger.read(Path(gfo.runs.load(own).config.run_dir)).entries
    assert entries[1]["cancels"] == entries[0]["hash"] and gfo.select(own, 1).values("gsal_round") == [2]
