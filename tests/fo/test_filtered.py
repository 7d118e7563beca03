"""A view that filters or changes labels inside its images is honoured or refused, never ignored."""

import fiftyone as fo
import pytest
from fiftyone import ViewField as F

import gsal_fo.fo as gfo
from gsal_fo.fo.concepts import label_names
from gsal_fo.fo.dataset import filtered, pool
from tests.fo_pool import box


@pytest.fixture
def proposed(dataset):
    """Every image has three proposals, of confidence 0.9, 0.6 and 0.3."""
    three = [box("x", x=x, confidence=c) for x, c in ((0.1, 0.9), (0.4, 0.6), (0.6, 0.3))]
    dataset.set_values("boxes", [fo.Detections(detections=[d.copy() for d in three]) for _ in range(12)])
    dataset.set_values("others", [fo.Detections(detections=[box("y")]) for _ in range(12)])
    return dataset


def confidences(dataset):
    return dataset.exists("gsal_rank").values("gsal_proposals.detections.confidence")


SURE = F("confidence") > 0.5
HONOURED = {
    "filter_labels": lambda d: d.filter_labels("boxes", SURE),
    "limit_labels": lambda d: d.limit_labels("boxes", 2),
    "filter_labels, then fewer fields": lambda d: d.filter_labels("boxes", SURE).select_fields("boxes"),
    "filter_labels, then no boxes": lambda d: d.filter_labels("boxes", SURE).exclude_fields("boxes"),
    "concat of two filtered halves": lambda d: (
        d.limit(6).filter_labels("boxes", SURE).concat(d.skip(6).filter_labels("boxes", SURE))
    ),
    "exclude_labels": lambda d: d.exclude_labels(
        ids=[ids[2] for ids in d.values("boxes.detections.id")], fields="boxes"
    ),
}


@pytest.mark.parametrize("name", HONOURED)
def test_proposals_that_a_view_filters_out_are_no_proposals(proposed, graph, tiny, name):
    key = gfo.score(HONOURED[name](proposed), concepts=graph, proposals="boxes")
    assert gfo.runs.load(proposed, key).config.counts["pool"] == 9
    assert confidences(proposed) == [pytest.approx([0.9, 0.6])] * 9


def test_an_image_whose_proposals_are_all_filtered_out_stands_for_itself(proposed, graph, tiny):
    view = proposed.filter_labels("boxes", F("confidence") > 0.95, only_matches=False)
    gfo.score(view, concepts=graph, proposals="boxes")
    assert proposed.exists("gsal_rank").values("gsal_proposals.detections.source") == [["whole"]] * 9


WHOLE = {
    "match": lambda d: d.match(F("boxes.detections").length() == 3),
    "match_labels": lambda d: d.match_labels(filter=F("confidence") > 0.8, fields="boxes"),
    "shuffle": lambda d: d.shuffle(seed=3),
    "limit and skip": lambda d: d.skip(0).limit(12),
    "select_fields": lambda d: d.select_fields("filepath"),
    "exclude_fields": lambda d: d.exclude_fields(["ground_truth", "boxes"]),
    "sort_by": lambda d: d.sort_by("filepath", reverse=True),
    "concat with itself": lambda d: d.concat(d.limit(4)),
    "labels of another field": lambda d: d.filter_labels("others", F("label") == "z", only_matches=False),
    "a filter that all labels pass": lambda d: d.filter_labels("ground_truth", F("label") != "z", only_matches=False),
    "a saved view": lambda d: [d.save_view("v", d.shuffle(seed=1)), d.load_saved_view("v")][1],
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_view_that_chooses_images_or_fields_changes_no_box(proposed, graph, tiny, name):
    view = WHOLE[name](proposed)
    assert not filtered.changes(view, "boxes")
    key = gfo.score(view, concepts=graph, proposals="boxes")
    record = gfo.runs.load(proposed, key).config
    assert (record.counts["pool"], record.counts["labeled"]) == (9, 3) and dict(record.coverage)["void"] == 2
    assert confidences(proposed) == [pytest.approx([0.9, 0.6, 0.3])] * 9
    assert len(gfo.select(view, 3)) == 3


REFUSED = {
    "filter_labels": lambda d: d.filter_labels("ground_truth", F("label") == "petal", only_matches=False),
    "filter_labels, some left": lambda d: d.filter_labels(
        "ground_truth", F("bounding_box")[0] < 0.3, only_matches=False
    ),
    "set_field": lambda d: d.set_field("ground_truth", None),
    "map_labels": lambda d: d.map_labels("ground_truth", {"void": "petal"}),
    "filter_field": lambda d: d.filter_field("ground_truth", F("detections").length() > 1, only_matches=False),
    "select_labels": lambda d: d.select_labels(  # labels of all other fields are gone in such a view
        ids=[ids[0] for ids in d.values("boxes.detections.id")], fields="boxes"
    ),
    "hidden afterwards": lambda d: d.filter_labels(
        "ground_truth", F("label") == "petal", only_matches=False
    ).exclude_fields("ground_truth"),
    "concat": lambda d: d.skip(6).concat(d.limit(6).map_labels("ground_truth", {"void": "petal"})),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_view_that_changes_labels_is_refused_by_all_that_reads_labels(proposed, graph, tiny, name):
    gfo.score(proposed, concepts=graph, proposals="boxes")
    view = REFUSED[name](proposed)
    for call in (
        lambda: gfo.score(view, concepts=graph, proposals="boxes"),
        lambda: gfo.train(view),
        lambda: gfo.select(view, 1),
    ):
        with pytest.raises(ValueError, match=r'filters or changes the labels in its label field "ground_truth"'):
            call()
    assert proposed.list_runs() == ["gsal_score_001"]


@pytest.mark.parametrize("field", ["gsal_proposals", "boxes"])
def test_a_batch_is_not_picked_from_filtered_proposals(proposed, graph, tiny, field):
    gfo.score(proposed, concepts=graph, proposals="boxes")
    view = proposed.filter_labels(field, SURE)
    with pytest.raises(ValueError, match=rf'its .*field "{field}": images are ranked by all of their proposals'):
        gfo.select(view, 1)
    assert len(gfo.select(proposed.match_labels(filter=SURE, fields=field), 1)) == 1


def test_label_names_are_those_that_a_view_shows(proposed):
    assert label_names(proposed) == ["crack", "void"]
    assert label_names(proposed.filter_labels("ground_truth", F("label") == "void")) == ["void"]
    assert label_names(proposed.filter_labels("ground_truth", F("label") == "void").select_fields("filepath")) == [
        "void"
    ]


def test_ids_come_once_and_in_the_order_of_the_view(dataset):
    ids = dataset.values("id")
    view = dataset.sort_by("filepath", reverse=True).concat(dataset.limit(3))
    assert filtered.ids_of(view) == ids[::-1]
    assert pool.read(view, label_field="ground_truth").pool.ids == ids[:2:-1]
