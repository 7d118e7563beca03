"""The panels through FiftyOne's own execution context: what each event sends to the App."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import fiftyone as fo
import pytest
from fiftyone.operators.executor import ExecutionContext, Executor
from fiftyone.operators.registry import OperatorRegistry

import gsal_fo.fo as gfo
from gsal_fo.acquisition import picking
from gsal_fo.fo.app import coverage as covering
from gsal_fo.fo.app import live
from gsal_fo.fo.app import preview as previewing
from gsal_fo.fo.app import why as whys
from tests.fo_pool import box

NAME = "@gsal/active-learning"


@pytest.fixture(scope="module", autouse=True)
def installed():
    return gfo.plugin.install()


class Event:
    """One event of a panel and what the App was sent."""

    def __init__(self, name, dataset, method, state=None, *, sample=None, view=None, **params):
        panel = OperatorRegistry().get_operator(f"{NAME}/{name}")
        request = {"dataset_name": dataset.name, "operator_uri": panel.uri, "current_sample": sample}
        if view is not None:
            request["view"] = view._serialize()
        request["params"] = {"panel_id": "p", "panel_state": state or {}, "__method__": method, **params}
        ctx = ExecutionContext(request_params=request, executor=Executor(), operator_uri=panel.uri)
        panel.execute(ctx)
        self.dataset, self.requests = dataset, ctx.executor._requests

    def asked(self, name):
        return [r.params for r in self.requests if r.operator_uri.endswith(name)]

    @property
    def state(self):
        return {k: v for p in self.asked("patch_panel_state") for k, v in p["state"].items()}

    @property
    def data(self):
        return {k: v for p in self.asked("patch_panel_data") for k, v in p["data"].items()}

    @property
    def view(self):
        return fo.DatasetView._build(self.dataset, self.asked("set_view")[-1]["view"])

    @property
    def notices(self):
        return [(p["variant"], p["message"]) for p in self.asked("notify")]

    @property
    def shown(self):
        """Names of everything on the panel."""
        return names(self.asked("show_panel_output")[-1]["output"])


def names(schema):
    out = set()
    for name, prop in (schema.get("type", schema).get("properties") or {}).items():
        out |= {name, *names(prop)}
    return out


def disabled(schema):
    """Names of the buttons that cannot be pressed."""
    out = []
    for name, prop in (schema.get("type", schema).get("properties") or {}).items():
        out += [name] if (prop.get("view") or {}).get("disabled") else []
        out += disabled(prop)
    return out


def label(dataset, sample_id, *boxes):
    sample = dataset[sample_id]
    sample["ground_truth"] = fo.Detections(detections=list(boxes))
    sample.save()


class TestCoverage:
    def test_the_graph_and_the_table_hold_every_node(self, scored):
        event = Event("gsal_concepts", scored, "on_load")
        rows = gfo.coverage(scored)
        assert event.data["graph"][-1]["ids"] == sorted(r["node"] for r in rows)
        assert [r["node"] for r in event.data["rows"]] == [r["node"] for r in rows] == event.state["order"]
        rare = {r["node"] for r in event.data["rows"] if r["state"].startswith("yes, <= ")}
        assert rare == {"petal", "surface", "bright"}
        assert {"graph", "rows", "rounds", "open_score", "open_select", "open_export", "open_ingest"} <= event.shown

    def test_counts_are_those_of_the_fields(self, scored):
        paths = [set(p or []) for p in scored.values("gsal_path")]
        assert {r["node"]: r["pool"] for r in gfo.coverage(scored)} == {
            node: sum(node in p for p in paths) for node in (r["node"] for r in gfo.coverage(scored))
        }

    @pytest.mark.parametrize(("method", "params"), [("on_node", {"id": "round"}), ("on_row", {"node": "round"})])
    def test_a_click_shows_the_pools_images_that_carry_the_node(self, scored, method, params):
        gfo.select(scored, 2)
        left = scored.exists("gsal_round", False).exists("ground_truth", False)
        expected = {i for i, p in zip(*left.values(["id", "gsal_path"]), strict=True) if "round" in (p or [])}
        if method == "on_row":
            params = {"row": [r["node"] for r in gfo.coverage(scored)].index("round")}
        event = Event("gsal_concepts", scored, method, **params)
        assert set(event.view.values("id")) == expected and expected
        assert event.state["shown"].startswith(f"**round**: {len(expected)} image")
        scores = event.view.values("gsal_score")
        assert scores == sorted(scores, reverse=True)

    def test_switched_it_shows_the_proposals_that_carry_it(self, scored):
        event = Event("gsal_concepts", scored, "on_node", {"showing": {"patches": True}}, id="linear")
        boxes = [d.id for s in scored.exists("gsal_rank") for d in s.gsal_proposals.detections if "linear" in d["path"]]
        assert sorted(event.view.values("id")) == sorted(boxes) and boxes
        assert event.state["shown"].startswith(f"**linear**: {len(boxes)} proposal")

    def test_a_scoring_whose_fields_were_replaced_still_shows_its_own_images(self, dataset, graph, tiny):
        first, second = (gfo.score(dataset, concepts=graph, run_key=key) for key in ("one", "two"))
        event = Event("gsal_concepts", dataset, "on_node", {"run": first}, id="crack")
        row = next(r for r in gfo.coverage(dataset, run_key=first) if r["node"] == "crack")
        assert len(event.view) == row["pool"] > 0
        event = Event("gsal_concepts", dataset, "on_node", {"run": first, "showing": {"patches": True}}, id="crack")
        assert event.notices == [
            ("error", f"the proposals in the dataset are those of {second}; choose that scoring to see patches")
        ]
        assert Event("gsal_concepts", dataset, "on_load").state["keys"] == [first, second]

    def test_coverage_follows_labels_and_rounds(self, scored):
        batch = gfo.select(scored, 2)
        label(scored, batch.first().id, box("petal"), box("petal", x=0.5))
        event = Event("gsal_concepts", scored, "refresh")
        petal = next(t for t in event.data["rounds"] if t["name"] == "petal")
        assert (petal["x"], petal["y"]) == (["round 1", "now"], [0, 2])
        assert next(r["labeled"] for r in event.data["rows"] if r["node"] == "petal") == 2

    def test_before_a_scoring_it_says_what_to_do(self, dataset):
        event = Event("gsal_concepts", dataset, "on_load")
        assert {"empty", "open_score"} <= event.shown and "graph" not in event.shown

    def test_a_lost_run_folder_is_said_not_traced(self, dataset, graph, tiny):
        gfo.score(dataset, concepts=graph)
        (manifest,) = (__import__("pathlib").Path(gfo.runs.load(dataset).config.run_dir)).glob("manifest.parquet")
        manifest.unlink()
        event = Event("gsal_concepts", dataset, "on_load")
        assert "run score again" in event.state["problem"] and "problem" in event.shown

    def test_a_rows_button_shows_the_concept_of_the_row_that_was_clicked(self, scored):
        """Labels that come meanwhile change the order of the rows, not what the person has seen."""
        opened = Event("gsal_concepts", scored, "on_load")
        seen = [r["node"] for r in opened.data["rows"]]
        label(scored, scored.exists("gsal_rank").first().id, *(box("petal", x=i / 10) for i in range(6)))
        assert [r["node"] for r in gfo.coverage(scored)] != seen
        for place, node in enumerate(seen):
            event = Event("gsal_concepts", scored, "on_row", {"order": opened.state["order"]}, row=place)
            assert event.state["node"] == node

    def test_every_choice_draws_the_same_traces_with_the_dots_in_the_same_places(self, scored):
        def shape(event):
            return [(t["name"], t.get("ids"), t["x"] if t.get("ids") else None) for t in event.data["graph"]]

        opened = Event("gsal_concepts", scored, "on_load")
        nodes = opened.data["graph"][-1]["ids"]
        edges = [sum(x is not None for x in t["x"]) // 2 for t in opened.data["graph"][:2]]
        assert edges == [9, 0] and len(shape(opened)) == 3
        for node in nodes:
            event = Event("gsal_concepts", scored, "on_node", id=node)
            assert shape(event) == shape(opened)
            assert sum(sum(x is not None for x in t["x"]) // 2 for t in event.data["graph"][:2]) == 9
        label(scored, scored.exists("gsal_rank").first().id, *(box("petal", x=i / 10) for i in range(6)))
        assert shape(Event("gsal_concepts", scored, "refresh")) == shape(opened)

    def test_proposals_carry_all_fields_so_that_the_sidebar_keeps_its_order(self, scored):
        event = Event("gsal_concepts", scored, "on_node", {"showing": {"patches": True}}, id="linear")
        assert set(scored.get_field_schema()) <= set(event.view.get_field_schema())

    def test_its_buttons_open_the_operators(self, scored):
        for name in ("score", "select", "export", "annotate", "ingest", "cancel"):
            (asked,) = Event("gsal_concepts", scored, f"open_{name}").asked("prompt_user_for_operation")
            assert asked["operator_uri"] == f"{NAME}/gsal_{name}"

    def test_buttons_that_need_a_round_wait_for_one(self, scored):
        def idle():
            requests = Event("gsal_concepts", scored, "on_load").asked("show_panel_output")
            return set(disabled(requests[-1]["output"]))

        assert idle() == {"open_export", "open_annotate", "open_ingest", "open_cancel"}
        gfo.select(scored, 1)
        assert not idle()


def settings(**values):
    """The panel's state with these values in the rows of its form."""
    rows = {"lam": "b", "eta": "b", "per_image": "c", "per_box": "c", "alike": "c"}
    form = {}
    for name, value in values.items():
        form.setdefault(rows.get(name, "a"), {})[name] = value
    return {"form": form, "level": "fine"}


