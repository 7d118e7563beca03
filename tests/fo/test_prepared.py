"""Changes prepared beside the samples, against the same changes made one by one in Python."""

import copy

import fiftyone as fo
import fiftyone.core.odm as foo
import pytest
from bson import ObjectId

from gsal_fo.fo.dataset import prepared
from gsal_fo.fo.dataset.prepared import Change, combined
from tests.fo_pool import box


@pytest.fixture
def four():
    """Two proposals and a tag, no proposals, tags that are null, and nothing at all."""
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(f"/{i}.png", tags=["mine"]) for i in range(4)])
    for name in ("gsal_proposals", "ground_truth"):
        dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.add_sample_field("gsal_rank", fo.IntField)
    first = dataset.first()
    first["gsal_proposals"] = fo.Detections(detections=[box("void", score=1.0), box("crack", score=2.0)])
    first.save()
    dataset._sample_collection.update_one({"filepath": "/2.png"}, {"$set": {"tags": None}})
    yield dataset
    dataset.delete()


def raw(dataset):
    found = dataset._sample_collection.find({}, {"last_modified_at": 0})
    return {str(s["_id"]): s for s in found}


def by_hand(samples, changes):
    """What the changes mean, sample by sample."""
    out = copy.deepcopy(samples)
    for i, c in changes.items():
        if i not in out:
            continue
        sample = out[i]
        if c.tags or c.untags:
            had = sample.get("tags") or []
            sample["tags"] = [t for t in had if t not in c.untags] + [t for t in c.tags if t not in had]
        boxes = (sample.get("gsal_proposals") or {}).get("detections") or []
        if c.numbers and len(c.numbers) == len(boxes):
            for proposal, numbers in zip(boxes, c.numbers, strict=True):
                proposal.update(numbers)
        for name, value in c.fill.items():
            if sample.get(name) is None:
                sample[name] = value
        sample.update(c.set)
    return out


def apply(dataset, changes, fill=()):
    for _ in prepared.add("t", changes.items()):
        pass
    prepared.merge(dataset, "t", fill=fill)


def test_every_kind_of_change_is_what_it_says_and_again_changes_nothing(four):
    a, b, c, d = four.values("id")
    seen = {"_cls": "Detections", "detections": []}
    changes = {
        a: Change({"gsal_rank": 1}, tags=["gsal_round_001", "mine"], numbers=[{"score": 5.0}, {"score": None}]),
        b: Change({"gsal_rank": None}, fill={"ground_truth": seen}, untags=["mine", "not there"]),
        c: Change(tags=["new"]),
        d: Change({"gsal_rank": 4}, numbers=[{"score": 1.0}]),
        str(ObjectId()): Change({"gsal_rank": 9}),
    }
    before = raw(four)
    expected = by_hand(before, changes)
    apply(four, changes, fill=["ground_truth"])
    assert raw(four) == expected and len(expected) == 4
    prepared.merge(four, "t", fill=["ground_truth"])
    assert raw(four) == expected
    prepared.drop("t")
    assert "gsal_prepared_t" not in foo.get_db_conn().list_collection_names()


def test_a_label_that_a_person_made_meanwhile_stays(four):
    a, b, *_ = four.values("id")
    machine = {"_cls": "Detections", "detections": [{"label": "machine"}]}
    changes = {i: Change(fill={"ground_truth": machine}) for i in (a, b)}
    for _ in prepared.add("t", changes.items()):
        pass
    person = four[a]
    person["ground_truth"] = fo.Detections()  # looked at, and nothing there
    person.save()
    prepared.merge(four, "t", fill=["ground_truth"])
    prepared.drop("t")
    four.reload()
    assert four[a].ground_truth.detections == [] and four[b].ground_truth.detections[0].label == "machine"


def test_an_empty_answer_of_ingest_gives_way_to_boxes_and_a_persons_does_not(four):
    a, b, c, d = four.values("id")
    source = {"boxes": 0}
    held = {
        a: {"detections": [], "gsal_source": source},
        b: {"detections": []},
        c: {"detections": [], "gsal_source": source},
    }
    held[d] = {"detections": [{"label": "by hand"}], "gsal_source": source}  # drawn into the empty answer since
    for i, value in held.items():
        four._sample_collection.update_one({"_id": ObjectId(i)}, {"$set": {"ground_truth": value}})
    boxes = {"_cls": "Detections", "detections": [{"label": "late"}]}
    nothing = {"_cls": "Detections", "detections": []}
    apply(
        four, {i: Change(fill={"ground_truth": nothing if i == c else boxes}) for i in (a, b, c, d)}, ["ground_truth"]
    )
    prepared.drop("t")
    assert {i: s["ground_truth"] for i, s in raw(four).items()} == {**held, a: boxes}


def test_a_label_field_in_an_embedded_document_is_filled(four):
    a, b, *_ = four.values("id")
    four._sample_collection.update_one({"_id": ObjectId(a)}, {"$set": {"meta": {"kept": 1, "labels": None}}})
    four._sample_collection.update_one({"_id": ObjectId(b)}, {"$set": {"meta": {"labels": {"detections": []}}}})
    apply(four, {i: Change(fill={"meta.labels": {"detections": [1]}}) for i in (a, b)}, ["meta.labels"])
    prepared.drop("t")
    assert [raw(four)[i]["meta"] for i in (a, b)] == [
        {"kept": 1, "labels": {"detections": [1]}},
        {"labels": {"detections": []}},
    ]


def test_proposals_that_a_person_has_deleted_are_not_numbered(four):
    a = four.first().id
    before = raw(four)[a]["gsal_proposals"]
    apply(four, {a: Change({"gsal_rank": 3}, numbers=[{"score": 7.0}])})
    prepared.drop("t")
    assert raw(four)[a]["gsal_proposals"] == before and raw(four)[a]["gsal_rank"] == 3


def test_sample_objects_in_memory_follow(four):
    sample = four.first()
    apply(four, {sample.id: Change({"gsal_rank": 3}, tags=["t"])})
    prepared.drop("t")
    assert sample.gsal_rank == 3 and sample.tags == ["mine", "t"]


def test_nothing_prepared_is_nothing_changed(four):
    before = raw(four)
    prepared.merge(four, "nothing")
    assert raw(four) == before


def test_combined_changes_hold_both_and_the_later_values():
    first = [("a", Change({"x": 1, "y": 1}, numbers=[{}])), ("b", Change({"x": 2}))]
    more = {"a": Change({"y": 2}, tags=["t"]), "c": Change(untags=["u"])}
    assert dict(combined(first, more)) == {
        "a": Change({"x": 1, "y": 2}, tags=["t"], numbers=[{}]),
        "b": Change({"x": 2}),
        "c": Change(untags=["u"]),
    }


def test_more_changes_than_a_chunk_all_arrive(four, monkeypatch):
    monkeypatch.setattr(prepared, "CHUNK", 2)
    changes = {i: Change({"gsal_rank": k}) for k, i in enumerate(four.values("id"))}
    assert list(prepared.add("t", list(changes.items())[:3])) == [2, 3]
    assert list(prepared.add("t", list(changes.items())[3:])) == [1]
    prepared.merge(four, "t")
    prepared.drop("t")
    four.reload()
    assert four.values("gsal_rank") == [0, 1, 2, 3]
