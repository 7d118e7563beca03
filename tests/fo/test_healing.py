"""What killed commands of older versions have left, made as they left it: found, named, mended or left to a person."""

import json
import shutil
from pathlib import Path

import fiftyone as fo
import fiftyone.core.odm as foo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.audit import ledger
from gsal_fo.cli import main
from gsal_fo.fo import auditing, healing, locks, owners
from gsal_fo.fo.dataset import fields
from tests.fo_pool import box
from tests.mortal import Mortals, on

MARKS = ["tags", "gsal_round", "gsal_status"]


@pytest.fixture(scope="module")
def mortals():
    return Mortals()


@pytest.fixture
def own(dataset, graph, tiny):
    """A scored dataset with a run folder of its own: the ledger lies there."""
    gfo.score(dataset, concepts=graph, detector="grid")
    return dataset


def folder(dataset, key=None):
    return Path(gfo.runs.load(dataset, key).config.run_dir)


def kinds(found):
    return [(f.kind, f.mendable) for f in found]


def mended(dataset, *expected):
    """`examine` finds these kinds and changes nothing, `mend` mends them, and then nothing is left."""
    dataset.reload()
    before = list(dataset._sample_collection.find())
    assert [f.kind for f in healing.examine(dataset)] == list(expected)
    assert list(dataset._sample_collection.find()) == before
    done = healing.mend(dataset)
    assert [(f.kind, f.mended) for f in done] == [(kind, True) for kind in expected]
    assert healing.examine(dataset) == []
    dataset.reload()
    return done


def unmark(dataset, ids, *, tags=True, numbers=True):
    """Take marks away without any command of ours."""
    view = dataset.select(ids)
    if tags:
        view.untag_samples("gsal_round_001")
    if numbers:
        for name in fields.SELECT_FIELDS:
            if dataset.has_sample_field(name):
                view.clear_sample_field(name)


def test_a_dataset_of_finished_commands_has_nothing_to_mend(own):
    gfo.select(own, 2)
    gfo.setup_views(own)
    gfo.select(own, 3)
    gfo.cancel(own)
    assert healing.examine(own) == [] and healing.mend(own) == []


def test_what_a_person_did_to_a_round_is_no_finding(own):
    """One tag taken away, one given, one image deleted, and a tag of that form that is the person's own."""
    a, b, _ = gfo.select(own, 3).values("id")
    own.select([a]).untag_samples("gsal_round_001")
    own.delete_samples([b])
    own.limit(1).tag_samples("gsal_round_001")
    own.limit(1).tag_samples("gsal_round_077")
    assert healing.examine(own) == []


def test_a_round_whose_images_are_all_deleted_is_no_phantom(own):
    own.delete_samples(gfo.select(own, 2).values("id"))
    assert healing.examine(own) == []


def test_a_round_that_was_killed_before_its_tag_gets_it(own):
    ids = gfo.select(own, 3).values("id")
    expected = own.values(MARKS)
    unmark(own, ids, numbers=False)
    done = mended(own, "round without tag")
    assert "3 images are of round 1" in done[0].detail and own.values(MARKS) == expected


def test_a_round_that_was_killed_before_its_fields_gets_its_marks_where_no_other_round_has_its_images(own):
    ids = gfo.select(own, 3).values("id")
    expected = own.values(MARKS)
    unmark(own, ids)
    mended(own, "round without marks")
    assert own.values(MARKS) == expected and list(auditing.verify(own).values()) == [[]]


def test_a_phantom_round_whose_images_were_selected_again_is_cancelled(own):
    """An older version's select, killed, and given again: both rounds name the same images."""
    ids = gfo.select(own, 3).values("id")
    unmark(own, ids)
    assert gfo.select(own, 3).values("id") == ids
    done = mended(own, "phantom round")
    assert "3 of its images are in another round by now" in done[0].detail
    assert gfo.runs.select_keys(own) == ["gsal_select_002"] and own.count_sample_tags() == {"gsal_round_002": 3}
    assert [e.get("cancels") is not None for e in ledger.read(folder(own)).entries] == [False, False, True]
    assert list(auditing.verify(own).values()) == [[]] and gfo.select(own, 1).values("gsal_round") == [3]


def test_a_phantom_round_that_lost_its_picks_is_cancelled(own):
    ids = gfo.select(own, 3).values("id")
    unmark(own, ids)
    doc = own._doc.runs["gsal_select_001"]
    doc.results.delete()
    doc.save()
    done = mended(own, "phantom round")
    assert "what it picked is lost" in done[0].detail and own.list_runs() == ["gsal_score_001"]


