"""A batch through FiftyOne's annotation interface, to a backend of our own that lies in memory."""

import json

import fiftyone as fo
import fiftyone.utils.annotations as foua
import pytest

import gsal_fo.fo as gfo
from gsal_fo import cli
from tests.fo_pool import box

SERVER: dict[str, dict] = {}  # what the backend has received: sample id -> labels


class DeskConfig(foua.AnnotationBackendConfig):
    @property
    def method(self):
        return "desk"


class DeskResults(foua.AnnotationResults):
    def launch_editor(self):
        pass

    def cleanup(self):
        pass

    @classmethod
    def _from_dict(cls, d, samples, config, anno_key):
        return cls(samples, config, anno_key, d["id_map"])


class Desk(foua.AnnotationBackend):
    supported_media_types = ("image",)
    supported_label_types = ("detections",)
    supported_scalar_types = ()
    supported_attr_types = ()
    supports_keyframes = supports_video_sample_fields = False
    requires_label_schema = True

    def upload_annotations(self, samples, anno_key, launch_editor=False):
        SERVER.update({s.id: s.gsal_prelabels for s in samples})
        id_map = {s.id: [d.id for d in s.gsal_prelabels.detections] for s in samples}
        return DeskResults(samples, self.config, anno_key, {"gsal_prelabels": id_map}, backend=self)

    def download_annotations(self, results):
        done = {i: {d.id: d for d in labels.detections} for i, labels in SERVER.items() if labels.detections}
        return {"gsal_prelabels": {"detections": done}}


DeskConfig.build = lambda self: Desk(self)


def test_a_batch_goes_to_a_backend_and_its_labels_come_back(scored):
    SERVER.clear()
    batch = gfo.select(scored, 2)
    first, second = batch.values("id")
    assert gfo.annotate(batch, "desk_1", backend=DeskConfig) == "desk_1"
    assert scored.get_annotation_info("desk_1").config.label_schema["gsal_prelabels"]["classes"] == [
        "crack",
        "petal",
        "void",
    ]
    assert [len(SERVER[i].detections) for i in (first, second)] == [1, 1], "the proposal above the floor"
    assert scored.values("gsal_status").count("sent") == 2
    SERVER[first] = fo.Detections(detections=[box("petal", 0.5, 0.5, 0.25, 0.25)])
    SERVER[second] = fo.Detections()
    report = gfo.ingest(scored, "desk_1")
    assert report.labeled == [first] and report.waiting == [second]
    scored.reload()
    (label,) = scored[first].ground_truth.detections
    assert (label.label, label.bounding_box) == ("petal", [0.5, 0.5, 0.25, 0.25])
    assert not scored.has_sample_field("gsal_loaded")
    assert gfo.ingest(scored, "desk_1").unchanged == [first]
    with pytest.raises(ValueError, match='has an annotation run "desk_1" already'):
        gfo.annotate(batch, "desk_1", backend=DeskConfig)


def test_from_the_command_line_and_back_by_the_name_of_the_run(scored, monkeypatch, capsys):
    SERVER.clear()
    monkeypatch.setitem(fo.annotation_config.backends, "desk", {"config_cls": f"{__name__}.DeskConfig"})
    first, second = gfo.select(scored, 2).values("id")
    assert cli.main(["annotate", scored.name, "desk_2", "--backend", "desk", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said == {"anno_key": "desk_2", "tag": "gsal_round_001", "images": 2, "backend": "desk"}
    assert cli.main(["ingest", scored.name, "desk_2", "--json"]) == 0
    nobody = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(nobody["untouched"]) == {first, second} == set(nobody["waiting"]) and not nobody["labeled"]
    SERVER[first] = fo.Detections(detections=[box("petal", 0.5, 0.5, 0.25, 0.25)])
    assert cli.main(["ingest", scored.name, "desk_2", "--accept-prelabels", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])["labeled"]) == {first, second}
    assert cli.main(["annotate", scored.name, "desk_3", "--backend", "nobody"]) == 1
    assert 'no annotation backend "nobody"; it has cvat, desk' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("no module"), 'pip install "gsal-fo\\[labelstudio\\]"'),
        (EOFError(), "no credentials; FIFTYONE_LABELSTUDIO_API_KEY must be set"),
        (ConnectionRefusedError("refused"), "cannot be reached or refuses: refused"),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_backend_that_fails_leaves_its_name_free(scored, monkeypatch, error, said):
    def fails(self, samples, anno_key, launch_editor=False):
        raise error

    monkeypatch.setitem(fo.annotation_config.backends, "labelstudio", {"config_cls": f"{__name__}.DeskConfig"})
    batch = gfo.select(scored, 2)
    with monkeypatch.context() as broken:
        broken.setattr(Desk, "upload_annotations", fails)
        with pytest.raises(ValueError if said else type(error), match=said):
            gfo.annotate(batch, "desk_1", backend="labelstudio")
    assert scored.list_annotation_runs() == [] and scored.values("gsal_status").count("sent") == 0
    assert gfo.annotate(batch, "desk_1", backend="labelstudio") == "desk_1"
