"""Selecting a batch: rank again from the stored statistics with the labels of now, tag the best, record the round."""

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

import gsal_fo
from gsal_fo import config as cfg
from gsal_fo.acquisition import picking, registry
from gsal_fo.acquisition import ranking as rankings
from gsal_fo.audit import entries
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.fo import journal, ledgers, progress, runs, states, steps, writing
from gsal_fo.fo.dataset import bulk, fields, filtered, labels, pool, records, slices
from gsal_fo.fo.dataset.prepared import Change, combined
from gsal_fo.run_folder import shards
from gsal_fo.settings import check_number

MISSING = "the file is missing"
FLOOR = 0.3  # detection score from which a proposal is taken for a box that will be drawn


def select(
    samples: Any,
    budget: float,
    *,
    unit: str = "images",
    costs: picking.Costs | None = None,
    distinct: float | None = None,
    exactly: Collection[str] | None = None,
    label_field: str | None = None,
    run_key: str | None = None,
    params: cfg.GsalParams | Mapping[str, Any] | None = None,
    on_event: progress.OnEvent | None = None,
) -> fo.DatasetView:
    """Pick, tag and record the next batch to label.

    No model is run, but where labels that the concept graph lacks have come since the scoring: their crops are looked
    at once, and count as the concepts that they look like.

    Images are ranked anew over what is still unlabeled and in no earlier round, with the labels of now, and the score
    fields follow. The picked ones get the tag ``gsal_round_NNN`` and the round's number in ``gsal_round``.

    Killed, it either has not happened, or whatever command comes next on the dataset finishes it first. The same call
    again by the same user is that command, too: it returns the round that was cut short and makes no second one.

    Args:
        samples: dataset or view; only images of it can be picked.
        budget: how much, in ``unit``.
        unit: "images", "boxes" or "minutes"; of the latter two as many images are picked as the budget pays for.
        costs: seconds of a labeler per image and box, for a budget of minutes.
        distinct: cosine of image embeddings in (0, 1] from which an image repeats an earlier pick or a labeled image,
            and is skipped; None skips nothing.
        exactly: ids of the images that somebody has been shown as this batch; where others would be picked by now,
            none is. None picks whatever is best.
        label_field: where labels are looked for; None is the scoring's own.
        run_key: which scoring; None is the latest, of a view of a grouped dataset the latest that its slices were in.
        params: constants of the ranking, ``strategy`` and its ``settings`` among them; a mapping names those that
            differ from the scoring's own, None names none.
        on_event: receives notes; None drops them.

    Returns:
        The batch as a view, best first.

    Raises:
        ValueError: no scoring, no such strategy, a statistic that it needs and the scoring did not make, a budget
            below 1 or above what is left, or another batch than ``exactly``.
    """
    dataset, samples = pool.check_images(samples)
    check_number("budget", budget, whole=unit == "images", low=1 if unit == "images" else None)
    batch = Batch(picking.Budget(budget, unit), costs or picking.Costs(), distinct)
    tell = on_event or (lambda event: None)
    asked = {"label_field": label_field, "run_key": run_key, "params": _plain(params), "view": view_of(samples)}
    if batch != Batch(picking.Budget(budget)):
        asked["batch"] = dataclasses.asdict(batch)
    request = journal.request_of(command="select", budget=budget, **asked)
    _look(samples, run_key, label_field, tell)  # before the lock: a model may take half a minute to load
    with journal.hold(dataset, "select", tell) as held:
        done = held.result_of(request)
        if done is None:
            info, label_field, params = _asked(samples, run_key, label_field, params)
            done = _select(held, samples, batch, info, label_field, params, request, tell, exactly)
    return batch_view(dataset, done["tag"])


@dataclass(frozen=True)
class Batch:
    """What was asked for: see `select`."""

    budget: picking.Budget
    costs: picking.Costs = dataclasses.field(default_factory=picking.Costs)
    distinct: float | None = None

    def plan(self, state: "State") -> picking.Plan:
        """With what each image of the pool will probably cost."""
        return picking.Plan(self.budget, boxes_of(state), self.costs, self.distinct)


