"""Scoring a view: manifest, worker process, ranking, fields. The dataset is written once, when all the work is done.

Until then nothing of it changes: maps and values are made beside its samples, and what fails leaves the earlier scores.
"""

import collections
import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

import gsal_fo
from gsal_fo import config as cfg
from gsal_fo.acquisition import registry
from gsal_fo.acquisition.ranking import Ranking, load_pool, rank
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.fo import journal, locks, owners, progress, runs, steps, training, writing
from gsal_fo.fo.dataset import bulk, fields, folders, labels, pool, prepared, records
from gsal_fo.run_folder import cache as pool_cache
from gsal_fo.run_folder import shards
from gsal_fo.worker.process import check_processes, run_worker

GRID = "grid"
COLD_START = 'cold start: no labeled box in "{}", so the proposals are a grid of windows and every concept counts 0'
NO_DETECTOR = 'no image has only usable boxes in "{}" to train a detector on, so the proposals are a grid of windows'
WORKER = "lightning_modules.score"


def score(samples: Any, *, on_event: progress.OnEvent | None = None, **settings: Any) -> str:
    """Rank the unlabeled images of a dataset or view and write scores, proposals and reasons into its ``gsal_`` fields.

    Settings are those of `score_events`. ``on_event`` receives every event; None shows bars on a terminal.

    Returns:
        The run key: ``select(samples, budget, run_key=...)`` picks from this scoring.

    Raises:
        ValueError: the settings or the dataset cannot be used, or no image could be scored; nothing was written.
        WorkerError: a worker failed or was killed; nothing was written, and the same call goes on where it stopped.
    """
    return str(progress.consume(score_events(samples, **settings), on_event)["run_key"])


def score_events(
    samples: Any,
    *,
    concepts: str | Path,
    label_field: str = "ground_truth",
    proposals: str | None = None,
    detector: str | Path | None = None,
    diffusion: str | None = None,
    clip: str | None = None,
    pretrained: str | None = None,
    assign: str | None = None,
    encoder: str | None = None,
    params: cfg.GsalParams | Mapping[str, Any] | None = None,
    config: cfg.ScoreConfig | None = None,
    train: cfg.TrainConfig | None = None,
    run_dir: str | Path | None = None,
    run_key: str | None = None,
    labeled_tag: str | None = None,
    processes: int = 1,
    cache: bool = True,
) -> progress.Events:
    """`score` as a generator of events, for callers that show progress of their own; closing it ends the worker.

    Args:
        samples: dataset or view. Its images without labels are the pool; its labeled ones are the labeled set, or,
            where it has none, the whole dataset's.
        concepts: the concept graph file (METHOD.md section 9).
        label_field: Detections field with the labels; None there means unlabeled, empty Detections mean nothing found.
        proposals: a Detections field whose boxes are the proposals, instead of a detector's.
        detector: a checkpoint folder, or "grid" for windows without a detector; None trains one on the labeled images,
            or, where there are none, is a cold start on windows.
        diffusion, clip, pretrained, assign, encoder: the models by name; None keeps what ``config`` says, by default
            the embedded ones, and assignment by CLIP or prototypes as the labeled crops speak for ("auto").
        params: constants of the ranking, changed later without a new scoring; a mapping names those that differ from
            ``config.default_params``, None names none.
        config: every constant of the workers; the arguments above override it.
        train: constants of the detector training.
        run_dir: where the run's files go, by default ``$GSAL_HOME/runs/<dataset>/<run key>``.
        run_key: the record's name, by default the next ``gsal_score_NNN``, or that of an interrupted run of this kind.
        labeled_tag: images with this tag count as labeled, too.
        processes: worker processes on this machine.
        cache: keep image-level results for later scorings in ``$GSAL_HOME/cache``.

    Yields:
        The worker's events and our own; the last is ``{"event": "done", "run_key", "pool", "scored", "failed"}``.
    """
    check_processes(processes)
    registry.of(cfg.with_named(cfg.GsalParams(), params))  # refused here, not after the work
    graph = ConceptGraph.load(concepts)
    dataset = pool.check_samples(samples)
    wanted = _configured(
        config or cfg.ScoreConfig(), diffusion, clip=clip, pretrained=pretrained, assign=assign, encoder=encoder
    )
    told: list[progress.Event] = []
    with journal.hold(dataset, "score", told.append) as held:
        fields.refuse_clash(dataset, runs.owned_fields(dataset))
        found = pool.read(samples, label_field=label_field, labeled_tag=labeled_tag, proposals=proposals)
        told += ({"event": "note", "message": text} for text in found.notes)
        if not dataset.persistent:
            text = f'dataset "{dataset.name}" is not persistent: FiftyOne deletes it when its last client exits'
            found.notes.append(text)
            told.append({"event": "note", "message": text})
        boxes = sum(len(names) for names in found.labeled.labels or [])
        if wanted.concepts.assign in ("prototypes", "detector") and not boxes:
            raise ValueError(
                f'assign="{wanted.concepts.assign}" knows only concepts that have labels, and "{label_field}" holds no '
                f'box yet; use assign="auto" or "clip"'
            )
        taught = sum(len(names) for names in found.trainable.labels or [])
        wanted, trains = _with_detector(wanted, detector, proposals, taught)
        if trains:
            train = train or cfg.TrainConfig()
        elif detector is None and proposals is None and not wanted.detector.checkpoint:
            text = (NO_DETECTOR if boxes else COLD_START).format(label_field)
            told.append({"event": "note", "message": text})
        plan = Plan(dataset, graph, found, wanted, params, train if trains else None, label_field, labeled_tag)
        asked = {"run_key": run_key, "run_dir": str(run_dir) if run_dir else None, "params": _plain(params)}
        plan.request = journal.request_of(command="score", identity=plan.identity, label_field=label_field, **asked)
        done = held.result_of(plan.request)
        if done is None:
            key, folder = _place(plan, run_key, run_dir, held.running)
            reserved = held.reserve(key, folder=str(folder), identity=plan.identity)
    yield from told
    if done is not None:
        yield {"event": "done", **done}
        return
    with journal.kept(reserved), folders.lock(folder) as lock:
        cache_dir = str(folders.home() / "cache") if cache else None
        final = _prepare(plan, folder, key, Path(concepts), cache_dir)
        if plan.train:
            yield from training.train_events(found, plan.train, folder / "train", folder / "detector", processes, lock)
        worker = run_worker(
            WORKER,
            ["--run-dir", str(folder)],
            processes=processes,
            log=folder / "worker.log",
            keep_open=(lock,),
        )
        with closing(worker):
            yield from (e for e in worker if e["event"] not in ("done", "error"))
        yield from _finish(plan, folder, key, final, str(concepts), reserved)