class TestPreview:
    def test_it_shows_the_batch_that_select_would_make(self, scored):
        event = Event("gsal_preview", scored, "on_load", settings(amount=3))
        ids = event.view.values("id")
        assert event.state["count"] == 3 and {"tag", "mix", "facts", "lam", "eta"} <= event.shown
        assert ids == gfo.select(scored, 3).values("id")

    @pytest.mark.parametrize("change", [{"lam": 0}, {"eta": 1.0}, {"batch": "greedy"}, {"strategy": "random"}])
    def test_it_follows_every_setting_as_select_does(self, scored, change):
        event = Event("gsal_preview", scored, "on_load", settings(amount=4, **change))
        params = replace(previewing.params_of(scored), **change)
        assert set(event.view.values("id")) == set(gfo.select(scored, 4, params=params).values("id"))

    def test_a_moved_slider_is_kept_and_ranks_again(self, scored):
        event = Event("gsal_preview", scored, "on_setting", settings(amount=4), path="form.b.lam", value=0)
        asked = previewing.Asked(replace(previewing.params_of(scored), lam=0), picking.Budget(4))
        assert event.state["settings"]["lam"] == 0 == event.state["form.b.lam"]
        assert event.view.values("id") == previewing.preview(scored, asked).ids

    def test_the_form_opens_filled_so_that_the_app_reports_no_defaults(self, scored):
        event = Event("gsal_preview", scored, "on_load", settings(lam=0.25))
        filled = {k.split(".")[-1]: v for k, v in event.state.items() if k.startswith("form.")}
        assert filled | {"lam": 0.25} == event.state["settings"] and "lam" not in filled

    def test_another_dataset_starts_from_its_own_constants(self, scored):
        event = Event("gsal_preview", scored, "on_change_dataset", settings(lam=0.25))
        assert event.state["settings"]["lam"] == previewing.params_of(scored).lam

    def test_a_default_that_the_opening_form_reports_ranks_nothing(self, scored):
        known = Event("gsal_preview", scored, "on_load", settings(amount=4)).state["settings"]
        state = settings(amount=4) | {"settings": known}
        event = Event("gsal_preview", scored, "on_setting", state, path="form.b.lam", value=known["lam"])
        assert not event.asked("set_view") and not event.state

    def test_nothing_is_written_until_it_is_tagged(self, scored):
        before = scored.values("last_modified_at")
        Event("gsal_preview", scored, "on_load", settings(amount=3))
        assert scored.values("last_modified_at") == before and not gfo.runs.select_keys(scored)

    def test_the_button_tags_exactly_what_was_shown(self, scored):
        shown = Event("gsal_preview", scored, "on_load", settings(amount=3, lam=0.25, batch="greedy"))
        ids = shown.view.values("id")
        state = settings(amount=3, lam=0.25, batch="greedy") | {"batch": shown.state["batch"]}
        event = Event("gsal_preview", scored, "tag", state)
        assert event.notices == [("success", "3 images tagged gsal_round_001")]
        scored.reload()
        assert set(scored.match_tags("gsal_round_001").values("id")) == set(ids) == set(event.view.values("id"))
        params = gfo.runs.load(scored, gfo.runs.select_keys(scored)[-1]).config.params
        assert (params["lam"], params["batch"]) == (0.25, "greedy")

    def test_pressed_the_button_is_disabled_until_it_is_done(self, scored):
        opened = Event("gsal_preview", scored, "on_load", settings(amount=3))
        state = settings(amount=3) | opened.state
        assert "tag" not in disabled(opened.asked("show_panel_output")[-1]["output"])
        pressed = Event("gsal_preview", scored, "ask_tag", state)
        assert "tag" in disabled(pressed.asked("show_panel_output")[-1]["output"])
        (then,) = pressed.asked("prompt_user_for_operation")
        assert then["operator_uri"] == f"{NAME}/gsal_preview#tag" and then["skip_prompt"]
        done = Event("gsal_preview", scored, "tag", state | pressed.state)
        assert "tag" not in disabled(done.asked("show_panel_output")[-1]["output"])

    def test_a_double_click_tags_one_round(self, scored):
        state = settings(amount=3)
        state |= {"batch": Event("gsal_preview", scored, "on_load", state).state["batch"]}
        with ThreadPoolExecutor(4) as threads:
            events = list(threads.map(lambda _: Event("gsal_preview", scored, "tag", state), range(4)))
        assert [e.notices for e in events] == [[("success", "3 images tagged gsal_round_001")]] * 4
        scored.reload()
        assert gfo.runs.select_keys(scored) == ["gsal_select_001"]
        assert scored.count_sample_tags() == {"gsal_round_001": 3}
        assert scored.count_values("gsal_round") == {1: 3, None: 9}

    def test_what_another_has_selected_meanwhile_is_not_tagged_again(self, scored):
        state = settings(amount=3)
        state |= {"batch": Event("gsal_preview", scored, "on_load", state).state["batch"]}
        gfo.select(scored, 2)
        event = Event("gsal_preview", scored, "tag", state)
        assert event.notices[0][0] == "error" and "have changed" in event.notices[0][1]
        assert len(gfo.runs.select_keys(scored)) == 1

    def test_a_batch_of_before_a_label_is_not_tagged(self, scored):
        shown = Event("gsal_preview", scored, "on_load", settings(amount=3))
        label(scored, shown.view.values("id")[0], box("void"))
        event = Event("gsal_preview", scored, "tag", settings(amount=3) | {"batch": shown.state["batch"]})
        assert event.notices[0][0] == "error" and "have changed" in event.notices[0][1]
        assert not gfo.runs.select_keys(scored)

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            ({"amount": 10}, "in [1, 9]"),
            ({"amount": 0}, "above 0"),
            ({"amount": 2.5}, "whole number"),
            ({"amount": 0.01, "unit": "minutes"}, "the first image alone costs"),
            ({"amount": 3, "eta": 2}, "eta must be a number in [0, 1]"),
            ({"amount": 3, "strategy": "entropy"}, "needs class posteriors"),
        ],
    )
    def test_what_cannot_be_is_said_and_cannot_be_tagged(self, scored, values, text):
        if values.get("strategy") == "entropy":
            scored_by_windows = previewing.live.of(scored).state.table.entropy
            if (scored_by_windows == scored_by_windows).any():
                pytest.skip("this pool has a detector's entropy")
        event = Event("gsal_preview", scored, "on_load", settings(**values))
        assert text in event.state["problem"] and "tag" not in event.shown and not event.asked("set_view")

    def test_it_asks_before_seconds_of_greedy_ranking(self, scored, monkeypatch):
        monkeypatch.setattr(previewing, "GREEDY_WORK", 10)
        event = Event("gsal_preview", scored, "on_load", settings(amount=3, batch="greedy"))
        assert "run_greedy" in event.shown and not event.asked("set_view")
        assert len(Event("gsal_preview", scored, "run_greedy", settings(amount=3, batch="greedy")).view) == 3

    def test_near_duplicates_come_beside_what_they_repeat(self, scored):
        asked = previewing.Asked(previewing.params_of(scored), picking.Budget(9), alike=0.5)
        repeats = previewing.preview(scored, asked).repeats
        event = Event("gsal_preview", scored, "show_repeats", settings(amount=9, alike=0.5))
        assert len(event.view) == len({k for place, earlier, _ in repeats for k in (place, earlier)}) > 0

    def test_before_a_scoring_it_says_what_to_do(self, dataset):
        assert {"empty", "open_score"} <= Event("gsal_preview", dataset, "on_load").shown


