"""Labels that the graph lacks count under the concept of their own crop, whenever they came.

Fine nodes are crack, petal and void; by the tiny workers a crop at x = 0.1 looks like petal, at 0.2 like void, at 0.3
like crack.
"""

import shutil
from pathlib import Path

import fiftyone as fo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo.app import live
from gsal_fo.run_folder import looks
from tests.fo_pool import box


@pytest.fixture
def own(scored, tmp_path):
    """A scored dataset with a run folder of its own: what is looked at is kept there."""
    info = gfo.runs.load(scored)
    shutil.copytree(info.config.run_dir, tmp_path / "run")
    info.config.run_dir = str(tmp_path / "run")
    scored.update_run_config(info.key, info.config)
    return scored


def counted(dataset, key) -> dict[str, int]:
    coverage = dict(gfo.runs.load(dataset, key).config.coverage)
    return {name: coverage[name] for name in ("crack", "petal", "void")}


def label(dataset, sample_id: str, *boxes: fo.Detection) -> None:
    dataset.set_values("ground_truth", {sample_id: fo.Detections(detections=list(boxes))}, key_field="id")


def note(dataset, key) -> str:
    (text,) = [t for t in gfo.runs.load(dataset, key).config.notes if "not in concept graph" in t]
    return text


def test_a_box_of_the_scoring_counts_by_its_own_crop_while_it_is_there(dataset, graph, tiny):
    """Image 0 had two voids: now a void and three defects, of which one is taken back later and one has moved."""
    first = dataset.first().id
    label(dataset, first, *(box("defect", x=x) for x in (0.1, 0.2, 0.3)), box("void", x=0.5))
    key = gfo.score(dataset, concepts=graph)
    assert counted(dataset, key) == {"crack": 2, "petal": 1, "void": 2}  # image 1 has a crack
    said = 'label "defect" (3 boxes) is not in concept graph "film": counted by its looks as crack 1, petal 1, void 1'
    assert note(dataset, key) == said
    label(dataset, first, box("defect", x=0.2), box("void", x=0.5))
    gfo.select(dataset, 1)
    assert counted(dataset, "gsal_select_001") == {"crack": 1, "petal": 0, "void": 2}


def test_a_label_that_came_since_is_looked_at_once(own, tiny_looks, monkeypatch):
    before = counted(own, "gsal_score_001")
    ids = own.exists("gsal_rank").values("id")
    label(own, ids[0], box("thing", x=0.1), box("thing", x=0.3), box("other", x=0.3, y=0.5))
    events = []
    gfo.select(own, 1, on_event=events.append)
    assert counted(own, "gsal_select_001") == {**before, "crack": before["crack"] + 2, "petal": before["petal"] + 1}
    assert any("3 boxes have labels that the concept graph lacks" in e.get("message", "") for e in events)
    monkeypatch.setattr("gsal_fo.worker.embedding.WORKER", "no_such_worker")
    gfo.select(own, 1)
    assert counted(own, "gsal_select_002") == counted(own, "gsal_select_001")
    label(own, ids[1], box("thing", x=0.2))
    with pytest.raises(Exception, match="no_such_worker"):
        gfo.select(own, 1)
    assert own.list_runs() == ["gsal_score_001", "gsal_select_001", "gsal_select_002"]


def test_a_panel_runs_no_model_and_says_what_waits(own, tiny_looks):
    ids = own.exists("gsal_rank").values("id")
    label(own, ids[0], box("thing", x=0.1), box("thing", x=0.2))
    now = live.of(own)
    assert now.state.counts == {"crack": 1, "void": 2}
    (text,) = now.state.notes
    assert text.endswith(
        "as nothing; 2 of them have come since the scoring, and the next select or score looks at them"
    )
    gfo.select(own, 1)
    assert live.of(own).state.counts == {"crack": 1, "petal": 1, "void": 3}


def test_a_crop_whose_image_is_gone_counts_nowhere_and_is_not_tried_again(own, tiny_looks, monkeypatch):
    sample = own.exists("gsal_rank").first()
    gone = own.clone()
    gone.set_values("filepath", {sample.id: "/nowhere/a.png"}, key_field="id")
    label(gone, sample.id, box("thing", x=0.1))
    gfo.select(gone, 1)
    assert note(gone, "gsal_select_001").endswith(
        "counted by its looks as nothing; the images of 1 of them cannot be read"
    )
    monkeypatch.setattr("gsal_fo.worker.embedding.WORKER", "no_such_worker")
    gfo.select(gone, 1)
    gone.delete()


def test_looks_are_kept_apart_by_box_and_in_the_precision_of_the_run_folder(own):
    run = Path(gfo.runs.load(own).config.run_dir)
    looks.write(
        run, [looks.row("a", [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.1, 0.1]], [2, -2])], digest=looks.digest_of(run)
    )
    looks.write(run, [looks.row("b", [[0.1, 0.2, 0.3, 0.4]], [looks.FAILED], "gone")], digest=looks.digest_of(run))
    found = looks.read(run)
    assert found["a", looks.key([0.1, 0.2, 0.3, 0.4])] == 2 and found["a", looks.key([0.5, 0.5, 0.1, 0.1])] == -2
    assert found["b", looks.key([0.1, 0.2, 0.3, 0.4])] == looks.FAILED
    assert ("a", looks.key([0.1, 0.2, 0.3, 0.4001])) not in found
    looks.clear(run)
    assert looks.read(run) == {}