@dataclass
class Plan:
    """All that one scoring was asked to do. ``config`` names neither run folder nor cache."""

    dataset: fo.Dataset
    graph: ConceptGraph
    pool: pool.Pool
    config: cfg.ScoreConfig
    params: cfg.GsalParams | Mapping[str, Any] | None
    train: cfg.TrainConfig | None
    label_field: str
    labeled_tag: str | None
    request: str = ""  # of `journal.request_of`

    @property
    def identity(self) -> str:
        """A digest of everything that the workers' results depend on: an interrupted run is taken up by it."""
        images = [dataclasses.astuple(part) for part in (self.pool.labeled, self.pool.pool)]
        return cfg.digest(self.config, self.train, self.graph.to_dict(), str(self.dataset._doc.id), images)


def _configured(base: cfg.ScoreConfig, diffusion: str | None, **concepts: str | None) -> cfg.ScoreConfig:
    given: dict[str, Any] = {k: v for k, v in concepts.items() if v is not None}
    return dataclasses.replace(
        base,
        diffusion=dataclasses.replace(base.diffusion, model=_model(diffusion)) if diffusion else base.diffusion,
        concepts=dataclasses.replace(base.concepts, **given),
    )


def _model(name: str) -> str:
    """A folder as an absolute path: the worker, and a later resume, may run elsewhere."""
    return str(Path(name).expanduser().absolute()) if Path(name).expanduser().is_dir() else name


def _with_detector(
    config: cfg.ScoreConfig, detector: str | Path | None, proposals: str | None, boxes: int
) -> tuple[cfg.ScoreConfig, bool]:
    """The config with its detector, and whether that is to be trained first."""
    chosen = detector if detector is not None else config.detector.checkpoint
    if proposals is not None:
        if chosen is not None:
            raise ValueError(
                f'proposals="{proposals}" takes boxes from the dataset, so detector must be left out; got "{chosen}"'
            )
    elif chosen is None and boxes:
        return config, True
    elif chosen is not None and str(chosen) != GRID:
        folder = Path(chosen).expanduser().absolute()
        if not (folder / "detector.json").is_file():
            raise ValueError(f"{folder} holds no detector.json; give a folder written by gsal train, or grid")
        return dataclasses.replace(config, detector=dataclasses.replace(config.detector, checkpoint=str(folder))), False
    return dataclasses.replace(config, detector=dataclasses.replace(config.detector, checkpoint=None)), False


