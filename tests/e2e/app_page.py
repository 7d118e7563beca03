"""What a person does in the App, as functions. FiftyOne promises no stable names, so all selectors live here."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

GRID_LOADED = "document.querySelector('canvas')?.getAttribute('canvas-loaded') === 'true'"


def open_dataset(page: Page, app: str, name: str) -> None:
    page.goto(f"{app}/datasets/{name}")
    grid_ready(page)


def grid_ready(page: Page) -> None:
    page.get_by_test_id("spotlight-section-forward").first.wait_for()
    page.wait_for_function(GRID_LOADED)


def expect_samples(page: Page, count: int, what: str = "sample") -> None:
    expect(page.get_by_test_id("entry-counts")).to_have_text(re.compile(rf"^{count} {what}(e?s)?$"))


def clear_view(page: Page) -> None:
    page.get_by_test_id("btn-clear-view-bar").click()


def sidebar_entry(page: Page, field: str) -> Locator:
    return page.get_by_test_id(f"checkbox-{field}")


def sidebar_order(page: Page) -> list[str]:
    """Groups and fields from top to bottom."""
    both = '[data-cy^="sidebar-group-entry-"], [data-cy^="checkbox-"]'
    return page.locator(both).evaluate_all("found => found.map(e => e.dataset.cy)")


def open_saved_view(page: Page, slug: str) -> None:
    page.get_by_test_id("saved-views-selection").click()
    page.get_by_test_id(f"saved-views-{slug}-selection-option").click()


def bubbles(page: Page, field: str) -> Locator:
    """The values of a field on the grid, image by image."""
    return page.get_by_test_id(f"tag-{field}")


def sort_by(page: Page, field: str, *, descending: bool) -> None:
    page.get_by_test_id("selector-Sort by").fill(field)
    page.keyboard.press("Enter")
    if descending:
        page.get_by_test_id("selector-Sort by").locator("xpath=ancestor::div[3]/following-sibling::*[1]").click()


def filter_by(page: Page, field: str, value: str) -> None:
    page.get_by_test_id(f"sidebar-field-arrow-enabled-{field}").click()
    page.get_by_test_id(f"selector-sidebar-search-{field}").fill(value)
    # The input measures its text in a hidden element: only a visible one is a result.
    page.get_by_text(value, exact=True).locator("visible=true").first.wait_for()
    page.keyboard.press("Enter")


def expect_tag(page: Page, tag: str) -> None:
    """The sidebar lists a sample tag."""
    page.get_by_test_id("sidebar-field-arrow-enabled-tags").click()
    expect(page.get_by_text(tag, exact=True).locator("visible=true").first).to_be_visible()


def open_operator(page: Page, label: str) -> Locator:
    """Find an operator in the operator browser; returns its form."""
    page.get_by_test_id("action-browse-operations").click()
    page.get_by_test_id("operators-browser-search").fill(label)
    page.get_by_test_id("operators-browser").get_by_text(label).click()
    form = page.get_by_test_id("operators-prompt-modal")
    form.wait_for()
    return form


def fill(form: Locator, label: str, value: str) -> None:
    """Type into the form's field under a label."""
    form.get_by_text(label, exact=True).first.locator("xpath=following::input[1]").fill(value)


def schedule(page: Page) -> None:
    """The other choice of the button's menu."""
    page.locator(".MuiDialogActions-root button").last.click()
    page.get_by_role("menu").get_by_text("Schedule").click()
    page.locator('.MuiDialogActions-root button:has-text("Schedule")').first.click()


def execute_button(page: Page) -> Locator:
    return page.locator('.MuiDialogActions-root button:has-text("Execute")').first


def execute(page: Page) -> None:
    execute_button(page).click()


def open_panel(page: Page, name: str) -> Locator:
    page.get_by_title("New panel").first.click()
    page.get_by_test_id(f"new-panel-option-{name}").click()
    return page.get_by_test_id(f"panel-content-{name}")


def panel_in(modal: Locator, name: str) -> Locator:
    """A panel of the open sample: the App lists every such panel as a tab."""
    modal.get_by_test_id(f"panel-tab-{name}").click()
    return modal.get_by_test_id(f"panel-content-{name}")


def click_dot(page: Page, number: int) -> None:
    """Click a plot's marker with the real mouse: plotly takes no synthetic click."""
    dot = page.locator(".scatterlayer .trace .points path").nth(number)
    dot.wait_for()
    place = dot.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x - 2, y)
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def open_sample(page: Page, number: int) -> Locator:
    page.get_by_test_id("looker").nth(number).click(position={"x": 40, "y": 80})
    modal = page.get_by_test_id("modal")
    modal.wait_for()
    return modal


def close_sample(page: Page) -> None:
    """A click beside the sample; the session remembers an open one, and the next page would start with it."""
    page.mouse.click(10, 600)
    page.get_by_test_id("modal").wait_for(state="hidden")


def wait_until(page: Page, condition: Callable[[], object]) -> None:
    """Wait for something that is not on the page; fails after a while."""
    for _ in range(2000):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it did not happen within 200 seconds")


def shoot(page: Page, folder: Path, name: str) -> None:
    page.screenshot(path=str(folder / f"{name}.png"))
