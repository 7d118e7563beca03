"""What repeats: the same detector training, diffusion fit and ranking with something changed that should not matter.

``python -m tests.bench.repeatability --out DIR``

Steel images (``tests/bench/real_sets.py`` links them under names that say nothing): a detector is trained on some, a
diffusion model fitted on all, and the rest is ranked with the detector, all by the workers' own command lines. Then the
same again with the images in another order, under other names and ids, on other numbers of threads and processes, after
a kill. Prints a table: are the weights the same to the bit, else how far apart, and are the same images picked?
"""

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file

from gsal_fo.acquisition.ranking import load_pool, pick, rank
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import ConceptConfig, DetectorConfig, GsalParams, ScoreConfig, TrainConfig, to_dict
from gsal_fo.fit_settings import FitSettings
from gsal_fo.run_folder import shards
from gsal_fo.worker.process import run_worker
from tests.bench.real_sets import ROOT, WEIGHTS, link_neutral

NAME = "neu_det"
ENCODER = f"mobilenet_v2:{WEIGHTS}"
SHARE = 0.1  # of the pool is picked


@dataclass(frozen=True)
class Change:
    """One repetition, and what is other in it."""

    name: str
    shuffled: bool = False
    renamed: bool = False
    threads: int = 1
    processes: int = 1
    cut: bool = False
    seed: int = 0


CHANGES = (
    Change("nothing"),
    Change("order of the images", shuffled=True),
    Change("file names and sample ids", renamed=True),
    Change("2 threads", threads=2),
    Change("2 processes", processes=2),
    Change("3 processes", processes=3),
    Change("killed half way, gone on", cut=True),
    Change("all of these, 2 processes of 2 threads", shuffled=True, renamed=True, threads=2, processes=2, cut=True),
    Change("the seed, for comparison", seed=1),
)


