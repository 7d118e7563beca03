"""The pictures of the README's tour, from the real App: ``python tests/bench/tour.py`` after `gsal demo`."""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-gl=swiftshader", "--enable-webgl", "--ignore-gpu-blocklist"]


def main() -> None:
    import fiftyone as fo
    from playwright.sync_api import Page, sync_playwright

    import gsal_fo.fo as gfo
    from tests.e2e import app_page as ui

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="gsal-demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--port", type=int, default=5199)
    args = parser.parse_args()

    def shoot(page: Page, name: str) -> None:
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        picture.thumbnail((1200, 1200), Image.Resampling.LANCZOS)
        picture.save(args.out / f"{name}.jpg", quality=80, optimize=True)

    gfo.plugin.install()
    view = fo.load_dataset(args.dataset).load_saved_view("GSAL: latest round")
    session = fo.launch_app(view=view, port=args.port, remote=True, address="127.0.0.1")
    with sync_playwright() as playwright:
        playwright.selectors.set_test_id_attribute("data-cy")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1700, "height": 950})
        page.add_init_script("window.IS_PLAYWRIGHT = true")
        page.set_default_timeout(90_000)
        page.goto(f"http://127.0.0.1:{args.port}/")
        ui.grid_ready(page)
        shoot(page, "app_round")
        ui.open_sample(page, 0)
        page.wait_for_timeout(1500)  # the picture of the sample fades in
        shoot(page, "app_sample")
        ui.close_sample(page)
        panel = ui.open_panel(page, "gsal_concepts")
        panel.locator(".main-svg").first.wait_for()
        shoot(page, "app_concepts")
        browser.close()
    session.close()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
