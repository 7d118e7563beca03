"""What others wrote is taken over; what the caller has changed and not saved stays."""

import fiftyone as fo
import fiftyone.core.odm as foo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo import journal
from gsal_fo.fo.dataset import reloading
from tests.mortal import Mortals, on


@pytest.fixture(scope="module")
def mortals():
    return Mortals()


def test_fields_and_runs_of_another_process_are_seen_and_unsaved_changes_stay(mortals, scored):
    scored.persistent = True
    scored.info["mine"] = "not saved yet"
    scored.app_config.grid_media_field = "filepath"
    done = mortals.run(
        on(scored.name, "ds.add_sample_field('theirs', fo.IntField)\nds.register_run('r', fo.RunConfig())")
    )
    assert not done.error and not scored.has_sample_field("theirs") and not scored.has_run("r")
    with journal.hold(scored, "select"):
        assert scored.has_sample_field("theirs") and scored.has_run("r")
    assert scored.info["mine"] == "not saved yet" and scored.app_config.grid_media_field == "filepath"
    scored.save()
    assert foo.get_db_conn().datasets.find_one({"_id": scored._doc.id})["info"] == {"mine": "not saved yet"}
    scored.persistent = False


def test_a_selection_leaves_what_the_caller_has_not_saved_of_other_samples(scored):
    labeled = scored[scored.exists("ground_truth").first().id]
    picked = scored[scored.exists("gsal_rank").sort_by("gsal_rank").first().id]
    labeled["ground_truth"] = fo.Detections()
    scored.info["mine"] = 1
    gfo.select(scored, 1)
    assert labeled.ground_truth.detections == [] and scored.info["mine"] == 1
    labeled.save()
    scored.save()
    assert picked.gsal_round == 1 and picked.tags == ["gsal_round_001"], "objects of changed samples follow"


def test_a_sample_object_whose_sample_another_process_has_deleted_stops_nothing(mortals, scored):
    scored.persistent = True
    first = scored.first()
    assert not mortals.run(
        on(scored.name, "ds.delete_samples([ds.first().id])\nds.add_sample_field('x', fo.IntField)")
    ).error
    assert len(gfo.select(scored, 2)) == 2 and first.id not in scored.values("id")
    scored.persistent = False


def test_a_dataset_that_is_gone_is_a_sentence(mortals, scored):
    clone = scored.clone(persistent=True)
    assert not mortals.run(on(clone.name, "ds.delete()")).error
    with pytest.raises(ValueError, match="is gone; somebody has deleted it"):
        reloading.document(clone)


def test_a_dataset_that_was_renamed_elsewhere_is_followed(mortals, scored):
    clone = scored.clone(persistent=True)
    assert not mortals.run(on(clone.name, "ds.name = 'renamed-elsewhere'")).error
    reloading.document(clone)
    assert clone.name == "renamed-elsewhere"
    fo.delete_dataset("renamed-elsewhere")