def _place(plan: Plan, run_key: str | None, run_dir: str | Path | None, running: Mapping[str, Any]) -> tuple[str, Path]:
    """The run's key and folder: as given, those of an interrupted run of the same identity, or the next free ones.

    ``running``: keys that scorings at work have taken.
    """
    dataset = plan.dataset
    if run_key is not None:
        if not run_key.isidentifier():
            raise ValueError(f'run_key must be letters, digits and "_", not starting with a digit; got "{run_key}"')
        if run_key in dataset.list_runs() and run_key not in runs.score_keys(dataset):
            raise ValueError(
                f'dataset "{dataset.name}" has another run with the key "{run_key}"; choose another run_key'
            )
    home = folders.runs_of(dataset.slug)
    folder = Path(run_dir).expanduser().absolute() if run_dir is not None else None
    kept = {key: Path(c.run_dir) for key in runs.score_keys(dataset) if (c := runs.load(dataset, key).config).complete}
    key = run_key
    if key is None and folder is None:
        key = folders.unfinished(home, runs.SCORE, plan.identity, set(kept))
    elif key is None and folder is not None and folders.identity(folder) == plan.identity:
        key = str(shards.run_facts(folder, shards.CONFIG)["run_key"])
        key = key if kept.get(key, folder) == folder else None  # another scoring was given it meanwhile
    if key is None:
        taken = [p.name for p in home.glob("*")] if folder is None else []
        # A round of a scoring that was deleted still names it: its key is not given to another.
        taken += [str(runs.load(dataset, k).config.score_run) for k in runs.select_keys(dataset)]
        key = runs.next_key(dataset, runs.SCORE, [*taken, *running])
    elif key in running:
        raise ValueError(
            f'a scoring of "{dataset.name}" works as {key} already: {owners.describe(running[key])}; wait for it to '
            f"end, or give another run_key and run_dir"
        )
    folder = folder or home / key
    if kept.get(key, folder) != folder:
        raise ValueError(f"{key} is the scoring in {kept[key]}; give another run_key, or delete that run first")
    return key, folder


def _prepare(plan: Plan, folder: Path, key: str, concepts: Path, cache: str | None) -> cfg.ScoreConfig:
    """Fill the run folder for the worker, or check that it is this run's; returns the config with all paths."""
    config = dataclasses.replace(plan.config, graph=str(folder / "concepts.yaml"), cache=cache)
    if plan.train:
        checkpoint = dataclasses.replace(config.detector, checkpoint=str(folder / "detector"))
        config = dataclasses.replace(config, detector=checkpoint)
    content = {
        "kind": "score",
        "config": cfg.to_dict(config),
        "identity": plan.identity,
        "dataset": plan.dataset.name,
        "run_key": key,
        "label_field": plan.label_field,
        "concepts": str(concepts),
    }
    new = folders.claim(folder, content, again="use another run_key or run_dir for it, or delete that folder")
    if new or not (folder / "manifest.parquet").exists():
        shutil.copyfile(concepts, folder / "concepts.yaml")
        pool.write_manifest(plan.pool, folder / "manifest.parquet")
    return config


def _params(
    named: cfg.GsalParams | Mapping[str, Any] | None, assign: str, mix: Mapping[str, Any]
) -> tuple[cfg.GsalParams, list[str]]:
    """The constants in force, and a note for each that is not the paper's and that nobody named.

    ``mix``: alpha and beta that the diffusion model asks for; who names one of them decides both.
    """
    if isinstance(named, cfg.GsalParams):
        return named, []
    if {"alpha", "beta"} & set(named or {}):
        mix = {}
    params, paper = cfg.with_named(cfg.default_params(assign, mix), named), cfg.GsalParams()
    notes = []
    if params.rarity != paper.rarity and "rarity" not in (named or {}):
        notes.append(
            f"rarity by the {params.rarity} rule, which finds more with {assign}; the paper's is rarity={paper.rarity}"
        )
    if mix and (params.alpha, params.beta) != (paper.alpha, paper.beta):
        notes.append(
            f"difficulty weighs E by alpha={params.alpha:g} and V by beta={params.beta:g}, as the diffusion model's "
            f"folder asks for; the paper's are alpha={paper.alpha:g} and beta={paper.beta:g}"
        )
    return params, notes


def _plain(params: cfg.GsalParams | Mapping[str, Any] | None) -> dict[str, Any]:
    return cfg.to_dict(params) if isinstance(params, cfg.GsalParams) else dict(params or {})


def _ranking(
    plan: Plan, folder: Path, config: cfg.ScoreConfig, choice: Any, mix: Mapping[str, Any]
) -> tuple[Ranking, list[str], list[str]]:
    """The ranking of what the worker left, and notes: on labels, on constants."""
    table = pool_cache.save(folder, load_pool(folder))
    here = bulk.ids(plan.dataset)
    labeled = [i for i in plan.pool.labeled.ids if i in here]
    counts, notes = labels.count(plan.dataset, labeled, plan.label_field, plan.graph, folder)
    asked = len(plan.pool.labeled.ids) + len(plan.pool.pool.ids)
    if gone := asked - len(labeled) - sum(i in here for i in plan.pool.pool.ids):
        images = "1 image was" if gone == 1 else f"{gone} images were"
        notes = [*notes, f"{images} deleted from the dataset while it was scored, and left out"]
    assign = choice["assign"] if choice else config.concepts.assign
    params, chosen = _params(plan.params, assign, mix)
    keep = np.array([i in here for i in table.ids], dtype=bool)
    return rank(table, plan.graph, counts, params, keep=keep), notes, chosen


