"""A scored pool in the real App, and a page of headless Chromium to look at it."""

import os
import shutil
import socket
import time
from pathlib import Path

import fiftyone as fo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo import scoring
from gsal_fo.synthetic.thin_film import make_pool
from tests.fo_pool import use_tiny_worker

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=swiftshader",
    "--enable-webgl",
    "--ignore-gpu-blocklist",
]
IMAGES, LABELED = 40, 6


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where screenshots go: ``$GSAL_SCREENSHOTS`` keeps them."""
    folder = Path(os.environ.get("GSAL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A synthetic pool of CT slices, a few labeled, scored by the tiny worker, views set up."""
    folder = tmp_path_factory.mktemp("pool")
    made = make_pool(folder / "pool", images=IMAGES, seed=3)
    dataset = fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        data_path=str(made.root / "images"),
        labels_path=str(made.truth),
        label_types="detections",
        label_field="ground_truth",
        name="gsal-e2e",
        overwrite=True,
    )
    dataset.persistent = True  # an App that ends deletes all others
    labels = [label or fo.Detections() for label in dataset.limit(LABELED).values("ground_truth")]
    dataset.set_values("ground_truth", labels + [None] * (IMAGES - LABELED))
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_worker(patch, folder / "home")
        scoring.score(dataset, concepts=made.concepts)
    gfo.setup_views(dataset)
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def session(pool):
    """The App on the pool, with our plugin installed before its server starts. A server takes a tenth of a core while
    nobody asks it anything, so it ends with its file."""
    gfo.plugin.install()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    session = fo.launch_app(pool, remote=True, address="127.0.0.1", port=port)
    yield session
    session.close()


@pytest.fixture(scope="module")
def app(session):
    """The App's address."""
    return f"http://127.0.0.1:{session.server_port}"


def only_the_grid(session):
    """Close all panels, once the session has found its server: it tries every ten seconds."""
    for _ in range(1200):
        try:
            session.spaces = fo.Space(children=[fo.Panel(type="Samples", pinned=True)])
            return
        except RuntimeError as error:
            if "not connected" not in str(error):
                raise
            time.sleep(0.1)
    pytest.fail("the session did not find its server within two minutes")


@pytest.fixture
def page(session):
    """A wide page: the App folds its toolbar into a menu on a narrow one."""
    # The server remembers which panels the test before had open.
    only_the_grid(session)
    if not shutil.which("chromium") and not Path(CHROMIUM).exists():
        if os.environ.get("CI"):
            pytest.fail("CI must have chromium: apt-get install chromium")
        pytest.skip("chromium is missing: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        playwright.selectors.set_test_id_attribute("data-cy")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium") or CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        page.add_init_script("window.IS_PLAYWRIGHT = true")  # no analytics, no toasts
        page.set_default_timeout(60_000)
        expect.set_options(timeout=30_000)  # the App redraws slowly on a busy machine without a GPU
        yield page
        browser.close()