class Bench:
    """The images, and a folder for every repetition."""

    def __init__(self, out: Path, *, labeled: int, pool: int, steps: int, size: str) -> None:
        self.out, self.steps, self.size = out, steps, size
        truth = link_neutral(NAME, out / "images", limit=labeled + pool, seed=0)
        names = sorted(truth)
        self.truth, self.labeled, self.pool = truth, names[:labeled], names[labeled:]
        self.graph = ROOT / "gsal_fo" / "graphs" / f"{NAME}.yaml"

    def manifest(self, run: Path, change: Change, *, pool: bool) -> dict[str, str]:
        """Write the images as the change has them; returns the neutral name by sample id."""
        shutil.rmtree(run, ignore_errors=True)
        names = [(n, "labeled") for n in self.labeled] + [(n, "pool") for n in self.pool if pool]
        if change.shuffled:
            names = [names[i] for i in np.random.default_rng(7).permutation(len(names))]
        folder = self.out / "images"
        if change.renamed:
            folder = run / "images"
            folder.mkdir(parents=True)
        rows, known = [], {}
        for i, (name, role) in enumerate(names):
            sample_id = f"{i:06d}" if not change.renamed else f"{len(names) - i:024x}"
            file = folder / (name if not change.renamed else f"{len(names) - i}{Path(name).suffix}")
            if change.renamed:
                shutil.copyfile(self.out / "images" / name, file)
            boxes = self.truth[name] if role == "labeled" else None
            row = {"id": sample_id, "filepath": str(file), "role": role, "scores": None}
            row["boxes"] = None if boxes is None else [v for box, _ in boxes for v in box]
            row["labels"] = None if boxes is None else [label for _, label in boxes]
            rows.append(row)
            known[sample_id] = name
        shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), run / "manifest.parquet")
        return known

    def train(self, change: Change) -> tuple[dict[str, torch.Tensor], float]:
        """Weights of the detector and seconds of its steps."""
        run = self.out / f"train-{slug(change)}"
        self.manifest(run, change, pool=False)
        config = to_dict(TrainConfig(backbone=ENCODER, steps=self.steps, seed=change.seed))
        if "checkpoint_s" in config:
            config["checkpoint_s"] = 0.0
        shards.write_json({"kind": "train", "config": config, "out": str(run / "out")}, run / "config.json")
        seconds = work("lightning_modules.train", run, change, "train", cut_at=self.steps // 2)
        return load_file(run / "out" / "model.safetensors"), seconds

    def fit(self, change: Change) -> tuple[dict[str, torch.Tensor], float]:
        """Weights of the diffusion model and seconds of encoding and steps."""
        run = self.out / f"fit-{slug(change)}"
        known = self.manifest(run, change, pool=True)
        settings = FitSettings(encoder=ENCODER, size=self.size, steps=self.steps, checkpoint_s=0.0, seed=change.seed)
        shards.write_json({"kind": "fit", "config": to_dict(settings), "out": str(run / "out")}, run / "config.json")
        seconds = work("lightning_modules.fit_diffusion", run, change, "fit", cut_at=len(known) + self.steps // 2)
        weights = load_file(run / "out" / "unet" / "diffusion_pytorch_model.safetensors")
        axes = load_file(run / "out" / "features.safetensors")
        return {**weights, **{f"axes.{k}": v for k, v in axes.items()}}, seconds

    def ranked(self, change: Change) -> tuple[np.ndarray, list[str]]:
        """Scores of the pool by neutral name, and the names picked, best first; with the change's detector."""
        run = self.out / f"score-{slug(change)}"
        known = self.manifest(run, change, pool=True)
        config = ScoreConfig(
            graph=str(self.graph),
            detector=DetectorConfig(checkpoint=str(self.out / f"train-{slug(change)}" / "out")),
            concepts=ConceptConfig(assign="prototypes", encoder=ENCODER),
        )
        shards.write_json({"kind": "score", "config": to_dict(config)}, run / "config.json")
        work("lightning_modules.score", run, change, "detect")
        counts: dict[str, int] = {}
        for name in self.labeled:
            for _, label in self.truth[name]:
                counts[label] = counts.get(label, 0) + 1
        ranking = rank(load_pool(run), ConceptGraph.load(self.graph), counts, GsalParams(rarity="graded"))
        scores = dict(zip((known[str(i)] for i in ranking.table.ids), ranking.scores.score, strict=True))
        picks = [known[str(ranking.table.ids[row])] for row in pick(ranking, round(SHARE * len(self.pool)))]
        return np.array([scores[name] for name in self.pool]), picks


def slug(change: Change) -> str:
    """A folder name."""
    return "-".join("".join(c if c.isalnum() else " " for c in change.name).split())


def work(module: str, run: Path, change: Change, stage: str, *, cut_at: int | None = None) -> float:
    """Run a worker to its end; where the change says so, kill it at ``cut_at`` and start it again.

    Returns the stage's seconds as the worker tells them.
    """
    with threads(change.threads):
        if change.cut and cut_at is not None:
            for event in run_worker(module, ["--run-dir", str(run)], processes=change.processes):
                if event["event"] == "progress" and event["done"] >= cut_at:
                    break  # which ends the worker and all its processes
        seconds = 0.0
        for event in run_worker(module, ["--run-dir", str(run)], processes=change.processes, log=run / "worker.log"):
            if event["event"] == "stage" and event.get("stage") == stage:
                seconds = float(event["seconds"])
        return seconds


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Workers that start inside use so many threads each."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def apart(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> str:
    """How the weights compare: "same bits", or the largest difference as a share of its tensor's largest entry."""
    if one.keys() != two.keys():
        return "other tensors"
    if all(torch.equal(one[k], two[k]) for k in one):
        return "same bits"
    shares = [
        float((one[k].double() - two[k].double()).abs().max() / one[k].double().abs().max().clamp(min=1e-12))
        for k in one
        if one[k].is_floating_point()
    ]
    return f"{max(shares):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "repeatability")
    parser.add_argument("--labeled", type=int, default=30)
    parser.add_argument("--pool", type=int, default=60)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", default="tiny", help="of the diffusion model")
    parser.add_argument("--only", nargs="*", help="changes by a word of their name; the first is always run")
    args = parser.parse_args()
    bench = Bench(args.out.resolve(), labeled=args.labeled, pool=args.pool, steps=args.steps, size=args.size)
    versions = f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{NAME}, {args.labeled} labeled, {args.pool} in the pool, {args.steps} steps; {versions}\n")
    print(f"| changed | detector | s | diffusion model | s | scores | picks of {round(SHARE * args.pool)} |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    first: Any = None
    rows = []
    for i, change in enumerate((Change("first run"), *CHANGES)):
        if i and args.only is not None and not any(word in change.name for word in args.only):
            continue
        started = time.monotonic()
        detector, train_s = bench.train(change)
        model, fit_s = bench.fit(change)
        scores, picks = bench.ranked(change)
        first = first or (detector, model, scores, picks)
        gap = float(np.nanmax(np.abs(scores - first[2])))
        same = len(set(picks) & set(first[3]))
        row = [change.name, apart(first[0], detector), f"{train_s:.1f}", apart(first[1], model), f"{fit_s:.1f}"]
        row += [f"{gap:.1e} sd" if gap else "same bits", f"{same} the same{', in order' if picks == first[3] else ''}"]
        rows.append({"change": change.name, "row": row, "seconds": time.monotonic() - started})
        print(f"| {' | '.join(row)} |", flush=True)
    (args.out / "result.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
