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
STILL, MOST = 6, 240  # screenshots, half a second apart: that many alike; no more than that
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
        """Once nothing moves any more: thumbnails have come, samples have faded in, plots have their size."""
        seen: list[bytes] = []
        while len(seen) < STILL or len(set(seen[-STILL:])) > 1:
            seen.append(page.screenshot())
            page.wait_for_timeout(500)
            if len(seen) > MOST:
                raise SystemExit(f"{name}: the page does not come to rest")
        picture = Image.open(io.BytesIO(seen[-1])).convert("RGB")
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
        shoot(page, "app_sample")
        why = ui.panel_in(page.get_by_test_id("modal"), "gsal_why")
        why.locator(".main-svg").nth(1).wait_for()
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
            shoot(page, name)
        browser.close()
    session.close()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
