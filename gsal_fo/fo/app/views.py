"""How a scored dataset looks in the App: sidebar, colors, indexes, saved views."""

from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from gsal_fo.fo import rounds, runs
from gsal_fo.fo.app import sidebar, workspace
from gsal_fo.fo.dataset import fields, pool

TOP = 200  # images of the view "top of pool"
HARD = 1.0  # standard deviations of difficulty of the view "hard but common"
SHOWN = ("gsal_score", "gsal_fine", "gsal_proposals")  # bubbles on the grid; the reasons are in the sample modal
INDEXES = ("gsal_score", "gsal_rank", "gsal_round", "gsal_path", "gsal_fine.label")
OURS = "GSAL: "  # saved views whose names begin so are ours


def setup_views(dataset: Any) -> list[str]:
    """Give a scored dataset a sidebar group, active fields, colors, indexes, saved views and a workspace.

    What a person has set up stays: groups, active fields, colors, views and workspaces of other names are merged, never
    replaced.

    Returns:
        The names of the saved views.

    Raises:
        ValueError: the dataset has not been scored.
    """
    root = pool.check_samples(dataset)
    record = runs.load(root).config
    root.persistent = True
    config = root.app_config
    sidebar.group(root)
    active = list(config.active_fields.paths) if config.active_fields else []
    wanted = [record.label_field, *SHOWN] if root.has_sample_field(record.label_field) else list(SHOWN)
    config.active_fields = fo.ActiveFields(
        paths=[*active, *(n for n in wanted if n not in active and root.get_field(n))]
    )
    config.color_scheme = _colors(config.color_scheme)
    root.save()
    have = root.get_index_information()
    for path in INDEXES:
        if root.get_field(path) is not None and path not in have:
            root.create_index(path)
    workspace.save(root)
    return _views(root, record)


HOW = {
    "clip": "the CLIP model {clip}",
    "prototypes": "prototypes of the labeled crops (encoder {encoder})",
    "detector": "the detector's class posterior",
}


def scoring_line(dataset: Any, *, run_key: str | None = None) -> str:
    """One sentence on the scoring that the fields show: its key, how concepts were assigned, by which models.

    Raises ValueError where the dataset has not been scored.
    """
    root = pool.check_samples(dataset)
    info = runs.load(root, run_key)
    record = info.config
    concepts = record.config["concepts"]
    how = HOW[record.assign].format(clip=concepts["clip"], encoder=concepts["encoder"] or "embedded")
    model = record.config["diffusion"]["model"]
    return f"{info.key}: {record.counts['scored']} images; concepts by {how}; difficulty by the diffusion model {model}"


def left(dataset: fo.Dataset, label_field: str) -> fo.DatasetView:
    """The ranked images that no round has picked and nobody has labeled since."""
    out: fo.DatasetView = dataset.exists("gsal_rank")
    for name in ("gsal_round", label_field):
        if dataset.has_sample_field(name):
            out = out.exists(name, False)
    return out


def _colors(scheme: fo.ColorScheme | None) -> fo.ColorScheme:
    """The scheme with a color map for our error maps. FiftyOne 1.22's grid draws every map in its own default colors,
    whatever a scheme says; the maps are made to be readable in those, too."""
    scheme = scheme or fo.ColorScheme(color_by="value")  # by value: maps get their color map, concepts a color each
    scales = [dict(s) for s in scheme.colorscales or []]
    if not any(s.get("path") == "gsal_map" for s in scales):
        scales.append({"path": "gsal_map", "name": "inferno"})
    scheme.colorscales = scales
    return scheme


def _views(dataset: fo.Dataset, record: Any) -> list[str]:
    """Save our views; none holds a list of ids, so they follow the fields."""
    rest = left(dataset, record.label_field)
    graph = rounds.graph_of(record)
    rare = [node for node in record.rare if graph.level(node) == "fine"]
    wanted: dict[str, tuple[fo.DatasetView, str]] = {
        "top of pool": (rest.sort_by("gsal_rank").limit(TOP), f"The {TOP} best images that no round has picked"),
        "rare concepts": (
            rest.match({"gsal_path": {"$in": [*rare, fields.UNMATCHED]}}).sort_by("gsal_rank"),
            f"Pool images that look like a rare concept: {', '.join(rare) or 'none'}, or like none that has labels",
        ),
        "hard but common": (
            rest.match((F("gsal_difficulty") > HARD) & (F("gsal_rarity") < 0)).sort_by("gsal_difficulty", reverse=True),
            f"Pool images above {HARD:g} sd of difficulty whose concepts have been labeled more than most",
        ),
        "crops, hardest first": (
            rest.to_patches("gsal_proposals").sort_by("gsal_proposals.difficulty", reverse=True),
            "Every proposal of the pool as a crop, by its own difficulty",
        ),
        "no proposals": (
            rest.match(F("gsal_proposals.detections.source").contains("whole")).sort_by("gsal_rank"),
            "Pool images in which the detector found nothing",
        ),
        "failed": (dataset.exists("gsal_error"), "Images without a score, with the reason in gsal_error"),
    }
    for key in runs.select_keys(dataset)[-1:]:
        last = runs.load(dataset, key).config
        wanted["latest round"] = (rounds.batch_view(dataset, last.tag), f"Round {last.round}: what to label now")
    for name, (view, description) in wanted.items():
        dataset.save_view(OURS + name, view, description=description, color="#499CEF", overwrite=True)
    return [OURS + name for name in wanted]