def test_a_selection_that_reached_the_ledger_alone_is_taken_back_there(own):
    ids = gfo.select(own, 2).values("id")
    unmark(own, ids)
    FiftyOnesOwn(own).delete("gsal_select_001")
    mended(own, "selection without round", "fields without record")
    first, second = ledger.read(folder(own)).entries
    assert second["cancels"] == first["hash"] and gfo.select(own, 1).values("gsal_round") == [2]


def test_a_cancelling_that_stopped_after_the_ledger_is_finished(own):
    """The older order: ledger, then tags, fields, record."""
    gfo.select(own, 2)
    doc = json.loads((folder(own) / ledger.NAME).read_text())
    about = {"dataset": own.name, "dataset_id": str(own._doc.id), "kind": "cancel", "round": 1, "tag": "gsal_round_001"}
    written = ledger.append(folder(own), {**about, "cancels": doc["hash"], "who": "me", "when": "now", "code": "0.1.0"})
    info = gfo.runs.load(own)
    info.config.ledger_head = {**info.config.ledger_head, "count": 2, "hash": written["hash"]}
    own.update_run_config(info.key, info.config)
    mended(own, "half cancelled round")
    assert own.list_runs() == ["gsal_score_001"] and not own.count_sample_tags()
    assert len(ledger.read(folder(own)).entries) == 2


class FiftyOnesOwn:
    """What FiftyOne's own calls leave, without any method of ours."""

    def __init__(self, dataset):
        self.dataset = dataset

    def delete(self, key):
        self.dataset.reload()
        fo.Run.delete_run(self.dataset, key, cleanup=False)


def test_marks_of_a_round_that_no_record_knows_are_removed(own):
    """FiftyOne deletes a record even where our part of it has failed."""
    gfo.select(own, 2)
    FiftyOnesOwn(own).delete("gsal_select_001")
    own.limit(1).tag_samples("mine")
    own.reload()
    found = [f.kind for f in healing.examine(own)]
    assert found == ["round without record", "selection without round"], "its fields are not empty yet"
    assert [f.kind for f in healing.mend(own) if f.mended] == [*found, "fields without record"]
    own.reload()
    assert own.count_sample_tags() == {"mine": 1} and not own.has_sample_field("gsal_round")
    assert gfo.select(own, 2).values("gsal_round") == [2, 2]


def test_scores_that_were_half_written_are_written_again(own):
    """An older version's score, killed between two bulk writes; the labels of now count."""
    expected = own.values(["gsal_score", "gsal_rank", "gsal_rationale", "gsal_proposals.detections.bonus"])
    info = gfo.runs.load(own)
    info.config.complete = False
    own.update_run_config(info.key, info.config)
    own.limit(6).clear_sample_fields([f for f in fields.SCORE_FIELDS if own.has_sample_field(f)])
    shutil.rmtree(folder(own) / "maps")
    mended(own, "half written scores")
    assert own.values(["gsal_score", "gsal_rank", "gsal_rationale", "gsal_proposals.detections.bonus"]) == expected
    assert gfo.runs.load(own).config.complete and all(
        Path(m.map_path).exists() for m in own.exists("gsal_map").values("gsal_map")
    )


def test_scores_that_a_scoring_of_nothing_has_emptied_come_back(own, graph):
    """An older version with the images' share away: exit 0, and no score left; the scoring before has them all."""
    expected = own.values(["gsal_score", "gsal_rank"])
    gfo.score(own, concepts=graph, detector="grid", params={"lam": 2.0}, run_key="empty")
    info = gfo.runs.load(own, "empty")
    info.config.counts["scored"] = 0
    own.update_run_config("empty", info.config)
    own.clear_sample_fields([f for f in fields.SCORE_FIELDS if own.has_sample_field(f)])
    done = mended(own, "lost scores")
    assert "empty scored no image" in done[0].detail
    assert own.values(["gsal_score", "gsal_rank"]) == expected and gfo.runs.score_keys(own) == ["gsal_score_001"]
    assert gfo.runs.writer(own) == "gsal_score_001" and len(gfo.select(own, 2)) == 2


