"""The demo: two rounds on a synthetic pool through the doors that a user has, against entropy and random."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

import gsal_fo.fo as gfo
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams, TrainConfig
from gsal_fo.fo.demo.simulated_labeler import LABELS, MARK, Truth, import_pool, label
from gsal_fo.pages import files
from gsal_fo.pages.report import PickedImage, RoundPage, write_report
from gsal_fo.run_folder import shards
from gsal_fo.synthetic.thin_film import RARE, make_pool

DATASET = "gsal-demo"
OURS = ("pool", "runs", "rounds")  # folders in the output folder
DRAWS = 100
OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class DemoConfig:
    """``budget`` images per round (None: 5 % of the pool), ``initial`` share labeled at first, training ``steps``."""

    out: Path
    seed: int = 0
    images: int = 480
    budget: int | None = None
    rounds: int = 2
    initial: float = 0.05
    steps: int = 200  # fewer than the default: two dozen small slices need no more

    def __post_init__(self) -> None:
        if self.images < 20:
            raise ValueError(f"images must be at least 20, to have something to choose from; got {self.images}")
        room = self.images - self.start
        if self.rounds < 1 or not 1 <= self.per_round * self.rounds <= room:
            raise ValueError(f"budget must be in [1, {room // max(self.rounds, 1)}]: {room} images are unlabeled")

    @property
    def start(self) -> int:
        """Images labeled at the start."""
        return max(2, round(self.initial * self.images))

    @property
    def per_round(self) -> int:
        """Images labeled per round."""
        return self.budget if self.budget is not None else max(2, round(0.05 * self.images))


@dataclass
class Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to ``name``."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 2)


@dataclass
class Played:
    """One strategy's rounds: picked file names, detectors, coverage (one more: the start), and what the page shows."""

    coverage: list[dict[str, int]]
    picks: list[list[str]] = field(default_factory=list)
    detectors: list[Path] = field(default_factory=list)
    pages: list[RoundPage] = field(default_factory=list)
    reasons: list[list[dict[str, Any]]] = field(default_factory=list)


def run_demo(config: DemoConfig, *, on_event: OnEvent, say: Callable[[str], None]) -> dict[str, Any]:
    """Make pool and dataset, play both strategies, write ``summary.json`` and ``report.html``; returns the summary."""
    started = time.monotonic()
    out = _own_folder(config.out)
    files.check_new(out / "report.html", otherwise="move it away, or choose another --out")
    clock = Clock()
    say(f"making {config.images} synthetic CT slices in {out / 'pool'}")
    with clock.stage("make the pool"):
        pool = make_pool(out / "pool", images=config.images, seed=config.seed)
    truth, graph = Truth.load(pool.truth, rare=RARE), ConceptGraph.load(pool.concepts)
    names = sorted(truth.boxes)
    rng = np.random.default_rng(config.seed)
    first: list[str] = []
    while not any(truth.boxes[n] for n in first):  # a tiny draw may hold no defect at all: nothing to train on
        first = sorted(rng.choice(names, config.start, replace=False).tolist())
    rest = sorted(set(names) - set(first))
    game = Game(config, out, truth, graph, pool.concepts, clock, on_event, say)

    with clock.stage("import into FiftyOne"):
        dataset = import_pool(DATASET, pool.root / "images", truth, first, seed=config.seed)
    gsal = game.play(dataset, "gsal")
    with clock.stage("set up views"):
        gfo.setup_views(dataset)
    rival = import_pool(f"{DATASET}-entropy", pool.root / "images", truth, first, seed=config.seed)
    try:
        entropy = game.play(rival, "entropy", detector=gsal.detectors[0])
    finally:
        rival.delete()
    clock.seconds["total"] = round(time.monotonic() - started, 2)
    summary = _summary(config, truth, graph, first, rest, gsal, entropy, clock)
    shards.write_json(summary, out / "summary.json")
    levels = {node: graph.level(node) for node in graph.graph}
    write_report(out / "report.html", summary, gsal.pages, levels)
    return summary


