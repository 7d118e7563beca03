"""Selecting: what is picked, tagged and recorded, and what a round counts."""

from pathlib import Path

import fiftyone as fo
import pytest
from fiftyone import ViewField as F

import gsal_fo.fo as gfo
from gsal_fo.config import GsalParams
from gsal_fo.fo import rounds
from gsal_fo.fo.app import forms
from tests.fo_pool import box


def state(dataset):
    dataset.reload()
    return dataset.values(["gsal_score", "tags"]), dataset.list_runs(), sorted(dataset.get_field_schema())


def test_the_best_are_tagged_numbered_recorded_and_returned_best_first(scored):
    best = scored.sort_by("gsal_rank").exists("gsal_rank").limit(3).values("id")
    batch = gfo.select(scored, 3)
    assert batch.values("id") == best and batch.values("gsal_round") == [1, 1, 1]
    assert scored.count_sample_tags() == {"gsal_round_001": 3}
    picks = gfo.runs.picks(scored, "gsal_select_001")
    assert [p["id"] for p in picks] == best and [p["rank"] for p in picks] == [1, 2, 3]
    assert [p["rationale"] for p in picks] == batch.values("gsal_rationale")
    config = gfo.runs.load(scored, "gsal_select_001").config
    assert (config.tag, config.score_run, config.counts["pool"]) == ("gsal_round_001", "gsal_score_001", 9)


def test_the_next_round_leaves_out_what_is_picked_or_labeled_and_counts_labels_anew(scored):
    first = gfo.select(scored, 2).values("id")
    sample = scored[first[0]]
    sample["ground_truth"] = fo.Detections(detections=[box("petal"), box("petal", x=0.5), box("void")])
    sample.save()
    second = gfo.select(scored, 2)
    assert not set(second.values("id")) & set(first)
    config = gfo.runs.load(scored, "gsal_select_002").config
    assert dict(config.coverage)["petal"] == 2 and dict(config.coverage)["void"] == 3 and config.counts["pool"] == 7
    ranks = dict(zip(*scored.values(["id", "gsal_rank"]), strict=True))
    assert sorted(r for r in ranks.values() if r) == list(range(1, 8)) and all(ranks[i] is None for i in first)
    assert all(scored[i].gsal_rationale for i in first), "why they were picked stays"


def test_a_new_ranking_reaches_the_boxes_and_the_sentence(scored):
    before = scored.values("gsal_proposals.detections.bonus")
    sample = scored.match(F("ground_truth") == None).first()  # noqa: E711
    sample["ground_truth"] = fo.Detections(detections=[box("petal", x=x / 10) for x in range(5)])
    sample.save()
    gfo.select(scored, 1)
    scored.reload()
    assert scored.values("gsal_proposals.detections.bonus") != before
    for s in scored.exists("gsal_rank"):
        best = max(s.gsal_proposals.detections, key=lambda d: d.score)
        assert s.gsal_fine.label == best.label and f'"{best.label}"' in s.gsal_rationale


def test_deleted_proposals_do_not_upset_a_new_ranking(scored):
    sample = scored.exists("gsal_rank").first()
    sample.gsal_proposals.detections = sample.gsal_proposals.detections[1:]
    sample.save()
    gfo.select(scored, 2)
    scored.reload()
    assert len(scored[sample.id].gsal_proposals.detections) == 1


def test_only_images_of_the_view_can_be_picked(scored):
    view = scored.exists("gsal_rank").sort_by("gsal_rank").skip(4)
    allowed = set(view.values("id"))  # before a new ranking changes what the view holds
    assert set(gfo.select(view, 3).values("id")) <= allowed


def test_the_random_strategy_is_set_by_its_seed_and_params_are_recorded(scored, request):
    other = scored.clone()
    params = GsalParams(strategy="random", seed=7)
    assert gfo.select(scored, 4, params=params).values("id") == gfo.select(other, 4, params=params).values("id")
    assert gfo.runs.load(scored, "gsal_select_001").config.params["strategy"] == "random"
    other.delete()


@pytest.mark.parametrize("budget", [0, -1, 2.5, True, 10])
def test_a_budget_that_cannot_be_met_is_refused_and_nothing_written(scored, budget):
    before = state(scored)
    with pytest.raises(ValueError, match="budget"):
        gfo.select(scored, budget)
    assert state(scored) == before


