"""A whole round trip through a real Label Studio on loopback: by our export, and by FiftyOne's own backend."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest

import gsal_fo.fo as gfo
from gsal_fo import cli
from tests import tools

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PATIENCE = 540.0  # seconds until the first answer; about 60 on an idle machine


class LabelStudio:
    """The few calls that a script of an annotation team makes."""

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url, root

    def call(self, path: str, body: object = None) -> bytes:
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read()[:500]!r}") from error

    def json(self, path: str, body: object = None):
        return json.loads(self.call(path, body))


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """Started as its manual says, with the folder above our export as the root of local files."""
    python = tools.python_of("labelstudio")
    root, data = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FIFTYONE"))},
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USERNAME": "labeler@example.org",
        "LABEL_STUDIO_PASSWORD": "a-long-password-1",
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(root),
        "COLLECT_ANALYTICS": "false",
    }
    command = [python.parent / "label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", port]
    log = data / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen([str(c) for c in command], env=env, stdout=stream, stderr=stream)
    try:
        out = LabelStudio(f"http://127.0.0.1:{port}", root)
        _wait(out, server, log)
        yield out
    finally:
        server.terminate()
        server.wait()


def _wait(studio: LabelStudio, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            studio.call("/health")
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"Label Studio did not start: {log.read_text(errors='replace')[-2000:]}")


def imported(studio: LabelStudio, out: Path) -> tuple[int, list[dict]]:
    """A project of our label config, with our tasks in it and the export's images connected as local files."""
    config = (out / "label_config.xml").read_text()
    project = studio.json("/api/projects", {"title": "round 1", "label_config": config})["id"]
    studio.json("/api/storages/localfiles", {"project": project, "path": str(out), "title": "batch"})
    answer = studio.json(f"/api/projects/{project}/import", json.loads((out / "tasks.json").read_text()))
    assert (answer["task_count"], answer["prediction_count"]) == (4, 4)
    listed = studio.json(f"/api/tasks?project={project}&fields=all&page_size=100")
    return project, listed["tasks"]


def rectangle(label: str, x: float, y: float, w: float, h: float, *, tag: str = "label") -> dict:
    """A box as the annotator's browser sends it: percent of an image of 64 x 48; ``tag`` of the labeling config."""
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [label]}
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    return {"from_name": tag, "to_name": "image", "type": "rectanglelabels", "value": value, **size}