def _plain(params: cfg.GsalParams | Mapping[str, Any] | None) -> dict[str, Any]:
    return cfg.to_dict(params) if isinstance(params, cfg.GsalParams) else dict(params or {})


def view_of(samples: Any) -> Any:
    """What makes two views the same one: their stages; None for the whole dataset."""
    return samples._serialize(include_uuids=False) or None if isinstance(samples, fo.DatasetView) else None


def _asked(
    samples: Any,
    run_key: str | None,
    label_field: str | None,
    params: cfg.GsalParams | Mapping[str, Any] | None,
) -> tuple[Any, str, cfg.GsalParams]:
    """The scoring, the label field and the constants that were asked for, checked."""
    dataset, info = samples._root_dataset, runs.scoring_of(samples, run_key)
    fields.refuse_clash(dataset, runs.owned_fields(dataset))
    label_field = label_field or info.config.label_field
    pool.check_detections(dataset, label_field, what="label field")
    proposals = getattr(info.config, "proposals", None)
    read = {
        label_field: "label field",
        "gsal_proposals": "field",
        **({proposals: "proposals field"} if proposals else {}),
    }
    for name, what in read.items():
        filtered.refuse(samples, name, what=what, why="images are ranked by all of their proposals and labels")
    params = cfg.with_named(cfg.from_dict(cfg.GsalParams, info.config.params), params)
    registry.of(params)  # refused here, not under the lock
    return info, label_field, params


def _select(
    held: journal.Hold,
    samples: Any,
    batch: Batch,
    info: Any,
    label_field: str,
    params: cfg.GsalParams,
    request: str,
    tell: progress.OnEvent,
    exactly: Collection[str] | None = None,
) -> dict[str, Any]:
    """Decide which images, then write."""
    dataset, record = held.dataset, info.config
    state = load_state(dataset, record, label_field)
    for text in state.notes:
        tell({"event": "note", "message": text})
    pickable = state.free & np.isin(state.table.ids, samples.values("id"))
    ranking, rows, missing = choose(dataset, state, pickable, params, lambda r: _best(r, batch.plan(state)))
    for sample_id in missing:
        tell({"event": "failed", "id": sample_id, "reason": MISSING})
    number = _next_round(dataset)
    tag, key = fields.ROUND_TAG.format(number), runs.next_key(dataset, runs.SELECT)
    ids = [str(state.table.ids[r]) for r in rows]
    if exactly is not None and set(ids) != set(exactly):
        raise ValueError("labels, rounds or images have changed: another batch would be picked now; look at it first")
    picks = [
        {
            "id": i,
            "rank": int(ranking.rank[r]) or None,
            "score": writing.number(ranking.score[r]),
            "rationale": ranking.sentence(r),
        }
        for i, r in zip(ids, rows, strict=True)
    ]
    run = Path(record.run_dir)
    budget = batch.budget
    about = {"round": number, "tag": tag, "score_run": info.key, "budget": budget.amount}
    about |= {"unit": budget.unit, "distinct": batch.distinct, "digests": dict(record.digests)}
    entry = entries.selection(run, state.graph, ranking, rows, **about)
    config = runs.GSALSelectRunConfig(
        fields=list(fields.SELECT_FIELDS),
        tag=tag,
        round=number,
        score_run=info.key,
        budget=budget.amount,
        unit=budget.unit,
        distinct=batch.distinct,
        label_field=label_field,
        params=cfg.to_dict(params),
        params_digest=cfg.digest(params),
        digests=record.digests,
        counts={"pool": int(pickable.sum()), "picked": len(ids), "missing": len(missing)},
        notes=state.notes,
        gsal_fo_version=gsal_fo.__version__,
        **writing.facts_of(ranking),
    )
    results = runs.GSALSelectRunResults(dataset, config, key, picks=picks)
    more = {i: Change({"gsal_round": number, "gsal_status": states.PICKED}, tags=[tag]) for i in ids}
    more |= {i: Change({"gsal_error": MISSING}) for i in missing}
    values = held.prepare(combined(_ranked(dataset, ranking, info), more))
    todo = [
        steps.note_in_ledger(info.key, entry, held.token),
        steps.declare("score"),
        steps.declare("select"),
        steps.record(records.new(dataset, key, config, results), "ledger"),
        steps.written_by(info.key),
        steps.merge(values),
        steps.follow_status(),
    ]
    result = {"key": key, "tag": tag}
    held.apply(request, todo, result, values=values)
    return result