class Broken(Exception):
    """No error of ours."""


def broken(*args, **kwargs):
    raise Broken("it broke")


class TestErrors:
    """FiftyOne shows a panel's exception as a stack trace in the panel's place."""

    SAID = "Broken: it broke; this should not happen, see the server's log"

    @pytest.mark.parametrize(
        ("name", "method", "params"),
        [
            ("gsal_concepts", "on_node", {"id": "round"}),
            ("gsal_concepts", "on_row", {"row": 0}),
            ("gsal_concepts", "on_patches", {"value": True}),
            ("gsal_preview", "tag", {}),
            ("gsal_preview", "show_picks", {}),
            ("gsal_preview", "show_repeats", {}),
        ],
    )
    def test_an_event_that_breaks_is_a_notice_and_the_panel_stays(self, scored, monkeypatch, name, method, params):
        opened = Event(name, scored, "on_load", settings(amount=3) | {"node": "round"})
        state = settings(amount=3) | {"node": "round"} | opened.state
        for module, part in ((covering, "shown_node"), (previewing, "preview"), (previewing, "tag")):
            monkeypatch.setattr(module, part, broken)
        event = Event(name, scored, method, state, **params)
        assert event.notices == [("error", self.SAID)]
        assert event.shown == opened.shown | ({"everything"} if name == "gsal_concepts" else set())

    @pytest.mark.parametrize("name", ["gsal_concepts", "gsal_preview", "gsal_why"])
    def test_what_breaks_while_it_reads_stands_in_the_panel(self, scored, monkeypatch, name):
        for module, part in ((live, "of"), (whys, "why")):
            monkeypatch.setattr(module, part, broken)
        event = Event(name, scored, "on_load", sample=scored.exists("gsal_rank").first().id)
        assert self.SAID in event.state["problem"] and "problem" in event.shown

    @pytest.mark.parametrize("name", ["gsal_concepts", "gsal_preview", "gsal_why"])
    def test_a_panel_that_cannot_be_drawn_says_so(self, scored, monkeypatch, name):
        monkeypatch.setattr(type(OperatorRegistry().get_operator(f"{NAME}/{name}")), "render", broken)
        event = Event(name, scored, "on_load")
        assert event.shown == {"problem"} and event.notices == [("error", self.SAID)]

    def test_without_a_dataset_it_asks_for_one(self):
        for name in ("gsal_concepts", "gsal_preview", "gsal_why"):
            panel = OperatorRegistry().get_operator(f"{NAME}/{name}")
            request = {"params": {"panel_id": "p", "panel_state": {}, "__method__": "on_load"}}
            ctx = ExecutionContext(request_params=request, executor=Executor(), operator_uri=panel.uri)
            panel.execute(ctx)
            shown = [r.params["output"] for r in ctx.executor._requests if r.operator_uri.endswith("panel_output")]
            assert names(shown[-1]) == {"problem"} and "no dataset is open" in str(shown[-1])