def test_a_batch_goes_through_a_real_label_studio(scored, studio):
    batch = gfo.select(scored, 4)
    out = gfo.export(batch, studio.root / "batch", "labelstudio", floor=0)
    project, tasks = imported(studio, out)
    assert {t["data"]["gsal_id"] for t in tasks} == set(batch.values("id"))
    for task in tasks:  # the annotator sees the image, and the proposals as predictions
        assert studio.call(task["data"]["image"]) == Path(scored[task["data"]["gsal_id"]].filepath).read_bytes()
        (prediction,) = task["predictions"]
        assert len(prediction["result"]) == 2

    moved, as_it_was, empty, untouched = sorted(tasks, key=lambda t: t["id"])
    kept = [{k: v for k, v in r.items() if k != "score"} for r in as_it_was["predictions"][0]["result"]]
    corrected = [rectangle("petal", 25, 50, 12.5, 25), rectangle("void", 0, 0, 50, 50)]
    for task, result in ((moved, corrected), (as_it_was, kept), (empty, [])):
        studio.json(f"/api/tasks/{task['id']}/annotations/", {"result": result, "lead_time": 4.2})

    labels = studio.root / "project-1-at-2026.json"
    labels.write_bytes(studio.call(f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true"))
    report = gfo.ingest(scored, labels)
    ids = [t["data"]["gsal_id"] for t in (moved, as_it_was, empty, untouched)]
    assert sorted(report.labeled) == sorted(ids[:3]) and report.empty == [ids[2]] and report.waiting == [ids[3]]
    assert not report.unread and not report.unmatched
    scored.reload()
    drawn = [(d.label, d.bounding_box) for d in scored[ids[0]].ground_truth.detections]
    assert [label for label, _ in drawn] == ["petal", "void"]
    np.testing.assert_allclose([b for _, b in drawn], [[0.25, 0.5, 0.125, 0.25], [0, 0, 0.5, 0.5]], atol=1e-6)
    sample = scored[ids[1]]
    for got, proposal in zip(sample.ground_truth.detections, sample.gsal_proposals.detections, strict=True):
        assert got.label == proposal.label
        np.testing.assert_allclose(got.bounding_box, proposal.bounding_box, atol=1e-5)
    assert scored[ids[2]].ground_truth.detections == [] and scored[ids[3]].ground_truth is None
    assert [scored[i].gsal_status for i in ids] == ["labeled"] * 3 + ["sent"]
    assert len(gfo.ingest(scored, labels).unchanged) == 3

    # The same annotations as Label Studio's own COCO export: a zip, images named as it likes.
    coco = studio.root / "coco.zip"
    coco.write_bytes(studio.call(f"/api/projects/{project}/export?exportType=COCO"))
    again = gfo.ingest(scored, coco, manifest=out / "manifest.json")
    assert set(again.unchanged) >= set(ids[:2]) and not again.labeled and not again.conflicts


@pytest.fixture
def sdk(monkeypatch):
    """Label Studio's SDK beside our packages, behind them: its newest versions want an older NumPy than ours."""
    found = sorted(tools.python_of("labelstudio").parents[1].glob("lib/python*/site-packages"))
    if f"python{sys.version_info.major}.{sys.version_info.minor}" not in found[0].parts:
        pytest.skip(f"{found[0]} is of another Python than this one; `make clean labelstudio` makes it anew")
    monkeypatch.setattr(sys, "path", [*sys.path, str(found[0])])


def test_fiftyones_own_backend_takes_a_batch_to_label_studio_and_back(scored, studio, sdk, monkeypatch, capsys):
    for name, value in {"url": studio.url, "api_key": TOKEN}.items():  # as FIFTYONE_LABELSTUDIO_URL and _API_KEY do
        monkeypatch.setitem(fo.annotation_config.backends["labelstudio"], name, value)
    ids = gfo.select(scored, 4).values("id")
    assert cli.main(["annotate", scored.name, "desk", "--backend", "labelstudio", "--floor", "0"]) == 0
    sent = scored.load_annotation_results("desk")
    listed = studio.json(f"/api/tasks?project={sent.project_id}&fields=all&page_size=100")["tasks"]
    tasks = {sent.uploaded_tasks[t["id"]]: t for t in listed}
    assert set(tasks) == set(ids)
    for i, task in tasks.items():
        assert studio.call(task["data"]["image"]) == Path(scored[i].filepath).read_bytes()
        for got, proposal in zip(task["predictions"][0]["result"], scored[i].gsal_proposals.detections, strict=True):
            assert got["value"]["rectanglelabels"] == [proposal.label]
            value = [got["value"][k] / 100 for k in ("x", "y", "width", "height")]
            np.testing.assert_allclose(value, proposal.bounding_box, atol=1e-6)

    moved, as_it_was, empty, _ = ids
    answers = {
        moved: [rectangle(*b, tag="gsal_prelabels") for b in (("petal", 25, 50, 12.5, 25), ("void", 0, 0, 50, 50))],
        as_it_was: tasks[as_it_was]["predictions"][0]["result"],
        empty: [],
    }
    for i, result in answers.items():
        studio.json(f"/api/tasks/{tasks[i]['id']}/annotations/", {"result": result, "lead_time": 4.2})
    capsys.readouterr()
    assert cli.main(["ingest", scored.name, "desk", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    # FiftyOne passes on neither an empty annotation nor whether an unchanged pre-label was confirmed.
    assert report["labeled"] == [moved] and set(report["waiting"]) == set(ids) - {moved}
    scored.reload()
    drawn = {d.label: d.bounding_box for d in scored[moved].ground_truth.detections}
    assert set(drawn) == {"petal", "void"}
    np.testing.assert_allclose(drawn["petal"], [0.25, 0.5, 0.125, 0.25], atol=1e-6)
    np.testing.assert_allclose(drawn["void"], [0, 0, 0.5, 0.5], atol=1e-6)