def _refuse_nothing(plan: Plan, ranking: Ranking, folder: Path) -> None:
    """Raise ValueError where no image was scored: the earlier scores are worth more than none.

    What was noted of the images is removed, so that the same call looks at them again: a share may be mounted by then.
    """
    if len(ranking.order):
        return
    reasons = Counter(ranking.unranked.values())
    why = ", ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3)) or "none of them is there any more"
    for stage in shards.STAGES:
        shutil.rmtree(folder / stage, ignore_errors=True)
    raise ValueError(
        f'none of the {len(plan.pool.pool.ids)} images of "{plan.dataset.name}" could be scored: {why}; the dataset is '
        f"as it was. Mend that and score again"
    )


def _finish(
    plan: Plan, folder: Path, key: str, config: cfg.ScoreConfig, concepts: str, reserved: locks.Lease
) -> progress.Events:
    """Rank what the worker left, write it into the dataset and register the run."""
    result = shards.run_facts(folder, "result.json")
    choice = result.get("choice")
    ranking, notes, chosen = _ranking(plan, folder, config, choice, result["diffusion"].get("mix", {}))
    yield from ({"event": "note", "message": text} for text in [*notes, *chosen])
    _refuse_nothing(plan, ranking, folder)
    params = ranking.params
    record = runs.GSALScoreRunConfig(
        fields=list(fields.SCORE_FIELDS),
        complete=True,
        run_dir=str(folder),
        label_field=plan.label_field,
        labeled_tag=plan.labeled_tag,
        labeled_scope="dataset" if plan.pool.whole else "run",
        slices=plan.pool.slices,
        proposals=plan.pool.proposals,
        concepts=concepts,
        graph=json.dumps(plan.graph.to_dict()),
        params=cfg.to_dict(params),
        params_digest=cfg.digest(params),
        config=cfg.to_dict(config),
        train=cfg.to_dict(plan.train) if plan.train else None,
        trained=training.made_of(config.detector.checkpoint),
        environment=result.get("environment"),
        identity=plan.identity,
        digests={
            "config": cfg.digest(plan.config),
            "difficulty": result["diffusion"]["digest"],
            "graph": cfg.digest(plan.graph.to_dict()),
            **{f"{name}_model": mark for name, mark in result["models"].items()},
        },
        assign=choice["assign"] if choice else config.concepts.assign,
        assign_choice=choice,
        diffusion=result["diffusion"],
        seconds=result["timings"],
        counts={
            "pool": len(plan.pool.pool.ids),
            "labeled": len(plan.pool.labeled.ids),
            "scored": len(ranking.order),
            "failed": len(ranking.table.failed),
            "proposals": len(ranking.table.boxes),
        },
        notes=[*plan.pool.notes, *([choice["why"]] if choice else []), *notes, *chosen],
        gsal_fo_version=gsal_fo.__version__,
        **writing.facts_of(ranking),
    )
    # Beside the samples, and before the lock is taken: other commands may go on meanwhile.
    total = len(ranking.table.ids)
    yield {"event": "progress", "stage": "write", "done": 0, "total": total}
    for done in prepared.add(reserved.token, writing.replaced(plan.dataset, ranking, folder)):
        yield {"event": "progress", "stage": "write", "done": min(done, total), "total": total}
    answer = {"run_key": key, **record.counts}
    told: list[progress.Event] = []
    with journal.hold(plan.dataset, "score", told.append) as held:
        held.ends_with(reserved)
        known = {*map(str, ranking.table.ids), *ranking.unranked}
        rest = writing.emptied(plan.dataset, fields.SCORE_FIELDS, but=known)
        collections.deque(prepared.add(reserved.token, rest), maxlen=0)
        todo = [
            steps.declare("score"),
            steps.record(records.new(plan.dataset, key, _with_head(plan.dataset, key, record))),
            steps.written_by(key),
            steps.merge(reserved.token),
        ]
        held.apply(plan.request, todo, answer, values=reserved.token)
    yield from told
    yield {"event": "done", **answer}


def _with_head(dataset: fo.Dataset, key: str, record: Any) -> Any:
    """The record with what the dataset remembers of the run's ledger: that of the run folder goes on."""
    if key in dataset.list_runs() and (head := runs.ledger_head(dataset, key)) is not None:
        record.ledger_head = head
    return record
