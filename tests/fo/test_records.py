"""Run records written step by step, held against what FiftyOne itself writes for the same run."""

import fiftyone as fo
import fiftyone.core.odm as foo
import pytest

from gsal_fo.fo import runs
from gsal_fo.fo.dataset import records

OWN = ("_id", "timestamp", "results", "uploadDate", "files_id", "filename")  # differ between any two runs


@pytest.fixture
def pair():
    both = [fo.Dataset(), fo.Dataset()]
    for dataset in both:
        dataset.add_sample(fo.Sample("/a.png"))
    yield both
    for dataset in both:
        dataset.delete()


def config():
    return runs.GSALSelectRunConfig(tag="gsal_round_001", round=1, score_run="s", budget=2, coverage=[["a.b$", 1]])


def stored(dataset):
    """The record's documents as they lie in the database: reference, run, results file and its pieces."""
    db = foo.get_db_conn()
    reference = db.datasets.find_one({"_id": dataset._doc.id})["runs"]
    run = db.runs.find_one({"_dataset_id": dataset._doc.id})
    file = db["fs.files"].find_one({"_id": run["results"]})
    pieces = list(db["fs.chunks"].find({"files_id": run["results"]}))
    assert reference["gsal_select_001"] == run["_id"]
    plain = [{k: v for k, v in d.items() if k not in (*OWN, "_dataset_id")} for d in (run, file, *pieces)]
    return [{k: type(v) for k, v in d.items()} for d in (reference, run, file)], plain


def test_a_record_lies_as_fiftyone_would_have_laid_it(pair):
    ours, theirs = pair
    picks = [{"id": "x", "rank": 1, "score": 0.5, "rationale": "so"}]
    theirs.register_run("gsal_select_001", config())
    theirs.save_run_results(
        "gsal_select_001", runs.GSALSelectRunResults(theirs, config(), "gsal_select_001", picks=picks)
    )
    results = runs.GSALSelectRunResults(ours, config(), "gsal_select_001", picks=picks)
    records.write(ours, records.new(ours, "gsal_select_001", config(), results))
    assert stored(ours) == stored(theirs)
    assert runs.picks(ours, "gsal_select_001") == picks and runs.load(ours, "gsal_select_001").config.budget == 2


def test_writing_again_changes_nothing_and_leaves_nothing_behind(pair):
    dataset, _ = pair
    results = runs.GSALSelectRunResults(dataset, config(), "gsal_select_001", picks=[{"id": "x"}])
    made = records.new(dataset, "gsal_select_001", config(), results)
    db = foo.get_db_conn()
    counts = []
    for _ in range(2):
        records.write(dataset, made)
        counts.append([db[c].count_documents({}) for c in ("runs", "fs.files", "fs.chunks")])
    assert counts[0] == counts[1] and runs.picks(dataset, "gsal_select_001") == [{"id": "x"}]
    records.remove(dataset, "gsal_select_001")
    after = [db[c].count_documents({}) for c in ("runs", "fs.files", "fs.chunks")]
    assert after == [n - 1 for n in counts[0]] and dataset.list_runs() == []
    records.remove(dataset, "gsal_select_001")


def test_another_run_of_the_key_is_refused_and_stays(pair):
    dataset, _ = pair
    made = records.new(dataset, "gsal_select_001", config())
    dataset.register_run("gsal_select_001", fo.RunConfig(mine=True))
    with pytest.raises(ValueError, match='has another run "gsal_select_001"'):
        records.write(dataset, made)
    dataset.reload()
    assert dataset.get_run_info("gsal_select_001").config.mine


def test_a_run_that_is_written_again_under_its_key_keeps_its_place(pair):
    dataset, _ = pair
    records.write(dataset, records.new(dataset, "k", config()))
    changed = config()
    changed.budget = 7
    records.write(dataset, records.new(dataset, "k", changed))
    assert dataset.list_runs() == ["k"] and runs.load(dataset, "k").config.budget == 7
    assert foo.get_db_conn().runs.count_documents({"_dataset_id": dataset._doc.id}) == 1


def test_removing_ours_leaves_a_brain_run_of_the_same_key(pair):
    dataset, _ = pair
    db = foo.get_db_conn()
    other = db.runs.insert_one({"_dataset_id": dataset._doc.id, "key": "k", "config": {"type": "similarity"}})
    records.write(dataset, records.new(dataset, "k", config()))
    records.remove(dataset, "k")
    assert db.runs.find_one({"_dataset_id": dataset._doc.id})["_id"] == other.inserted_id
    db.runs.delete_one({"_id": other.inserted_id})
