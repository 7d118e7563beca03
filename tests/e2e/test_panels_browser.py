"""The three panels by mouse and key: what a click filters, preview then tag, the arrow keys, empty and error states."""

from pathlib import Path

import app_page as ui
import fiftyone as fo
import pytest
from fiftyone import ViewField as F
from playwright.sync_api import expect

import gsal_fo.fo as gfo
from gsal_fo.fo import rounds
from tests.fo_pool import picture


@pytest.fixture(scope="module")
def unscored(tmp_path_factory):
    """A dataset that nobody has scored."""
    folder = tmp_path_factory.mktemp("unscored")
    dataset = fo.Dataset("gsal-e2e-unscored", overwrite=True)
    dataset.add_samples([fo.Sample(picture(folder / f"{i}.png", i)) for i in range(3)])
    yield dataset
    dataset.delete()


def carriers(dataset, node):
    """The pool's images with a proposal that looks like a node, counted by the database."""
    dataset.reload()
    left = dataset.exists("gsal_rank").exists("ground_truth", False)
    if dataset.has_sample_field("gsal_round"):
        left = left.exists("gsal_round", False)
    return len(left.match(F("gsal_path").contains(node)))


def test_each_click_on_a_concept_shows_exactly_the_pools_images_that_carry_it(page, app, pool, shots):
    ui.open_dataset(page, app, pool.name)
    panel = ui.open_panel(page, "gsal_concepts")
    rows = gfo.coverage(pool)
    dots = sorted(r["node"] for r in rows)  # in this order the plot has them, whatever is chosen
    nodes = [r["node"] for r in rows if r["pool"]]
    for node in (nodes[1], nodes[4], nodes[0], nodes[-1]):
        ui.click_dot(page, dots.index(node))
        what = "image" if carriers(pool, node) == 1 else "images"
        expect(panel.locator("p", has_text=f"{node}: {carriers(pool, node)} {what} of the pool")).to_be_visible()
        ui.expect_samples(page, carriers(pool, node))
    ui.shoot(page, shots, "09_concepts")
    expect(panel.locator(".textpoint text").first).to_be_visible()
    assert panel.locator(".textpoint text").count() == len(rows)
    panel.get_by_text("Show all").click()
    ui.expect_samples(page, len(pool))
    expect(panel.get_by_text("Click a concept to see")).to_be_visible()
    ui.shoot(page, shots, "09_show_all")
    assert panel.locator(".textpoint text").count() == len(rows), "every label once"
    edges = len(rounds.graph_of(gfo.runs.load(pool).config).graph.edges)
    assert panel.locator(".js-plotly-plot").first.locator(".js-line").count() == edges, "no line of a former choice"
    ui.click_dot(page, dots.index(nodes[2]))
    ui.expect_samples(page, carriers(pool, nodes[2]))


def test_proposals_come_and_go_and_the_sidebar_stays(page, app, pool, shots):
    ui.open_dataset(page, app, pool.name)
    before = ui.sidebar_order(page)
    panel = ui.open_panel(page, "gsal_concepts")
    rows = gfo.coverage(pool)
    node = rows[1]["node"]
    ui.click_dot(page, sorted(r["node"] for r in rows).index(node))
    ui.expect_samples(page, carriers(pool, node))
    boxes = gfo.node_view(pool, node, patches=True)
    panel.get_by_role("checkbox").first.click()
    expect(panel.get_by_text(f"{len(boxes)} proposals of the pool")).to_be_visible()
    ui.expect_samples(page, len(boxes), "patch")
    ui.shoot(page, shots, "09_proposals")
    panel.get_by_role("checkbox").first.click()
    ui.expect_samples(page, carriers(pool, node))
    assert ui.sidebar_order(page) == before
    panel.get_by_text("Show all").click()
    ui.expect_samples(page, len(pool))
    assert ui.sidebar_order(page) == before


def test_a_batch_is_looked_at_then_tagged(page, app, pool, shots):
    ui.open_dataset(page, app, pool.name)
    panel = ui.open_panel(page, "gsal_preview")
    expect(panel.get_by_role("combobox").filter(has_text="gsal")).to_be_visible()
    amount = panel.locator("input[type=number]").first
    amount.fill("4000")
    amount.press("Tab")
    expect(panel.get_by_text("budget must be a whole number in")).to_be_visible()
    expect(panel.get_by_text("Tag this batch")).to_be_hidden()
    ui.shoot(page, shots, "10_preview_refused")
    amount.fill("4")
    amount.press("Tab")
    expect(panel.get_by_text("Tag this batch (4)")).to_be_visible()
    ui.expect_samples(page, 4)
    ui.shoot(page, shots, "11_preview")
    families = {r["node"] for r in gfo.coverage(pool) if r["level"] == "coarse"}
    panel.get_by_text("Families").click()
    expect(panel.locator(".ytick text")).to_have_count(len(families))
    assert set(panel.locator(".ytick text").all_text_contents()) == families, "no bar of the labels shown first"
    before = len(gfo.runs.select_keys(pool))
    panel.get_by_text("Tag this batch (4)").dblclick()
    expect(panel.get_by_text("4 images tagged").first).to_be_visible()
    ui.shoot(page, shots, "12_tagged")
    page.wait_for_timeout(3000)  # a second click that reached the server is answered by then
    pool.reload()
    assert len(gfo.runs.select_keys(pool)) == before + 1, "both clicks have tagged one round"
    tag = gfo.runs.load(pool, gfo.runs.select_keys(pool)[-1]).config.tag
    assert len(pool.match_tags(tag)) == 4


def test_the_panel_in_the_sample_follows_the_arrow_keys(page, app, pool, shots):
    ui.open_dataset(page, app, pool.name)
    ui.sort_by(page, "gsal_score", descending=True)
    best = pool.sort_by("gsal_score", reverse=True).limit(2)
    expect(ui.bubbles(page, "gsal_score").first).to_be_visible()
    modal = ui.open_sample(page, 0)
    panel = ui.panel_in(modal, "gsal_why")
    for place, reason in enumerate(best.values("gsal_rationale")):
        expect(panel.get_by_text(reason).first).to_be_visible()
        panel.get_by_text(reason).first.click()  # else the keys move between the tabs
        ui.shoot(page, shots, f"13_why_{place + 1}")
        page.keyboard.press("ArrowRight")
    ui.close_sample(page)


def test_an_unscored_dataset_is_told_what_to_do(page, app, unscored, shots):
    ui.open_dataset(page, app, unscored.name)
    for name in ("gsal_concepts", "gsal_preview"):
        panel = ui.open_panel(page, name)
        expect(panel.get_by_text("Score", exact=True).first).to_be_visible()
        ui.shoot(page, shots, f"14_empty_{name}")
    panel.get_by_role("button", name="Score").click()
    expect(page.get_by_test_id("operators-prompt-modal").get_by_text("Choose a concept graph file")).to_be_visible()


def test_a_lost_run_folder_is_a_sentence(page, app, pool, shots):
    manifest = Path(gfo.runs.load(pool).config.run_dir) / "manifest.parquet"
    aside = manifest.rename(manifest.with_suffix(".aside"))
    try:
        ui.open_dataset(page, app, pool.name)
        panel = ui.open_panel(page, "gsal_concepts")
        expect(panel.get_by_text("is gone; run score again")).to_be_visible()
        ui.shoot(page, shots, "15_error")
    finally:
        aside.rename(manifest)
    panel.get_by_text("Try again").click()
    expect(panel.get_by_text("Labeled instances by round")).to_be_visible()
