"""Sidebar, saved views and coverage."""

import fiftyone as fo
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo.app import coverage as covering
from gsal_fo.fo.app import live
from gsal_fo.fo.dataset import fields
from tests.fo_pool import box


def test_our_fields_get_a_group_and_a_persons_setup_stays(scored):
    groups = fo.DatasetAppConfig.default_sidebar_groups(scored)
    groups.append(fo.SidebarGroupDocument(name="mine", paths=["filepath"]))
    scored.app_config.sidebar_groups = groups
    scored.app_config.active_fields = fo.ActiveFields(paths=["filepath"])
    scored.app_config.color_scheme = fo.ColorScheme(color_pool=["#ff0000"], colorscales=[{"path": "x", "name": "hot"}])
    scored.save()
    scored.save_view("GSAL-like view of mine", scored.limit(1))
    gfo.setup_views(scored)
    config = scored.app_config
    by_name = {g.name: g.paths for g in config.sidebar_groups}
    assert by_name["GSAL"] == list(fields.SCORE_FIELDS) and by_name["mine"] == ["filepath"]
    assert not any(p.startswith("gsal_") for name, paths in by_name.items() if name != "GSAL" for p in paths)
    assert config.active_fields.paths[0] == "filepath" and "gsal_score" in config.active_fields.paths
    assert config.color_scheme.color_pool == ["#ff0000"]
    assert [dict(s)["path"] for s in config.color_scheme.colorscales] == ["x", "gsal_map"]
    assert "GSAL-like view of mine" in scored.list_saved_views()
    assert {"gsal_score", "gsal_path"} <= set(scored.list_indexes())


@pytest.mark.parametrize("persistent", [True, False])
def test_persistence_and_colors_are_the_owners_choice(scored, persistent):
    scored.persistent = persistent
    gfo.setup_views(scored)
    assert scored.persistent == persistent
    assert scored.app_config.color_scheme is None, "a dataset's scheme goes before everybody's own colors"