def sentences(summary: Mapping[str, Any], out: Path) -> str:
    """The result in a few lines for a person."""
    total, rare = summary["totals"], summary["rare"]
    found, classes = total["rare_instances"], total["rare_classes"]
    lines = [
        f"{len(summary['rounds'])} rounds of {summary['budget']} images, {rare['instances']} rare defects in the pool:",
        f"  GSAL     found {found['gsal']:>4}   ({classes['gsal']} of {len(rare['classes'])} rare classes)",
        f"  entropy  found {found['entropy']:>4}   ({classes['entropy']} of {len(rare['classes'])})",
        f"  random   found {found['random']:>4.1f}   (mean of {summary['random_draws']} draws)",
        f"  {summary['seconds']['total']:.0f} s; report: {out / 'report.html'}",
    ]
    return "\n".join(lines)


def open_app(port: int) -> None:
    """Link the plugin, open the App on the images that the last round picked, and serve until interrupted."""
    try:
        print(f"the App's GSAL operators and panel: {gfo.plugin.install()}", flush=True)
    except ValueError as error:
        print(f"the App has no GSAL operators: {error}", flush=True)
    session = fo.launch_app(view=fo.load_dataset(DATASET).load_saved_view("GSAL: latest round"), port=port)
    print(f"the App: {session.url.replace('0.0.0.0', 'localhost')}   (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):
        session.wait(-1)


def _own_folder(out: Path) -> Path:
    """The output folder, emptied of an earlier demo's files; a folder with anything else in it is refused."""
    mark = out / f".{MARK}"  # a folder with it is the demo's own
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not mark.exists())):
        raise ValueError(f"{out} exists and the demo did not make it; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for name in OURS:
        shutil.rmtree(out / name, ignore_errors=True)
    return out.resolve()


@dataclass(frozen=True)
class Game:
    """What every strategy plays with: the pool's truth and graph, where files go, and who listens."""

    config: DemoConfig
    out: Path
    truth: Truth
    graph: ConceptGraph
    concepts: Path
    clock: Clock
    on_event: OnEvent
    say: Callable[[str], None]

    def play(self, dataset: fo.Dataset, strategy: str, *, detector: Path | None = None) -> Played:
        """All rounds of one strategy: train, score, select, export, label, ingest. ``detector``: that of round 1."""
        played = Played(coverage=[self.coverage(dataset)])
        prefix = "" if strategy == "gsal" else f"rival {strategy}: "
        for number in range(1, self.config.rounds + 1):
            place, runs = (self.out / name / f"{strategy}_{number}" for name in ("rounds", "runs"))
            self.say(f"{strategy}, round {number} of {self.config.rounds}")
            if detector is None or number > 1:
                with self.clock.stage(prefix + "train"):
                    detector = self.train(dataset, place / "detector", runs / "train")
            played.detectors.append(detector)
            with self.clock.stage(prefix + "score"):
                gfo.score(
                    dataset,
                    concepts=self.concepts,
                    label_field=LABELS,
                    detector=detector,
                    assign="clip",  # the embedded one was taught these slices: "auto" needs more labels to see it
                    params=GsalParams(strategy=strategy),
                    run_dir=runs / "score",
                    on_event=self.on_event,
                )
            with self.clock.stage(prefix + "select"):
                batch = gfo.select(dataset, self.config.per_round)
            played.picks.append([Path(p).name for p in batch.values("filepath")])
            if strategy == "gsal":
                played.reasons.append(gfo.runs.picks(dataset, gfo.runs.select_keys(dataset)[-1]))
                played.pages.append(_page(number, dataset, batch, self.truth))
            with self.clock.stage(prefix + "export and ingest"):
                gfo.export(batch, place / "batch")
                answers = label(place / "batch", self.truth)
                # This labeler does look at each image: a clean one is empty, and a proposal that is right stays.
                gfo.ingest(dataset, answers, label_field=LABELS, empty_means_done=True, accept_prelabels=True)
            played.coverage.append(self.coverage(dataset))
        return played

    def train(self, dataset: fo.Dataset, out: Path, run: Path) -> Path:
        """A detector from the labels of now."""
        settings = TrainConfig(seed=self.config.seed, steps=self.config.steps)
        return gfo.train(dataset, label_field=LABELS, out=out, config=settings, run_dir=run, on_event=self.on_event)

    def coverage(self, dataset: fo.Dataset) -> dict[str, int]:
        """Labeled boxes per node, counted from the dataset."""
        return self.graph.coverage(dataset.count_values(f"{LABELS}.detections.label"))


def _page(number: int, dataset: fo.Dataset, batch: fo.DatasetView, truth: Truth) -> RoundPage:
    """What the report shows of a round, read from the fields that a user sees."""
    pool = dataset.match(fo.ViewField("gsal_score") != None)  # noqa: E711
    files, difficulty, rarity = pool.values(["filepath", "gsal_difficulty", "gsal_rarity"])
    picked = set(batch.values("filepath"))
    picks = []
    for sample in batch:
        found = sample["gsal_proposals"].detections if sample["gsal_proposals"] else []
        scores = [d["score"] if d["score"] is not None else -np.inf for d in found]
        labels = truth.boxes[Path(sample.filepath).name]
        picks.append(
            PickedImage(
                filepath=Path(sample.filepath),
                rank=sample["gsal_rank"],
                rationale=sample["gsal_rationale"],
                proposals=[(d.bounding_box, f"{d.label}, difficulty {d['difficulty']:+.1f} sd") for d in found],
                decisive=int(np.argmax(scores)) if scores else 0,
                labels=labels,
                rare=any(name in RARE for _, name in labels),
            )
        )
    return RoundPage(
        number,
        picks,
        np.array(difficulty, dtype=float),
        np.array(rarity, dtype=float),
        np.array([f in picked for f in files]),
        np.array([bool(truth.rare_in([Path(f).name])) for f in files]),
    )


def _summary(
    config: DemoConfig,
    truth: Truth,
    graph: ConceptGraph,
    first: list[str],
    rest: list[str],
    gsal: Played,
    entropy: Played,
    clock: Clock,
) -> dict[str, Any]:
    rng = np.random.default_rng((config.seed, 1))
    draws = [rng.choice(rest, config.per_round * config.rounds, replace=False).tolist() for _ in range(DRAWS)]
    rounds = []
    for i in range(config.rounds):
        so_far = {k: list(chain(*v.picks[: i + 1])) for k, v in (("gsal", gsal), ("entropy", entropy))}
        random = [sum(truth.rare_in(d[: config.per_round * (i + 1)]).values()) for d in draws]
        seen = [len(truth.rare_in(d[: config.per_round * (i + 1)])) for d in draws]
        rounds.append(
            {
                "round": i + 1,
                "picks": [p | {"file": n} for p, n in zip(gsal.reasons[i], gsal.picks[i], strict=True)],
                "entropy_picks": entropy.picks[i],
                "rare_instances_so_far": {k: sum(truth.rare_in(v).values()) for k, v in so_far.items()}
                | {"random": float(np.mean(random))},
                "rare_classes_so_far": {k: len(truth.rare_in(v)) for k, v in so_far.items()}
                | {"random": float(np.mean(seen))},
                "random_range": np.quantile(random, (0.05, 0.95)).tolist(),
                "coverage": gsal.coverage[i + 1],
                "entropy_coverage": entropy.coverage[i + 1],
            }
        )
    last = rounds[-1]
    return {
        "pool": {"images": config.images, "unlabeled": len(rest), "seed": config.seed},
        "labeled": len(first),
        "budget": config.per_round,
        "random_draws": DRAWS,
        "rare": {
            "classes": list(RARE),
            "instances": sum(truth.rare_in(rest).values()),
            "images": sum(bool(truth.rare_in([n])) for n in rest),
            "labeled_at_start": sum(truth.rare_in(first).values()),
        },
        "coverage": {"start": gsal.coverage[0], "levels": {n: graph.level(n) for n in graph.graph}},
        "rounds": rounds,
        "totals": {
            "rare_instances": last["rare_instances_so_far"],
            "rare_classes": last["rare_classes_so_far"],
            "labeled_images": len(first) + config.per_round * config.rounds,
        },
        "seconds": clock.seconds,
    }