def test_half_written_scores_without_a_run_folder_go_and_others_are_not_invented(own):
    info = gfo.runs.load(own)
    info.config.complete = False
    info.config.run_dir = "/nowhere"
    own.update_run_config(info.key, info.config)
    own.reload()
    assert kinds(healing.examine(own)) == [("run folder gone", False), ("lost scores", True)]
    assert [(f.kind, f.mended) for f in healing.mend(own)] == [("run folder gone", False), ("lost scores", True)]
    own.reload()
    assert own.list_runs() == [] and not any(name.startswith("gsal_") for name in own.get_field_schema())


def test_a_run_folder_that_is_gone_is_named_and_left_to_a_person(own, capsys):
    own.persistent = True
    where = folder(own)
    where.rename(where.with_name("aside"))
    assert main(["doctor", own.name, "--mend", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert (found["kind"], found["mendable"], found["mended"]) == ("run folder gone", False, False)
    assert str(where) in found["detail"] and "bring the folder back" in found["cure"]
    where.with_name("aside").rename(where)
    assert main(["doctor", own.name]) == 0 and "nothing is left half done" in capsys.readouterr().out


def test_a_reference_to_a_run_that_is_gone_and_a_record_that_nothing_refers_to_are_removed(own):
    """What FiftyOne's delete_run and register_run leave, killed before they save the dataset."""
    gfo.select(own, 1)
    db = foo.get_db_conn()
    runs = db.runs.find_one({"_dataset_id": own._doc.id, "key": "gsal_select_001"})
    lost = db.runs.insert_one(
        {**{k: v for k, v in runs.items() if k not in ("_id", "results")}, "key": "gsal_select_009"}
    )
    other = db.runs.insert_one(
        {"_dataset_id": own._doc.id, "key": "brain", "config": {"cls": "fiftyone.brain.X", "type": "x"}}
    )
    db.datasets.update_one({"_id": own._doc.id}, {"$set": {"runs.gsal_select_007": lost.inserted_id.__class__()}})
    mended(own, "reference to nothing", "lost record")
    assert own.list_runs() == ["gsal_score_001", "gsal_select_001"]
    assert db.runs.find_one({"_id": other.inserted_id}) and not db.runs.find_one({"_id": lost.inserted_id})
    db.runs.delete_one({"_id": other.inserted_id})


def test_what_a_killed_command_of_now_left_is_named_and_finished(mortals, own):
    own.persistent = True
    whole = mortals.run(on(own.name, "gfo.select(ds, 3)"))
    gfo.cancel(own)
    at = 1 + whole.writes.index(next(w for w in whole.writes if w.startswith("aggregate")))
    assert mortals.run(on(own.name, "gfo.select(ds, 3)"), at=at).killed
    own.reload()
    (found,) = healing.examine(own)
    assert found.kind == "unfinished command" and f"select of {owners.user()} was cut short" in found.detail
    assert [(f.kind, f.mended) for f in healing.mend(own)] == [("unfinished command", True)]
    assert [(r["round"], r["images"]) for r in gfo.status(own)] == [(2, 3)] and locks.read(own) is None


def test_a_lock_whose_owner_is_gone_is_named_and_given_back(mortals, own):
    own.persistent = True
    took = mortals.run(on(own.name, "gfo.select(ds, 3)"), at=3)
    assert took.killed
    mended(own, "stale lock")
    assert locks.read(own) is None and gfo.status(own) == []


def test_the_command_line_says_what_it_found_and_mended(own, capsys):
    own.persistent = True
    ids = gfo.select(own, 3).values("id")
    unmark(own, ids, numbers=False)
    assert main(["doctor", own.name]) == 1
    said = capsys.readouterr().out
    assert "!!  round without tag: 3 images are of round 1" in said and f"gsal doctor {own.name} --mend" in said
    assert main(["doctor", own.name, "--mend"]) == 0
    assert "mended  round without tag" in capsys.readouterr().out
    assert main(["doctor", "--mend"]) == 1 and "--mend needs a dataset" in capsys.readouterr().err
    assert main(["doctor", "nobody"]) == 1 and 'has no dataset "nobody"' in capsys.readouterr().err


def test_labels_are_never_touched(own):
    gfo.select(own, 3)
    sample = own.match_tags("gsal_round_001").first()
    sample["ground_truth"] = fo.Detections(detections=[box("petal")])
    sample.save()
    labels = [s.get("ground_truth") for s in own._sample_collection.find()]
    FiftyOnesOwn(own).delete("gsal_select_001")
    healing.mend(own)
    assert [s.get("ground_truth") for s in own._sample_collection.find()] == labels
