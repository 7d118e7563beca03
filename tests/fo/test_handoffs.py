"""A hand-off is judged by what it sent itself, whatever was sent, cancelled or scored since; a race loses nothing."""

import json
import threading

import fiftyone as fo
import fiftyone.utils.annotations as foua
import numpy as np
import pytest
from bson import ObjectId

import gsal_fo.fo as gfo
from gsal_fo.fo.dataset import prepared
from gsal_fo.fo.exchange import handoffs, labeling, manifests
from tests.fo_pool import box

SERVER: dict[str, dict] = {}  # annotation run -> sample id -> labels, by kind


class ShopConfig(foua.AnnotationBackendConfig):
    @property
    def method(self):
        return "shop"


class ShopResults(foua.AnnotationResults):
    def launch_editor(self):
        pass

    def cleanup(self):
        pass

    @classmethod
    def _from_dict(cls, d, samples, config, anno_key):
        return cls(samples, config, anno_key, d["id_map"])


class Shop(foua.AnnotationBackend):
    """A backend in memory, with a desk per annotation run; it keeps whole pixels of 64 x 48, as some tools do."""

    supported_media_types = ("image",)
    supported_label_types = ("detections",)
    supported_scalar_types = ()
    supported_attr_types = ()
    supports_keyframes = supports_video_sample_fields = False
    requires_label_schema = True

    def upload_annotations(self, samples, anno_key, launch_editor=False):
        (field,) = self.config.label_schema
        SERVER[anno_key] = {"detections": {s.id: whole(s[field].detections if s[field] else []) for s in samples}}
        return ShopResults(samples, self.config, anno_key, {field: {s.id: [] for s in samples}}, backend=self)

    def download_annotations(self, results):
        (field,) = results.config.label_schema
        return {
            field: {
                kind: {i: {str(ObjectId()): label for label in labels} for i, labels in of.items() if labels}
                for kind, of in SERVER[results.key].items()
            }
        }


ShopConfig.build = lambda self: Shop(self)


def whole(detections):
    side = np.array([64, 48, 64, 48])
    return [fo.Detection(label=d.label, bounding_box=list(np.floor(d.bounding_box * side) / side)) for d in detections]


@pytest.fixture(autouse=True)
def empty_shop():
    SERVER.clear()


def labels(dataset, ids):
    dataset.reload()
    found = dict(zip(*dataset.values(["id", "ground_truth"]), strict=True))
    return [found[i] and [d.label for d in found[i].detections] for i in ids]


def test_a_second_annotation_run_changes_nothing_for_the_first(scored):
    batch = gfo.select(scored, 2)
    first, second = ids = batch.values("id")
    gfo.annotate(batch, "run_a", backend=ShopConfig, floor=0)
    gfo.annotate(batch, "run_b", backend=ShopConfig, prelabels=False)
    report = gfo.ingest(scored, "run_a")
    assert set(report.untouched) == set(ids) and labels(scored, ids) == [None, None]
    SERVER["run_a"]["detections"][first] = [box("petal", 0.5, 0.5, 0.25, 0.25)]
    SERVER["run_b"]["detections"][second] = [box("void", 0.5, 0.5, 0.25, 0.25)]
    assert gfo.ingest(scored, "run_a").labeled == [first]
    assert gfo.ingest(scored, "run_b").labeled == [second]
    assert labels(scored, ids) == [["petal"], ["void"]]


def test_answers_come_back_and_pre_labels_do_not_when_the_round_was_cancelled(scored):
    batch = gfo.select(scored, 2)
    first, second = ids = batch.values("id")
    gfo.annotate(batch, "run_a", backend=ShopConfig)
    gfo.cancel(scored)
    assert not scored.has_sample_field("gsal_prelabels")
    SERVER["run_a"]["detections"][first] = [box("petal", 0.5, 0.5, 0.25, 0.25)]
    report = gfo.ingest(scored, "run_a")
    assert (report.labeled, report.untouched) == ([first], [second]) and labels(scored, ids) == [["petal"], None]


def test_a_scoring_since_changes_nothing(dataset, graph, tiny):
    gfo.score(dataset, concepts=graph)
    batch = gfo.select(dataset, 2)
    ids = batch.values("id")
    gfo.annotate(batch, "run_a", backend=ShopConfig)
    dataset.clear_sample_field("gsal_proposals")
    dataset.clear_sample_field("gsal_prelabels")
    assert set(gfo.ingest(dataset, "run_a").untouched) == set(ids)