def test_ticked_fields_are_joined_and_unticked_ones_stay_what_they_are(scored):
    scored.add_sample_field("mine", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    exclude = fo.ActiveFields(exclude=True, paths=["metadata.size_bytes", "gsal_path"])
    ours = ["gsal_score", "gsal_fine", "gsal_proposals"]
    for before, after in (
        (None, ["ground_truth", "mine", *ours]),
        (fo.ActiveFields(paths=["filepath"]), ["filepath", "ground_truth", *ours]),
        (exclude, ["metadata.size_bytes", "gsal_path"]),
    ):
        scored.app_config.active_fields, scored.app_config.sidebar_groups = before, None
        scored.save()
        gfo.setup_views(scored)
        active = scored.app_config.active_fields
        assert active.paths == after and bool(active.exclude) == (before is exclude)


def test_what_a_person_rearranges_after_set_up_stays_so(scored):
    gfo.setup_views(scored)
    config = scored.app_config
    groups = {g.name: g for g in config.sidebar_groups}
    groups["GSAL"].paths = [p for p in groups["GSAL"].paths if p not in ("gsal_score", "gsal_path")]
    groups["labels"].paths = [*groups["labels"].paths, "gsal_path"]
    config.sidebar_groups = [fo.SidebarGroupDocument(name="mine", paths=["gsal_score"]), *config.sidebar_groups]
    config.active_fields = fo.ActiveFields(paths=["filepath"])
    scored.save()
    before = config.to_dict()
    gfo.setup_views(scored)
    assert scored.app_config.to_dict() == before
    gfo.select(scored, 1)
    (ours,) = [g for g in scored.app_config.sidebar_groups if g.name == "GSAL"]
    assert {"gsal_round", "gsal_status"} <= set(ours.paths) and "gsal_score" not in ours.paths


def test_a_persons_group_of_our_name_keeps_its_fields_first(scored):
    groups = fo.DatasetAppConfig.default_sidebar_groups(scored)
    scored.app_config.sidebar_groups = [*groups, fo.SidebarGroupDocument(name="GSAL", paths=["filepath"])]
    scored.save()
    gfo.setup_views(scored)
    (ours,) = [g for g in scored.app_config.sidebar_groups if g.name == "GSAL"]
    assert ours.paths == ["filepath", *fields.SCORE_FIELDS]


def test_set_up_takes_what_others_have_arranged_meanwhile(scored):
    """Two servers on one dataset: this process's copy of its settings is older than the database's."""
    doc = {"name": "theirs", "paths": ["filepath"]}
    scored._doc._get_collection().update_one(
        {"_id": scored._doc.id}, {"$set": {"app_config.sidebar_groups": [{"name": "tags", "paths": []}, doc]}}
    )
    gfo.setup_views(scored)
    scored.reload()
    assert [g.name for g in scored.app_config.sidebar_groups] == ["tags", "GSAL", "theirs"]


def test_what_the_caller_has_arranged_and_not_saved_is_taken(scored):
    scored.app_config.sidebar_groups = [fo.SidebarGroupDocument(name="tags"), fo.SidebarGroupDocument(name="mine")]
    gfo.setup_views(scored)
    assert [g.name for g in scored.app_config.sidebar_groups] == ["tags", "GSAL", "mine"]


NAMES = ["gsal latest round", "GSAL: latest round", "Gsal - latest.round"]  # one slug


@pytest.mark.parametrize("name", NAMES)
def test_a_persons_view_of_the_same_name_or_slug_stays_and_is_named(scored, name):
    gfo.select(scored, 2)
    mine = scored.limit(3)
    scored.save_view(name, mine, description="my own", color="#FF0000")
    notes = []
    made = gfo.setup_views(scored, on_event=lambda event: notes.append(event["message"]))
    assert "GSAL: latest round" not in made and "GSAL: top of pool" in made
    assert scored.load_saved_view(name) == mine and scored.get_saved_view_info(name)["description"] == "my own"
    (note,) = notes
    assert f'your saved view "{name}"' in note and '"GSAL: latest round" was not saved' in note
    with pytest.warns(UserWarning, match="was not saved"):
        gfo.setup_views(scored)
    gfo.cancel(scored)
    assert scored.load_saved_view(name) == mine
    gfo.select(scored, 1)
    scored.update_saved_view_info(name, {"name": "mine"})
    assert "GSAL: latest round" in gfo.setup_views(scored)


def test_our_views_are_changed_in_place_and_keep_what_a_person_may_edit(scored):
    gfo.select(scored, 2)
    gfo.setup_views(scored)
    scored.update_saved_view_info("GSAL: latest round", {"color": "#FF0000"})
    ids = {d.name: d.id for d in scored._doc.get_saved_views()}
    second = gfo.select(scored, 3).values("id")
    gfo.setup_views(scored)
    assert {d.name: d.id for d in scored._doc.get_saved_views()} == ids
    assert scored.load_saved_view("GSAL: latest round").values("id") == second
    assert scored.get_saved_view_info("GSAL: latest round")["color"] == "#FF0000"


def test_views_of_before_the_mark_are_known_as_ours(scored):
    """As version 0.1.0 saved them."""
    gfo.select(scored, 2)
    scored.save_view("GSAL: latest round", scored.limit(1), description="Round 7: what to label now", color="#499CEF")
    scored.save_view(
        "GSAL: top of pool",
        scored.limit(1),
        description="The 200 best images that no round has picked",
        color="#499CEF",
    )
    gfo.setup_views(scored)
    assert len(scored.load_saved_view("GSAL: latest round")) == 2
    assert len(scored.load_saved_view("GSAL: top of pool")) == 7


def test_crops_are_made_anew_by_who_opens_them_after_set_up_and_leave_no_litter(scored):
    gfo.setup_views(scored)
    name = "GSAL: crops, hardest first"
    first = scored.load_saved_view(name)
    assert len(first) == 2 * 9
    gfo.select(scored, 2)
    gfo.setup_views(scored)
    second = scored.load_saved_view(name)
    assert len(second) == 2 * 7 and second._dataset.name != first._dataset.name
    assert second._dataset.persistent and not fo.load_dataset(first._dataset.name).persistent
    assert set(second.values("gsal_score")) == set(scored.select(second.values("sample_id")).values("gsal_score"))


def test_a_clones_set_up_leaves_the_originals_crops(scored):
    gfo.setup_views(scored)
    crops = scored.load_saved_view("GSAL: crops, hardest first")
    clone = scored.clone(f"{scored.name}-clone")
    try:
        gfo.setup_views(clone)
        clone.load_saved_view("GSAL: crops, hardest first")
        assert fo.load_dataset(crops._dataset.name).persistent
    finally:
        clone.delete()


def test_a_cancelled_round_leaves_every_saved_view_with_its_place(scored):
    first = gfo.select(scored, 2).values("id")
    gfo.select(scored, 3)
    gfo.setup_views(scored)
    scored.save_view("my round", scored.match_tags("gsal_round_002"))
    scored.save_view("picked", scored.exists("gsal_round"))
    before = [(d.id, d.name, d.slug) for d in scored._doc.get_saved_views()]
    gfo.cancel(scored)
    scored.reload()
    assert set(scored.load_saved_view("GSAL: latest round").values("id")) == set(first)
    assert len(scored.load_saved_view("my round")) == 0 and len(scored.load_saved_view("GSAL: top of pool")) == 7
    gfo.cancel(scored)
    scored.reload()
    assert len(scored.load_saved_view("GSAL: latest round")) == 0
    assert "No round" in scored.get_saved_view_info("GSAL: latest round")["description"]
    assert len(scored.load_saved_view("GSAL: top of pool")) == 9
    assert [(d.id, d.name, d.slug) for d in scored._doc.get_saved_views()] == before
    for name in scored.list_saved_views():
        scored.load_saved_view(name).values("id")
    again = gfo.select(scored, 1).values("id")
    gfo.setup_views(scored)
    assert scored.load_saved_view("GSAL: latest round").values("id") == again


def test_cancelling_makes_no_view_that_was_not_there(scored):
    gfo.select(scored, 1)
    gfo.cancel(scored)
    assert not scored.list_saved_views()


def test_called_again_it_changes_nothing_but_adds_the_round(scored):
    names = gfo.setup_views(scored)
    before = scored.app_config.to_dict()
    assert gfo.setup_views(scored) == names and scored.app_config.to_dict() == before
    gfo.select(scored, 2)
    (group,) = [g for g in scored.app_config.sidebar_groups if g.name == "GSAL"]
    assert group.paths == [*fields.SCORE_FIELDS, *fields.SELECT_FIELDS], "new fields of ours join the group at once"
    assert [*names, "GSAL: latest round"] == gfo.setup_views(scored)


def test_saved_views_show_what_they_say(scored, tmp_path):
    batch = gfo.select(scored, 2).values("id")
    scored.add_sample(fo.Sample(str(tmp_path / "gone.png"), gsal_error="the file is missing"))
    gfo.setup_views(scored)
    top = scored.load_saved_view("GSAL: top of pool")
    assert top.values("gsal_rank") == list(range(3, 10)), "ranks 1 and 2 are in the round"
    assert scored.load_saved_view("GSAL: latest round").values("id") == batch
    assert scored.load_saved_view("GSAL: failed").values("gsal_error") == ["the file is missing"]
    rare = scored.load_saved_view("GSAL: rare concepts")
    assert all("petal" in path for path in rare.values("gsal_path")), "petal has no label: the one rare fine node"
    assert len(rare) == len([p for p in top.values("gsal_path") if "petal" in p])
    assert len(scored.load_saved_view("GSAL: no proposals")) == 0
    crops = scored.load_saved_view("GSAL: crops, hardest first")
    hard = crops.values("gsal_proposals.difficulty")
    assert hard == sorted(hard, reverse=True) and len(hard) == 2 * 7, "two proposals of each image in no round"
    for name, expected in (("gsal_difficulty", lambda v: v > 1), ("gsal_rarity", lambda v: v < 0)):
        assert all(expected(v) for v in scored.load_saved_view("GSAL: hard but common").values(name))


def test_hard_but_common_holds_exactly_those(scored):
    ids = scored.exists("gsal_rank").values("id")
    pairs = [(1.5, -0.1), (2.5, -1.0), (0.9, -1.0), (3.0, 0.2)] + [(0.0, 0.0)] * 5
    for name, values in zip(("gsal_difficulty", "gsal_rarity"), zip(*pairs, strict=True), strict=True):
        scored.set_values(name, dict(zip(ids, values, strict=True)), key_field="id")
    gfo.setup_views(scored)
    assert scored.load_saved_view("GSAL: hard but common").values("id") == [ids[1], ids[0]]


def test_the_workspace_has_what_there_is_and_a_persons_stay(scored, tmp_path, monkeypatch):
    scored.save_workspace("mine", fo.Space(children=[fo.Panel(type="Samples", pinned=True)]))

    def panels():
        space = scored.load_workspace("GSAL")
        assert all(s.active_child in {p.component_id for p in s.children} for s in space.children)
        return [[p.type for p in s.children] for s in space.children]

    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    gfo.setup_views(scored)
    assert panels() == [["Samples"]], "without the plugin, a panel of ours would be an empty frame"
    gfo.plugin.install(tmp_path)
    gfo.visualize(scored, method="pca")
    gfo.setup_views(scored)
    assert (
        panels()[0] == ["Samples", "Embeddings"]
        and "gsal_concepts" in panels()[1]
        and set(scored.list_workspaces()) == {"GSAL", "mine"}
    )


@pytest.mark.parametrize("name", ["gsal", "GSAL", "Gsal!"])
def test_a_persons_workspace_of_the_same_name_or_slug_stays_and_is_named(scored, name):
    scored.save_workspace(name, fo.Space(children=[fo.Panel(type="Samples")]), description="my own")
    notes = []
    gfo.setup_views(scored, on_event=lambda event: notes.append(event["message"]))
    assert scored.list_workspaces() == [name] and scored.get_workspace_info(name)["description"] == "my own"
    assert [p.type for p in scored.load_workspace(name).children] == ["Samples"]
    assert len(notes) == 1 and f'your workspace "{name}"' in notes[0]


def test_our_workspace_that_a_person_has_arranged_anew_stays(scored, tmp_path, monkeypatch):
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    gfo.setup_views(scored)
    (doc,) = scored._doc.get_workspaces()
    tabs = fo.Space(children=[fo.Panel(type="Samples"), fo.Panel(type="Map")])
    doc.child, doc.name = fo.Space(children=[tabs], orientation="horizontal"), "GSAL"
    doc.save()
    gfo.plugin.install(tmp_path)
    gfo.setup_views(scored)
    (part,) = scored.load_workspace("GSAL").children
    assert [p.type for p in part.children] == ["Samples", "Map"]


def test_coverage_counts_labels_of_now_and_images_that_look_like_a_node(scored):
    batch = gfo.select(scored, 2)
    sample = batch.first()
    sample["ground_truth"] = fo.Detections(detections=[box("petal")])
    sample.save()
    rows = {r["node"]: r for r in gfo.coverage(scored)}
    assert [rows[n]["labeled"] for n in ("void", "crack", "petal", "subsurface", "bright")] == [2, 1, 1, 3, 1]
    paths = dict(zip(*scored.values(["id", "gsal_path"]), strict=True))
    for node, row in rows.items():
        assert row["picked"] == sum(node in paths[i] for i in batch.values("id"))
        assert row["pool"] + row["picked"] == sum(node in (p or []) for p in paths.values())
        assert row["rare"] == (row["labeled"] <= row["threshold"])
        left = {i for i, p in paths.items() if p and node in p} - set(batch.values("id"))
        assert set(gfo.node_view(scored, node).values("id")) == left and len(left) == row["pool"]
        paths_of_boxes = scored.select(left).values("gsal_proposals.detections.path", unwind=True) if left else []
        boxes = paths_of_boxes.count(node)
        assert covering.shown_node(scored, node, live.of(scored), patches=True)[1] == boxes
        assert len(gfo.node_view(scored, node, patches=True)) == boxes
    scored.set_values("gsal_path", [[]] * len(scored))
    assert covering.shown_node(scored, "void", live.of(scored), patches=True)[1] == 0


def test_views_need_a_scoring(dataset):
    with pytest.raises(ValueError, match="run score first"):
        gfo.setup_views(dataset)
