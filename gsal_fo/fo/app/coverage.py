"""How much of each concept has been labeled, round by round, and the pool's images that carry one."""

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from gsal_fo.acquisition import preview
from gsal_fo.config import GsalParams, from_dict
from gsal_fo.fo import runs
from gsal_fo.fo.app import live, saved_views
from gsal_fo.fo.dataset import pool, slices

LEVELS = ("fine", "coarse", "abstract")


def coverage(dataset: Any, *, run_key: str | None = None) -> list[dict[str, Any]]:
    """How much of each concept node has been labeled by now, rarest first within its level.

    Returns:
        One dict per node of the scoring's graph: ``node``, ``level``, ``labeled`` (instances now), ``threshold`` (tau
        of its level), ``rare`` (labeled <= threshold), ``pool`` (images left in the pool that carry it), ``picked``
        (images in rounds that carry it).

    Raises:
        ValueError: the dataset has not been scored, or the run folder is gone.
    """
    return rows(live.of(dataset, run_key))


def rows(now: live.Live) -> list[dict[str, Any]]:
    """``coverage`` of a scoring that is at hand."""
    state = now.state
    counts = state.graph.coverage(state.counts)
    params = from_dict(GsalParams, now.record.params)
    tau, rare = state.graph.thresholds(counts, params), state.graph.rare(counts, params)
    in_pool = preview.carriers(state.table, state.graph, state.free)
    in_rounds = preview.carriers(state.table, state.graph, state.picked)
    level = state.graph.level
    return [
        {
            "node": node,
            "level": level(node),
            "labeled": int(counts[node]),
            "threshold": int(tau[level(node)]),
            "rare": bool(rare[node]),
            "pool": int(in_pool[node].sum()),
            "picked": int(in_rounds[node].sum()),
        }
        for node in sorted(state.graph.graph, key=lambda v: (LEVELS.index(level(v)), counts[v], v))
    ]


def history(dataset: Any, now: live.Live) -> list[tuple[str, Mapping[str, int]]]:
    """Labeled instances per node when each round was selected, oldest first, and ``now``."""
    root = pool.check_dataset(dataset)
    past = [runs.load(root, key).config for key in runs.select_keys(root)]
    moments = [(f"round {c.round}", {k: int(n) for k, n in c.coverage}) for c in sorted(past, key=lambda c: c.round)]
    return [*moments, ("now", now.state.graph.coverage(now.state.counts))]


def node_view(dataset: Any, node: str, *, run_key: str | None = None, patches: bool = False) -> fo.DatasetView:
    """The pool's images with a proposal that looks like a concept node, best first, or those proposals as patches.

    Raises:
        ValueError: the dataset has not been scored, the graph has no such node, or patches are asked of a scoring
            whose proposals another one has replaced.
    """
    view = _carrying(dataset, node, live.of(dataset, run_key), patches)
    return _proposals(view, node).add_stage(saved_views.as_patches("gsal_proposals")) if patches else view


def shown_node(dataset: Any, node: str, now: live.Live, *, patches: bool = False) -> tuple[list[dict[str, Any]], int]:
    """The stages of ``node_view`` for the App, and how many images or patches it shows.

    The patches are not made here: the App's server makes them when it takes the view, and the number is there at once.
    """
    view = _carrying(dataset, node, now, patches)
    if not patches:
        return view._serialize(), len(view)
    stages = [*_proposals(view, node)._serialize(), saved_views.as_patches("gsal_proposals")._serialize()]
    return stages, view.sum(F("gsal_proposals.detections").filter(F("path").contains(node)).length())


def _carrying(dataset: Any, node: str, now: live.Live, patches: bool) -> fo.DatasetView:
    root = pool.check_dataset(dataset)
    if node not in now.state.graph.graph:
        raise ValueError(f'the concept graph of {now.key} has no node "{node}"')
    if runs.writer(root) != now.key:
        if patches:
            raise ValueError(
                f"the proposals in the dataset are those of {runs.writer(root)}; choose that scoring to see patches"
            )
        carry = preview.carriers(now.state.table, now.state.graph, now.state.free)[node]
        return slices.flat(root).select([str(i) for i in now.state.table.ids[carry]])
    view = unlabeled(root, now.record).match({"gsal_path": node})  # MongoDB's own form: an expression uses no index
    return view if patches else view.sort_by("gsal_score", reverse=True)


def _proposals(view: fo.DatasetView, node: str) -> fo.DatasetView:
    """Of each image only the proposals that look like the node."""
    return view.filter_labels("gsal_proposals", F("path").contains(node))


def unlabeled(dataset: fo.Dataset, record: Any) -> fo.DatasetView:
    """The images that no round has picked and nobody has labeled, scored or not; no list of ids is in the view."""
    out: fo.DatasetView = slices.flat(dataset, getattr(record, "slices", None)).view()
    for name in ("gsal_round", record.label_field):
        if dataset.has_sample_field(name):
            out = out.exists(name, False)
    return out.match_tags(record.labeled_tag, bool=False) if record.labeled_tag else out