class TestWhy:
    def test_it_explains_the_open_image(self, scored):
        for sample in scored.exists("gsal_rank").sort_by("gsal_rank").limit(3):
            event = Event("gsal_why", scored, "on_change_current_sample", sample=sample.id)
            assert sample["gsal_rationale"] in event.state["sentence"]
            assert f"Rank {sample['gsal_rank']} of 9" in event.state["sentence"]
            assert event.data["terms"][0]["x"][-1] == pytest.approx(sample["gsal_score"], abs=1e-9)
            pictures = event.state["sheet"]["images"]
            assert len(pictures) == 2 * len(sample["gsal_proposals"].detections)
            assert all(p["source"].startswith("data:image/jpeg") for p in pictures)

    def test_indicators_have_counts_and_thresholds(self, scored):
        sample = scored.exists("gsal_rank").first()
        event = Event("gsal_why", scored, "on_load", sample=sample.id)
        rows = {r["node"]: r for r in gfo.coverage(scored)}
        for node in (sample["gsal_fine"].label, sample["gsal_coarse"].label):
            assert f"| {node} | " in event.state["indicators"]
            assert f" | {rows[node]['labeled']} | {rows[node]['threshold']} | " in event.state["indicators"]

    def test_a_picked_image_keeps_the_reasons_of_its_round(self, scored):
        batch = gfo.select(scored, 2)
        picked, reason = batch.first(), batch.values("gsal_rationale")[0]
        for image in batch:
            label(scored, image.id, box("petal"))
        gfo.select(scored, 2)
        event = Event("gsal_why", scored, "on_load", sample=picked.id)
        assert reason in event.state["sentence"] and "Round 1, gsal_select_001" in event.state["sentence"]

    def test_of_a_patch_it_explains_the_image(self, scored):
        patches = scored.to_patches("gsal_proposals")
        patch = patches.first()
        event = Event("gsal_why", scored, "on_load", sample=patch.id, view=patches)
        assert scored[patch.sample_id]["gsal_rationale"] in event.state["sentence"]

    def test_what_it_cannot_explain_it_says(self, scored, dataset):
        labeled = scored.first()
        assert (
            "has no result for this image" in Event("gsal_why", scored, "on_load", sample=labeled.id).state["problem"]
        )
        assert "open an image" in Event("gsal_why", scored, "on_load").state["problem"]
        assert "Not scored yet" in Event("gsal_why", dataset, "on_load", sample=dataset.first().id).state["problem"]

    def test_a_lost_file_leaves_the_reasons(self, scored):
        sample = scored.exists("gsal_rank").first()
        sample.filepath = "/nowhere/gone.png"
        sample.save()
        event = Event("gsal_why", scored, "on_load", sample=sample.id)
        assert "the file is missing" in event.state["unreadable"] and event.data["terms"]