def test_no_scoring_and_a_lost_run_folder_are_sentences(scored, dataset):
    with pytest.raises(ValueError, match="has no GSAL scoring yet; run score first"):
        gfo.select(dataset, 1)
    with pytest.raises(ValueError, match=r'no GSAL run "other"; it has gsal_score_001'):
        gfo.select(scored, 1, run_key="other")
    info = gfo.runs.load(scored)
    info.config.run_dir = "/nowhere"
    scored.update_run_config("gsal_score_001", info.config)
    with pytest.raises(ValueError, match="run folder /nowhere of the scoring is gone; run score again"):
        gfo.select(scored, 1)


def test_an_image_deleted_since_is_not_picked_and_says_why(dataset, graph, tiny, tmp_path):
    gfo.score(dataset, concepts=graph)
    best, gone_sample, *_ = dataset.exists("gsal_rank").sort_by("gsal_rank").values("id")
    Path(dataset[best].filepath).unlink()
    dataset.delete_samples([gone_sample])
    events = []
    batch = gfo.select(dataset, 2, on_event=events.append)
    assert not {best, gone_sample} & set(batch.values("id"))
    dataset.reload()
    assert dataset[best].gsal_error == rounds.MISSING and dataset[best].gsal_rank is None
    assert {"event": "failed", "id": best, "reason": rounds.MISSING} in events


def test_a_persons_round_tag_is_not_mixed_with_ours(scored):
    scored.limit(1).tag_samples("gsal_round_004")
    assert gfo.select(scored, 1).values("gsal_round") == [5]


def test_deleting_a_selection_takes_back_its_round_only(scored):
    gfo.select(scored, 2)
    second = gfo.select(scored, 2).values("id")
    scored.delete_run("gsal_select_001")
    assert scored.count_sample_tags() == {"gsal_round_002": 2}
    assert set(scored.exists("gsal_round").values("id")) == set(second)
    scored.delete_run("gsal_select_002")
    assert not scored.has_sample_field("gsal_round") and scored.has_sample_field("gsal_score")


def test_select_with_an_older_scoring_writes_its_fields_again(dataset, graph, tiny):
    gfo.score(dataset, concepts=graph)
    gfo.score(dataset, concepts=graph, detector="grid")
    assert dataset.count("gsal_proposals.detections") == 90
    gfo.select(dataset, 1, run_key="gsal_score_001")
    assert dataset.count("gsal_proposals.detections") == 18 and gfo.runs.writer(dataset) == "gsal_score_001"


def test_a_selection_on_a_view_keeps_the_ranks_and_scores_of_the_rest_of_the_pool(scored):
    """9 images are scored; a selection on 4 of them takes 2: the other 7 keep their scores and get the ranks 1 to 7 of
    the pool that is left."""
    before = dict(zip(*scored.exists("gsal_rank").sort_by("gsal_rank").values(["id", "gsal_score"]), strict=True))
    some = list(before)[3:7]
    picked = gfo.select(scored.select(some), 2).values("id")
    assert picked == some[:2] and [p["rank"] for p in gfo.runs.picks(scored, "gsal_select_001")] == [4, 5]
    scored.reload()
    rest = scored.exists("gsal_rank").exists("gsal_round", False).sort_by("gsal_rank")
    assert rest.values("id") == [i for i in before if i not in picked]
    assert gfo.select(scored, 1).values("id") == list(before)[:1]
    rest = scored.exists("gsal_rank").exists("gsal_round", False)
    ranks = dict(zip(*rest.values(["id", "gsal_rank"]), strict=True))
    left = [i for i in list(before)[1:] if i not in picked]
    assert ranks == {i: place + 2 for place, i in enumerate(left)}  # the pick of this round was the best
    # Images of an open round are unlabeled: they count in every mean, so the others' scores are what they were.
    assert dict(zip(*rest.values(["id", "gsal_score"]), strict=True)) == pytest.approx({i: before[i] for i in left})


def test_what_can_be_picked_is_counted_by_the_view(scored):
    some = scored.select(scored.exists("gsal_rank").limit(4).values("id"))
    gfo.select(some, 2)
    assert forms.left_in_pool(scored, scored) == 7 and forms.left_in_pool(scored, scored.view()) == 7
    assert forms.left_in_pool(scored, scored.select(some.values("id"))) == 2
    assert forms.select_problem(scored, {"budget": 7}) is None
    assert len(gfo.select(scored, 7)) == 7
