"""The pictures of the README's tour, from the real App on a scored dataset: ``python tests/bench/tour.py``.

The dataset is the demo's unless another is named; `gsal demo --no-app` makes it. Nothing of it is changed.
"""

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
    parser.add_argument("--raw", type=Path, help="folder for the screenshots as they are, too (PNG)")
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--height", type=int, default=1000)
    args = parser.parse_args()

    def shoot(page: Page, name: str) -> None:
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        if args.raw:
            picture.save(args.raw / f"{name}.png")
        picture.thumbnail((1200, 1200), Image.Resampling.LANCZOS)
        picture.save(args.out / f"{name}.jpg", quality=80, optimize=True)

    gfo.plugin.install()
    view = fo.load_dataset(args.dataset).load_saved_view("GSAL: latest round")
    session = fo.launch_app(view=view, port=args.port, remote=True, address="127.0.0.1")
    with sync_playwright() as playwright:
        playwright.selectors.set_test_id_attribute("data-cy")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": args.width, "height": args.height})
        page.add_init_script("window.IS_PLAYWRIGHT = true")
        page.set_default_timeout(90_000)
        page.goto(f"http://127.0.0.1:{args.port}/")
        ui.grid_ready(page)
        shoot(page, "app_round")
        ui.open_sample(page, 0)
        page.wait_for_timeout(1500)  # the picture of the sample fades in
        shoot(page, "app_sample")
        why = ui.panel_in(page.get_by_test_id("modal"), "gsal_why")
        why.locator(".main-svg").nth(1).wait_for()
        page.wait_for_timeout(1500)  # the crops are drawn after the axes
        shoot(page, "app_why")
        ui.close_sample(page)
        for name, panel_name, text in (
            ("app_concepts", "gsal_concepts", "Labeled instances by round"),
            ("app_preview", "gsal_preview", "Tag this batch"),
        ):
            session.spaces = fo.Space(children=[fo.Panel(type="Samples", pinned=True)])
            page.goto(f"http://127.0.0.1:{args.port}/datasets/{args.dataset}")
            ui.grid_ready(page)
            panel = ui.open_panel(page, panel_name)
            panel.get_by_text(text).first.wait_for()
            panel.locator(".main-svg").first.wait_for()
            ui.grid_ready(page)  # the preview has put its picks there
            page.wait_for_timeout(4000)  # the grid fills, the plots take their size
            shoot(page, name)
        browser.close()
    session.close()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
