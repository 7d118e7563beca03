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
    assert {"gsal_score", "gsal_path"} <= set(scored.list_indexes()) and scored.persistent


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


def test_the_plugin_is_linked_once_and_nothing_of_others_is_replaced(tmp_path):
    place = gfo.plugin.install(tmp_path)
    assert place == tmp_path / "gsal" and (place / "fiftyone.yml").is_file()
    assert gfo.plugin.install(tmp_path) == place
    (tmp_path / "other" / "gsal").mkdir(parents=True)
    with pytest.raises(ValueError, match="another plugin or file"):
        gfo.plugin.install(tmp_path / "other")