def test_a_run_that_was_renamed_or_made_anew_under_its_old_name_is_judged_by_what_was_sent(scored):
    batch = gfo.select(scored, 1)
    gfo.annotate(batch, "run_a", backend=ShopConfig)
    SERVER["run_b"] = SERVER["run_a"]
    scored.rename_annotation_run("run_a", "run_b")
    assert gfo.ingest(scored, "run_b").untouched == batch.values("id")
    gfo.annotate(batch, "run_a", backend=ShopConfig, prelabels=False)
    SERVER["run_a"] = SERVER["run_b"]  # a labeler drew what the proposals of the other run happen to be
    assert gfo.ingest(scored, "run_a").labeled == batch.values("id")


def test_outlines_and_turned_boxes_of_a_backend_become_their_enclosing_boxes(scored):
    batch = gfo.select(scored, 2)
    first, second = batch.values("id")
    gfo.annotate(batch, "run_a", backend=ShopConfig)
    # A square of 12 pixels turned by 45 degrees: its corners lie 6 * sqrt(2) pixels from its center (32, 24).
    square = box("void", 26 / 64, 18 / 48, 12 / 64, 12 / 48, rotation=45.0, severity="high")
    outline = fo.Polyline(label="petal", points=[[[0.25, 0.5], [0.5, 0.5], [0.5, 0.75]]], closed=True, filled=True)
    SERVER["run_a"]["detections"] = {first: [square], str(ObjectId()): [box("void")]}
    SERVER["run_a"]["polylines"] = {second: [outline]}
    report = gfo.ingest(scored, "run_a")
    assert set(report.labeled) == {first, second} and len(report.unmatched) == 1 and not report.unread
    scored.reload()
    (turned,), (petal,) = (scored[i].ground_truth.detections for i in (first, second))
    reach = 6 * 2**0.5
    wanted = [(32 - reach) / 64, (24 - reach) / 48, 2 * reach / 64, 2 * reach / 48]
    np.testing.assert_allclose(turned.bounding_box, wanted, atol=1e-6)
    assert (turned.rotation, turned.severity, turned.label) == (45.0, "high", "void")
    np.testing.assert_allclose(petal.bounding_box, [0.25, 0.5, 0.25, 0.25])
    assert petal.polygons == [[[0.25, 0.5], [0.5, 0.5], [0.5, 0.75]]]


def test_what_has_no_box_leaves_the_image_as_it_is(scored):
    batch = gfo.select(scored, 2)
    first, second = ids = batch.values("id")
    gfo.annotate(batch, "run_a", backend=ShopConfig)
    SERVER["run_a"]["detections"] = {first: [box("petal")], second: [box("void", w=-0.1)]}
    SERVER["run_a"]["keypoints"] = {first: [fo.Keypoint(label="void", points=[[0.1, 0.1]])]}
    report = gfo.ingest(scored, "run_a", accept_prelabels=True, empty_means_done=True)
    assert labels(scored, ids) == [None, None] and not report.labeled
    assert sorted(text.split(": ", 1)[1].split(" ")[0:2] for text in report.unread) == [
        ["a", "keypoint,"],
        ["box", "[0.1,"],
    ]


