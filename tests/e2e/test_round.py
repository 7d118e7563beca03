"""A whole round by mouse, from an unscored dataset to labels that came back: the real worker, the real models."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import app_page as ui
import fiftyone as fo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionRunState
from playwright.sync_api import expect

import gsal_fo.fo as gfo
from gsal_fo.fo.demo.simulated_labeler import Truth, label
from gsal_fo.synthetic.thin_film import RARE, make_pool

IMAGES, LABELED, BUDGET = 14, 3, 4
PROGRESS = re.compile(r"(finding proposals|measuring difficulty|looking at the crops): \d+ of \d+")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, app):
    """A synthetic pool that nobody has scored, and its truth."""
    made = make_pool(tmp_path_factory.mktemp("round") / "pool", images=IMAGES, seed=8)
    dataset = fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        data_path=str(made.root / "images"),
        labels_path=str(made.truth),
        label_types="detections",
        label_field="ground_truth",
        name="gsal-e2e-round",
        overwrite=True,
    )
    known = [found or fo.Detections() for found in dataset.limit(LABELED).values("ground_truth")]
    dataset.set_values("ground_truth", known + [None] * (IMAGES - LABELED))
    dataset.compute_metadata()
    yield dataset, made
    dataset.delete()


def ask_for_score(page, made):
    form = ui.open_operator(page, "GSAL: score the unlabeled images")
    ui.fill(form, "Concept graph file", str(made.concepts))
    page.keyboard.press("Enter")
    ui.fill(form, "Detector", "grid")
    return form


def test_score_select_export_and_ingest_by_mouse(page, app, fresh, shots, tmp_path):
    dataset, made = fresh
    ui.open_dataset(page, app, dataset.name)
    form = ui.open_operator(page, "GSAL: score the unlabeled images")
    expect(form.get_by_text("Choose a concept graph file")).to_be_visible()
    expect(ui.execute_button(page)).to_be_disabled()
    page.keyboard.press("Escape")
    ask_for_score(page, made)
    ui.shoot(page, shots, "20_score_form")
    ui.execute(page)
    expect(page.get_by_text("starting the worker")).to_be_visible()
    expect(page.get_by_text(PROGRESS)).to_be_visible(timeout=120_000)
    ui.shoot(page, shots, "21_score_progress")
    expect(page.get_by_text(f"{IMAGES - LABELED} images scored, 0 failed").first).to_be_visible(timeout=240_000)
    dataset.reload()
    assert len(dataset.exists("gsal_score")) == IMAGES - LABELED
    page.reload()  # closes the finished operator, as a person would by its button
    ui.grid_ready(page)

    form = ui.open_operator(page, "GSAL: select a batch")
    form.locator("input[type=number]").first.fill(str(BUDGET))
    ui.execute(page)
    ui.expect_samples(page, BUDGET)
    ui.shoot(page, shots, "22_selected")

    form = ui.open_operator(page, "GSAL: export the batch")
    ui.fill(form, "Folder", str(tmp_path / "batch"))
    ui.execute(page)
    expect(page.get_by_text(f"{BUDGET} images written to").first).to_be_visible()
    ui.shoot(page, shots, "23_exported")
    labels = label(tmp_path / "batch", Truth.load(made.truth, rare=RARE))
    page.reload()
    ui.grid_ready(page)

    form = ui.open_operator(page, "GSAL: take labels back")
    ui.fill(form, "Label file, folder, zip, or labels field", str(labels))
    page.keyboard.press("Enter")
    ui.execute(page)
    expect(page.get_by_text(re.compile(f"{BUDGET} images")).first).to_be_visible()
    ui.shoot(page, shots, "24_ingested")
    dataset.reload()
    assert len(dataset.exists("ground_truth")) == LABELED + BUDGET


def test_a_scheduled_scoring_runs_in_the_service(page, app, fresh, shots):
    dataset, made = fresh
    ui.open_dataset(page, app, dataset.name)
    before = len(gfo.runs.score_keys(dataset))
    form = ask_for_score(page, made)
    # The App still shows the batch, which is labeled by now.
    expect(form.get_by_text('Every image of this view has labels in "ground_truth"')).to_be_visible()
    page.keyboard.press("Escape")
    ui.clear_view(page)
    ui.expect_samples(page, IMAGES)
    ask_for_score(page, made)
    ui.schedule(page)
    service = DelegatedOperationService()
    ui.wait_until(page, lambda: service.list_operations(dataset_name=dataset.name))
    ui.shoot(page, shots, "25_scheduled")
    launch = [shutil.which("fiftyone") or str(Path(sys.executable).with_name("fiftyone")), "delegated", "launch"]
    with subprocess.Popen(launch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            ended = (ExecutionRunState.COMPLETED, ExecutionRunState.FAILED)
            ui.wait_until(page, lambda: service.list_operations(dataset_name=dataset.name)[0].run_state in ended)
        finally:
            process.terminate()
    (operation,) = service.list_operations(dataset_name=dataset.name)
    assert operation.run_state == ExecutionRunState.COMPLETED, operation.result.error
    dataset.reload()
    assert len(gfo.runs.score_keys(dataset)) == before + 1
