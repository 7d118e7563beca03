"""A person's way through the App, in a real browser on a real server, over the real plugin and dataset."""

import app_page as ui
import pytest
from fiftyone import ViewField as F
from playwright.sync_api import expect

import gsal_fo.fo as gfo


def shown(value: float) -> str:
    """A float as the App's grid writes it."""
    return f"{round(value, 3):g}"


def test_the_sidebar_has_a_gsal_group_and_the_grid_sorts_by_score(page, app, pool, shots):
    ui.open_dataset(page, app, pool.name)
    expect(page.get_by_test_id("sidebar-group-GSAL")).to_be_visible()
    for name in ("gsal_score", "gsal_path", "gsal_rationale", "gsal_proposals", "gsal_map"):
        expect(ui.sidebar_entry(page, name)).to_be_visible()
    ui.shoot(page, shots, "01_open")
    ui.sort_by(page, "gsal_score", descending=True)
    best = sorted((s for s in pool.values("gsal_score") if s is not None), reverse=True)
    for place in range(3):
        expect(ui.bubbles(page, "gsal_score").nth(place)).to_have_text(shown(best[place]))
    ui.shoot(page, shots, "02_sorted")
    modal = ui.open_sample(page, 0)
    expect(modal.get_by_text(f"rank 1 of {len(best)}, score")).to_be_visible()
    ui.shoot(page, shots, "03_why")
    ui.close_sample(page)


def test_a_concept_node_filters_the_grid(page, app, pool, shots):
    ui.open_dataset(page, app, pool.name)
    ui.filter_by(page, "gsal_path", "round")
    ui.expect_samples(page, len(pool.match(F("gsal_path").contains("round"))))
    ui.shoot(page, shots, "04_filtered")


def test_select_from_the_operator_browser_tags_the_best(page, app, pool, shots):
    ui.open_dataset(page, app, pool.name)
    # Tests that ran before in this App may have tagged rounds of their own.
    rounds = [tag for tag in pool.distinct("tags") if tag.startswith("gsal_round_")]
    free = pool.exists("gsal_rank").match_tags(rounds, bool=False) if rounds else pool.exists("gsal_rank")
    best, tag = free.sort_by("gsal_rank").limit(5).values("id"), f"gsal_round_{len(rounds) + 1:03d}"
    form = ui.open_operator(page, "GSAL: select a batch")
    form.locator("input[type=number]").fill("400")
    expect(form.get_by_text(f"The budget must be in [1, {len(free)}]")).to_be_visible()
    ui.shoot(page, shots, "05_too_many")
    form.locator("input[type=number]").fill("5")
    expect(form.get_by_text("The budget must be")).to_be_hidden()
    ui.shoot(page, shots, "06_select")
    ui.execute(page)
    ui.expect_samples(page, 5)
    ui.shoot(page, shots, "07_selected")
    page.reload()
    ui.grid_ready(page)
    ui.expect_tag(page, tag)
    ui.shoot(page, shots, "08_tag")
    pool.reload()
    assert set(pool.match_tags(tag).values("id")) == set(best)


@pytest.mark.parametrize("slug", ["gsal-latest-round", "mine"])
def test_a_round_is_cancelled_while_a_saved_view_is_open(page, app, pool, shots, slug):
    batch = gfo.select(pool, 3)
    tag = gfo.runs.load(pool, gfo.runs.select_keys(pool)[-1]).config.tag
    gfo.setup_views(pool)
    if "mine" not in pool.list_saved_views():
        pool.save_view("mine", pool.match_tags(tag))
    assert len(batch) == 3
    page.goto(f"{app}/datasets/{pool.name}")
    ui.open_saved_view(page, slug)
    ui.grid_ready(page)
    form = ui.open_operator(page, "GSAL: cancel a round")
    expect(form.get_by_text(tag).first).to_be_visible()
    ui.execute(page)
    expect(page.get_by_text(f"{tag} cancelled").first).to_be_visible()
    pool.reload()
    assert tag not in pool.count_sample_tags()
    for moment in ("cancelled", "reloaded"):
        if moment == "reloaded":
            page.reload()
        expect(page.get_by_test_id("entry-counts")).to_be_visible()
        expect(page.get_by_text("API Error")).to_have_count(0)
        ui.shoot(page, shots, f"09_{moment}_{slug}")
    page.goto(f"{app}/datasets/{pool.name}?view=gsal-top-of-pool")
    ui.grid_ready(page)