def test_a_persons_own_annotation_run_comes_back_and_touches_no_other_field(scored):
    scored.add_sample_field("mine", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    schema = {"mine": {"type": "detections", "classes": ["void"], "attributes": {}}}
    view = scored.exists("ground_truth", False).limit(2)
    first = view.first().id
    view.annotate("own", backend=ShopConfig, label_schema=schema)
    SERVER["own"]["detections"][first] = [box("void", severity="high")]
    assert gfo.ingest(scored, "own").labeled == [first]
    scored.reload()
    assert scored[first].ground_truth.detections[0].severity == "high" and scored[first].mine is None


def test_an_annotation_run_of_two_fields_is_a_sentence(scored):
    schema = {n: {"type": "detections", "classes": ["void"], "attributes": {}} for n in ("mine", "yours")}
    batch = gfo.select(scored, 1)
    gfo.annotate(batch, "run_a", backend=ShopConfig)
    info = scored.get_annotation_info("run_a")
    info.config.label_schema = schema
    scored._doc.annotation_runs["run_a"].config = info.config.serialize()
    scored._doc.annotation_runs["run_a"].save()
    with pytest.raises(ValueError, match=r'annotation run "run_a" has 2 fields of boxes \(mine, yours\)'):
        gfo.ingest(scored, "run_a")


def test_two_exports_of_a_batch_are_each_judged_by_their_own(scored, tmp_path):
    batch = gfo.select(scored, 2)
    ids = batch.values("id")
    strong = gfo.export(batch, tmp_path / "strong", "coco")
    every = gfo.export(batch, tmp_path / "every", "cvat", floor=0)
    assert set(gfo.ingest(scored, every).untouched) == set(ids) == set(gfo.ingest(scored, strong).untouched)
    # In the second, a labeler has deleted every weak box: what is left is what the first had sent.
    coco = json.loads((strong / "annotations.json").read_text())
    (every / "done").mkdir()
    (every / "done" / "labels.json").write_text(json.dumps(coco))
    assert set(gfo.ingest(scored, every / "done" / "labels.json").labeled) == set(ids)


def test_what_was_sent_is_kept_for_each_hand_off_with_the_images_pixels(scored, tmp_path):
    batch = gfo.select(scored, 2)
    ids = batch.values("id")
    gfo.annotate(batch, "run_a", backend=ShopConfig)
    gfo.export(batch, tmp_path / "out", floor=0)
    runs = gfo.runs.handoff_keys(scored)
    assert [scored.get_run_info(k).config.kind for k in runs] == ["annotate", "export"]
    ever = handoffs.ever(scored, ids)
    assert [len(s.boxes) for s in ever[ids[0]]] == [1, 2] and {s.size for s in ever[ids[0]]} == {(64, 48)}
    clone = scored.clone()
    assert {i: [len(s.boxes) for s in v] for i, v in handoffs.ever(clone, clone.values("id")).items() if v} == {
        i: [1, 2] for i in ids
    }
    clone.delete()
    scored.delete_run(runs[0])
    assert [len(s.boxes) for s in handoffs.ever(scored, ids)[ids[0]]] == [2]


def test_a_person_who_labels_while_ingest_works_keeps_those_labels(scored, tmp_path, monkeypatch):
    """Labels are written between reading and writing: by another process, as the App does."""
    ids = scored.exists("ground_truth", False).values("id")[:4]
    scored.set_values("review", {i: fo.Detections(detections=[box("void")]) for i in ids}, key_field="id")
    by_hand = {
        ids[0]: fo.Detections(detections=[box("crack", 0.5, 0.5, 0.2, 0.2, tags=["by hand"])]),
        ids[1]: fo.Detections(detections=[box("void")]),  # the same, by chance
        ids[2]: fo.Detections(),
    }
    real = prepared.merge

    def while_somebody_works(dataset, name, **options):
        scored.set_values("ground_truth", by_hand, key_field="id")
        scored.delete_samples(ids[3])
        real(dataset, name, **options)

    monkeypatch.setattr(prepared, "merge", while_somebody_works)
    report = gfo.ingest(scored, "review")
    assert set(report.conflicts) == set(report.raced) == {ids[0], ids[2]} and report.unchanged == [ids[1]]
    assert not report.labeled and report.boxes == 0 and len(report.unmatched) == 1
    assert labels(scored, ids[:3]) == [["crack"], ["void"], []]
    assert "2 of those were labeled by somebody else meanwhile" in report.summary()


def test_of_many_writers_at_once_one_wins_and_the_others_know_it(scored):
    ids = scored.exists("ground_truth", False).values("id")[:5]
    start, won = threading.Barrier(4), {}

    def write(name):
        new = {i: [fo.Detection(label=name, bounding_box=[0.1, 0.1, 0.2, 0.2])] for i in ids}
        for _ in prepared.add(name, labeling.changes("ground_truth", new, labeling.Source(name, None), name)):
            pass
        start.wait()
        prepared.merge(scored, name, fill=["ground_truth"])
        prepared.drop(name)
        won[name] = labeling.written(scored, "ground_truth", ids, name)

    threads = [threading.Thread(target=write, args=(f"writer_{n}",)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(i for some in won.values() for i in some) == sorted(ids)
    for i, (label,) in zip(ids, labels(scored, ids), strict=True):
        assert i in won[label]


def test_images_that_left_their_round_meanwhile_are_not_marked_as_sent(scored, tmp_path):
    batch = gfo.select(scored, 2)
    ids = batch.values("id")
    scored.set_values("gsal_round", dict.fromkeys(ids[:1]), key_field="id")
    gfo.export(scored.select(ids), tmp_path / "out")
    scored.reload()
    assert [scored[i].gsal_sent is not None for i in ids] == [False, True]


def test_sent_boxes_come_from_the_manifest_and_of_an_older_one_that_kept_none_from_nowhere():
    entry = {"id": "a", "file": "a.png", "source": "/a.png", "sha256": "0"}
    full = {**entry, "width": 64, "height": 48, "boxes": [["void", 0.1, 0.2, 0.3, 0.4]]}
    assert manifests.sent({"images": [full]}) == {"a": [handoffs.Sent([("void", [0.1, 0.2, 0.3, 0.4])], (64, 48))]}
    assert manifests.sent({"images": [entry]}) == {"a": [handoffs.Sent([], None)]}