def _ranked(dataset: fo.Dataset, ranking: rankings.Ranking, info: Any) -> writing.Changes:
    """The score fields, as this ranking of the scoring has them."""
    if runs.writer(dataset) == info.key and info.config.complete:
        yield from writing.refreshed(dataset, ranking)
    else:  # another scoring wrote the fields last, or this one was interrupted while it did
        yield from _whole(dataset, ranking, info)


def written_again(dataset: fo.Dataset, info: Any) -> writing.Changes:
    """All score fields from a scoring's run folder, ranked by its own constants with the labels of now."""
    state = load_state(dataset, info.config, info.config.label_field)
    params = cfg.from_dict(cfg.GsalParams, info.config.params)
    ranking = rankings.rank(state.table, state.graph, state.counts, params, keep=state.unlabeled, free=state.free)
    yield from _whole(dataset, ranking, info)


def _whole(dataset: fo.Dataset, ranking: rankings.Ranking, info: Any) -> writing.Changes:
    yield from writing.replaced(dataset, ranking, Path(info.config.run_dir))
    known = {*map(str, ranking.table.ids), *ranking.unranked}
    yield from writing.emptied(dataset, fields.SCORE_FIELDS, but=known)


def batch_view(dataset: fo.Dataset, tag: str) -> fo.DatasetView:
    """The images of a round, best first: by tag and field, so that a saved view of it holds no ids."""
    view = slices.flat(dataset).match_tags(tag)
    return view.sort_by("gsal_score", reverse=True)  # ascending ranks would put "no rank" first


@dataclass(frozen=True)
class State:
    """A scoring's stored statistics, and what has happened to its images since.

    ``unlabeled`` (N,) bool: still in the dataset and unlabeled; ``free`` (N,) bool: those of them in no round;
    ``picked`` (N,) bool: in a round. ``counts``: labeled instances per fine node now; ``labeled``: labeled images now.
    """

    graph: ConceptGraph
    table: rankings.PoolTable
    unlabeled: np.ndarray
    free: np.ndarray
    picked: np.ndarray
    counts: dict[str, int]
    labeled: int
    notes: list[str]


def load_state(
    dataset: fo.Dataset,
    record: Any,
    label_field: str,
    read: Callable[[Path], rankings.PoolTable] = rankings.load_pool,
    *,
    freed: Collection[str] = (),
) -> State:
    """Read a scoring's run folder, by ``read``, and the dataset's labels of now.

    ``freed``: ids of images that count as in no round.

    Raises:
        ValueError: the run folder is gone or unusable.
    """
    folder = run_folder(record)
    graph = graph_of(record)
    with ThreadPoolExecutor() as aside:  # MongoDB answers both while the columns are read
        ids = aside.submit(bulk.ids, dataset)
        names = getattr(record, "slices", None)
        known = aside.submit(pool.labeled_ids, dataset, label_field, record.labeled_tag, names=names)
        table = read(folder)
        here, labeled = ids.result(), known.result()
    counts, notes = count(dataset, record, label_field, labeled)
    chosen = in_rounds(dataset) - set(freed)
    unlabeled = np.array([i in here and i not in labeled for i in table.ids], dtype=bool)
    picked = np.array([i in chosen for i in table.ids], dtype=bool)
    return State(graph, table, unlabeled, unlabeled & ~picked, picked, counts, len(labeled), notes)


def count(
    dataset: fo.Dataset, record: Any, label_field: str, labeled: Collection[str]
) -> tuple[dict[str, int], list[str]]:
    """Labeled instances per fine node, from where the scoring took its labeled set, and notes."""
    ids = _counted(record, labeled)
    return labels.count(dataset, ids, label_field, graph_of(record), Path(record.run_dir))


