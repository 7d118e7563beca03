"""How a scored dataset looks in the App: sidebar, colors, indexes, saved views, workspace."""

import warnings
from collections.abc import Callable
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from gsal_fo.fo import journal, progress, rounds, runs
from gsal_fo.fo.app import saved_views, sidebar, workspace
from gsal_fo.fo.app.saved_views import Wanted
from gsal_fo.fo.dataset import fields, pool, slices

TOP = 200  # images of the view "top of pool"
HARD = 1.0  # standard deviations of difficulty of the view "hard but common"
INDEXES = ("gsal_score", "gsal_rank", "gsal_round", "gsal_path", "gsal_fine.label")
LATEST = "latest round"
NO_ROUND = fields.ROUND_TAG.format(0)  # rounds count from 1: nothing has this tag


def setup_views(dataset: Any, *, on_event: progress.OnEvent | None = None) -> list[str]:
    """Give a scored dataset a sidebar group, active fields, colors, indexes, saved views and a workspace.

    What a person has set up stays: only what set-up itself has made is changed. A view or workspace of a person's that
    has the name of one of ours stays, and a note says that ours was not saved.

    Args:
        dataset: a scored dataset.
        on_event: receives notes; None gives them as Python warnings.

    Returns:
        The names of our saved views.

    Raises:
        ValueError: the dataset has not been scored, or somebody writes into it all the time.
    """
    root = pool.check_dataset(dataset)
    runs.load(root)  # says so where nothing was scored
    tell = _teller(on_event)
    with journal.hold(root, "setup_views", on_event or (lambda event: None)):
        return _set_up(root, tell)


def _set_up(root: fo.Dataset, tell: Callable[[str], None]) -> list[str]:
    record = runs.load(root).config
    # What others have arranged meanwhile, unless the caller has arranged something and not saved it yet.
    if not any(name.startswith("app_config") for name in root._doc._get_changed_fields()):
        root._doc.reload("app_config")
    sidebar.arrange(root, record.label_field)
    _colors(root.app_config.color_scheme)
    root.save()
    have = root.get_index_information()
    for path in INDEXES:
        if root.get_field(path) is not None and path not in have:
            root.create_index(path)
    workspace.save(root, tell)
    return saved_views.save(root, {**_of_scoring(root, record), **_of_rounds(root)}, tell)


def follow_rounds(dataset: fo.Dataset) -> None:
    """Point our saved views at what is there after a round has come or gone; one may be open, so none is deleted.

    *latest round* goes to the round before, or to nothing. Views that a person has saved stay as they are.
    """
    wanted = _of_rounds(dataset) or {
        LATEST: Wanted(slices.flat(dataset).match_tags(NO_ROUND), "No round: select a batch")
    }
    if runs.score_keys(dataset):
        wanted |= _of_scoring(dataset, runs.load(dataset).config)
    saved_views.point_again(dataset, wanted)


HOW = {
    "clip": "the CLIP model {clip}",
    "prototypes": "prototypes of the labeled crops (encoder {encoder})",
    "detector": "the detector's class posterior",
}


def scoring_line(dataset: Any, *, run_key: str | None = None) -> str:
    """One sentence on the scoring that the fields show: its key, how concepts were assigned, by which models.

    Raises ValueError where the dataset has not been scored.
    """
    root = pool.check_dataset(dataset)
    info = runs.load(root, run_key)
    record = info.config
    concepts = record.config["concepts"]
    how = HOW[record.assign].format(clip=concepts["clip"], encoder=concepts["encoder"] or "embedded")
    model = record.config["diffusion"]["model"]
    return f"{info.key}: {record.counts['scored']} images; concepts by {how}; difficulty by the diffusion model {model}"


def left(dataset: fo.Dataset, label_field: str) -> fo.DatasetView:
    """The ranked images that no round has picked and nobody has labeled since."""
    out: fo.DatasetView = slices.flat(dataset).exists("gsal_rank")
    for name in ("gsal_round", label_field):
        if dataset.has_sample_field(name):
            out = out.exists(name, False)
    return out


def _teller(on_event: progress.OnEvent | None) -> Callable[[str], None]:
    if on_event is None:
        return lambda text: warnings.warn(text, stacklevel=5)
    return lambda text: on_event({"event": "note", "message": text})


def _colors(scheme: fo.ColorScheme | None) -> None:
    """Into a color scheme of the dataset's, a color map for our error maps; none is made, since a scheme goes before
    everybody's own. FiftyOne 1.22's grid draws every map in its own default colors, whatever a scheme says; the maps
    are made to be readable in those, too."""
    if scheme is not None and not any(s.get("path") == "gsal_map" for s in scheme.colorscales or []):
        scheme.colorscales = [*(scheme.colorscales or []), {"path": "gsal_map", "name": "inferno"}]


def _of_scoring(dataset: fo.Dataset, record: Any) -> dict[str, Wanted]:
    """Views of the pool; none holds a list of ids, so they follow the fields."""
    rest = left(dataset, record.label_field)
    graph = rounds.graph_of(record)
    rare = [node for node in record.rare if graph.level(node) == "fine"]
    return {
        "top of pool": Wanted(rest.sort_by("gsal_rank").limit(TOP), f"The {TOP} best images that no round has picked"),
        "rare concepts": Wanted(
            rest.match({"gsal_path": {"$in": [*rare, fields.UNMATCHED]}}).sort_by("gsal_rank"),
            f"Pool images that look like a rare concept: {', '.join(rare) or 'none'}, or like none that has labels",
        ),
        "hard but common": Wanted(
            rest.match((F("gsal_difficulty") > HARD) & (F("gsal_rarity") < 0)).sort_by("gsal_difficulty", reverse=True),
            f"Pool images above {HARD:g} sd of difficulty whose concepts have been labeled more than most",
        ),
        "crops, hardest first": Wanted(
            rest,
            "Every proposal of the pool as a crop, by its own difficulty",
            patches="gsal_proposals",
            sort="gsal_proposals.difficulty",
        ),
        "no proposals": Wanted(
            rest.match(F("gsal_proposals.detections.source").contains("whole")).sort_by("gsal_rank"),
            "Pool images in which the detector found nothing",
        ),
        "failed": Wanted(
            slices.flat(dataset).exists("gsal_error"), "Images without a score, with the reason in gsal_error"
        ),
    }


def _of_rounds(dataset: fo.Dataset) -> dict[str, Wanted]:
    """The view of the latest round; none where there is no round."""
    found = [runs.load(dataset, key).config for key in runs.select_keys(dataset)]
    if not found:
        return {}
    last = max(found, key=lambda config: config.round)
    return {LATEST: Wanted(rounds.batch_view(dataset, last.tag), f"Round {last.round}: what to label now")}
