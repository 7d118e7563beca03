"""The demo, small: real pool, real workers, both rounds, and what it leaves behind."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import fiftyone as fo
import pytest

from gsal_fo import cli
from gsal_fo.fo.demo.demo import DATASET, DemoConfig, run_demo
from gsal_fo.synthetic.thin_film import RARE


@pytest.fixture(scope="module")
def demo(tmp_path_factory, warm):
    out = tmp_path_factory.mktemp("demo")
    events = []
    config = DemoConfig(out=out, images=60, budget=4, steps=15)
    summary = run_demo(config, on_event=events.append, say=lambda text: None)
    return out, summary, events


def truth(out: Path) -> dict[str, list[str]]:
    """Labels per file, read from the COCO file by this test alone."""
    coco = json.loads((out / "pool" / "truth.json").read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    files = {i["id"]: i["file_name"] for i in coco["images"]}
    labels = {f: [] for f in files.values()}
    for a in coco["annotations"]:
        labels[files[a["image_id"]]].append(names[a["category_id"]])
    return labels


def test_the_summary_counts_what_the_truth_says(demo):
    out, summary, _ = demo
    labels = truth(out)
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(summary))
    picked = [p["file"] for r in summary["rounds"] for p in r["picks"]]
    assert len(picked) == len(set(picked)) == 8
    rare = sum(label in RARE for f in picked for label in labels[f])
    assert summary["totals"]["rare_instances"]["gsal"] == rare
    rival = [f for r in summary["rounds"] for f in r["entropy_picks"]]
    assert len(set(rival)) == 8
    assert summary["totals"]["rare_instances"]["entropy"] == sum(label in RARE for f in rival for label in labels[f])


def test_coverage_grows_by_the_labels_of_the_picks(demo):
    out, summary, _ = demo
    labels = truth(out)
    before = summary["coverage"]["start"]
    for r in summary["rounds"]:
        new = [label for p in r["picks"] for label in labels[p["file"]]]
        for fine in ("void", "inclusion", "petal", "drill_hole", *RARE):
            assert r["coverage"][fine] == before[fine] + new.count(fine)
        before = r["coverage"]


def test_the_dataset_holds_two_tagged_rounds_and_the_rival_is_gone(demo):
    dataset = fo.load_dataset(DATASET)
    assert dataset.persistent
    assert len(dataset.match_tags("gsal_round_001")) == len(dataset.match_tags("gsal_round_002")) == 4
    assert len(dataset.exists("ground_truth")) == 3 + 8  # 5 % of 60 at the start, two rounds of 4
    assert dataset.list_saved_views()
    assert not fo.dataset_exists(f"{DATASET}-entropy")


def test_progress_is_reported_all_the_way(demo):
    stages = [e["stage"] for e in demo[2] if e["event"] == "progress"]
    assert {"train", "detect", "difficulty", "concepts"} <= set(stages)


def test_the_report_is_one_page_that_shows_every_pick(demo):
    out, _, _ = demo
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 8
    assert page.count('src="data:image/jpeg;base64,') >= 16  # each pick and its crop
    assert "<link" not in page and "<script src" not in page  # nothing is loaded from elsewhere


def test_a_rerun_replaces_its_own_output_and_refuses_what_is_not_its_own(demo, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    assert cli.main(["demo", "--out", str(tmp_path), "--no-app"]) == 1
    assert "did not make it" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_dataset_of_the_same_name_that_a_person_made_is_refused(demo, tmp_path, capsys):
    dataset = fo.load_dataset(DATASET)
    mark = dataset.info.pop("gsal_demo")
    dataset.save()
    try:
        assert cli.main(["demo", "--out", str(tmp_path / "new"), "--images", "20", "--budget", "1", "--no-app"]) == 1
        assert "did not make" in capsys.readouterr().err
        assert len(fo.load_dataset(DATASET)) == 60
    finally:
        dataset.info["gsal_demo"] = mark
        dataset.save()


@pytest.mark.parametrize("wrong", [{"images": 5}, {"images": 40, "budget": 100}, {"budget": 0}, {"rounds": 0}])
def test_impossible_demos_are_refused_before_any_work(wrong, tmp_path):
    with pytest.raises(ValueError, match=r"images must be|budget must be"):
        DemoConfig(out=tmp_path, **wrong)


@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
def test_a_signal_ends_it_with_its_code_and_a_sentence(tmp_path, number, code, says):
    command = [sys.executable, "-m", "gsal_fo.cli", "demo", "--out", str(tmp_path / "demo"), "--no-app"]
    # Under a shell's background job SIGINT is ignored, and a child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stderr:
            if "making" in line:  # the first thing that the demo says
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert process.returncode == code
    assert rest.splitlines()[-1].startswith(f"gsal: {says}")
    assert "Traceback" not in rest