def _counted(record: Any, labeled: Collection[str]) -> list[str]:
    """Those of the labeled images that coverage is made from, sorted."""
    if record.labeled_scope == "run":
        of_run = set(shards.read_manifest(Path(record.run_dir), ["id"])["id"].to_pylist())
        labeled = [i for i in labeled if i in of_run]
    return sorted(labeled)


def _look(samples: Any, run_key: str | None, label_field: str | None, tell: progress.OnEvent) -> None:
    """Look at the crops of labels that the graph lacks, where such have come since the scoring."""
    dataset, record = samples._root_dataset, runs.scoring_of(samples, run_key).config
    name, graph, folder = label_field or record.label_field, graph_of(record), run_folder(record)
    if not pool.check_detections(dataset, name, what="label field"):
        return
    names, path = getattr(record, "slices", None), f"{name}.detections.label"
    if set(slices.flat(dataset, names).distinct(path)) <= set(graph.fine):
        return  # the usual case, and the server knows it
    labeled = pool.labeled_ids(dataset, name, record.labeled_tag, names=names)
    labels.look(dataset, _counted(record, labeled), name, graph, folder, tell)


def run_folder(record: Any) -> Path:
    """A scoring's run folder; raises ValueError where it is gone."""
    folder = Path(record.run_dir)
    if not (folder / "manifest.parquet").is_file():
        raise ValueError(f"run folder {folder} of the scoring is gone; run score again")
    return folder


def graph_of(record: Any) -> ConceptGraph:
    """The concept graph that a scoring used, from its record: the file may have changed since."""
    return ConceptGraph.from_dict(json.loads(record.graph), source=record.concepts)


def in_rounds(dataset: fo.Dataset) -> set[str]:
    """Ids of the images that a round has picked."""
    if not dataset.has_sample_field("gsal_round"):
        return set()
    return set(slices.flat(dataset).exists("gsal_round").values("id"))


def choose(
    dataset: fo.Dataset,
    state: State,
    pickable: np.ndarray,
    params: cfg.GsalParams,
    rows_of: Callable[[rankings.Ranking], list[int]],
) -> tuple[rankings.Ranking, list[int], list[str]]:
    """Ranking of the images in no round, the rows that ``rows_of`` picks of those that are ``pickable`` (N,) bool, and
    ids whose files have gone since the scoring: those get no rank, and are unlabeled all the same."""
    missing: list[str] = []
    free = state.free.copy()
    while True:
        ranking = rankings.rank(
            state.table, state.graph, state.counts, params, keep=state.unlabeled, free=free, pickable=pickable
        )
        rows = rows_of(ranking)
        files = pool.rows_of(dataset, [str(state.table.ids[r]) for r in rows], ["filepath"])
        # A sample may go between two queries, too.
        gone = [r for r in rows if (f := files.get(str(state.table.ids[r]))) is None or not Path(f[0]).exists()]
        if not gone:
            return ranking, rows, missing
        free[gone] = False
        missing += [str(state.table.ids[r]) for r in gone]


def boxes_of(state: State) -> np.ndarray:
    """Boxes (N,) that a labeler will probably draw in each image of the pool."""
    usual = max(1.0, sum(state.counts.values()) / state.labeled) if state.labeled else 1.0
    return picking.expected_boxes(state.table, floor=FLOOR, usual=usual)


def _best(ranking: rankings.Ranking, plan: picking.Plan) -> list[int]:
    budget, left = plan.budget, len(ranking.choice)
    if budget.unit == "images" and budget.amount > left:
        raise ValueError(
            f"budget {budget.amount:g} is above the {left} images that are scored, unlabeled, in no round yet and in "
            f"the view; choose at most {left}" + ("" if left else ", or score more images")
        )
    return picking.build(ranking, plan)


def _next_round(dataset: fo.Dataset) -> int:
    """One above every round that a record, a tag (whoever made it) or a ledger knows: a cancelled round keeps its
    number."""
    known = [runs.load(dataset, key).config.round for key in runs.select_keys(dataset)]
    known += [
        int(m[1]) for tag in slices.flat(dataset).distinct("tags") if (m := re.fullmatch(r"gsal_round_(\d+)", tag))
    ]
    known += ledgers.numbers_taken(dataset)
    return max(known, default=0) + 1
