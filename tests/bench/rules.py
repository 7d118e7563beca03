"""Which rarity rule, on real images with a detector's own proposals: many draws of labels from few scorings.

``python tests/bench/rules.py --out DIR neu_det bccd``

Per set one diffusion model is fitted on all images. Per detector (``--detectors``) 10 % of the images are drawn, a
detector is trained on them, and every image gets proposals, difficulty and crop embeddings; so do the ground-truth
crops of all images. Then each of ``--draws`` draws of labeled images costs no model call: prototypes of its crops
assign the proposals of the rest, whose ranking picks 10 %. Of the draws, the first is the detector's own; the others
let a detector see images that count as unlabeled, which acts alike on every rule. Prints, per rule, rare instances
found: mean over draws, and how often each rule beats the quantile rule on the same draw.
"""

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gsal_fo.acquisition.picking import pick  # noqa: E402
from gsal_fo.acquisition.ranking import PoolTable, load_pool, rank  # noqa: E402
from gsal_fo.concepts.graph import ConceptGraph  # noqa: E402
from gsal_fo.concepts.similarity import Prototypes  # noqa: E402
from gsal_fo.config import (  # noqa: E402
    ConceptConfig,
    DetectorConfig,
    DiffusionConfig,
    GsalParams,
    ScoreConfig,
    TrainConfig,
    to_dict,
)
from gsal_fo.fit_settings import FitSettings  # noqa: E402
from gsal_fo.run_folder import shards  # noqa: E402
from gsal_fo.worker.process import run_worker  # noqa: E402
from tests.bench.real_sets import SETS, WEIGHTS, Truth, link_neutral  # noqa: E402

LABELED = "labeled-"  # prefix of the ids under which ground-truth crops are embedded
RULES = {
    "quantile": {},
    "graded": {"rarity": "graded"},
    "quantile, unmatched none": {"unmatched": "none"},
    "graded, unmatched none": {"rarity": "graded", "unmatched": "none"},
    "quantile, greedy": {"batch": "greedy"},
    "graded, greedy": {"rarity": "graded", "batch": "greedy"},
    "quantile, E alone": {"alpha": 1.0, "beta": 0.0},
    "graded, E alone": {"rarity": "graded", "alpha": 1.0, "beta": 0.0},
    "quantile, rarity alone": {"strategy": "symbolic_only"},
    "graded, rarity alone": {"rarity": "graded", "strategy": "symbolic_only"},
    "graded, lambda 2": {"rarity": "graded", "lam": 2.0},
    "difficulty alone": {"strategy": "diffusion_only"},
    "entropy": {"strategy": "entropy"},
}
Labels = dict[str, Any]


def work(module: str, run: Path, job: dict[str, Any]) -> None:
    """Write a worker's job and run it to its end."""
    shards.write_json(job, run / "config.json")
    for _ in run_worker(module, ["--run-dir", str(run)], log=run / "worker.log"):
        pass


def manifest(run: Path, rows: list[dict[str, Any]]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), run / "manifest.parquet")


def row(name: str, images: Path, boxes: list[tuple[list[float], str]] | None) -> dict[str, Any]:
    """A manifest row: of the pool without boxes, else labeled."""
    head = {"id": name if boxes is None else LABELED + name, "filepath": str(images / name)}
    if boxes is None:
        return {**head, "role": "pool"}
    flat = [v for box, _ in boxes for v in box]
    return {**head, "role": "labeled", "boxes": flat, "labels": [label for _, label in boxes]}


def draw(names: list[str], share: float, seed: int) -> list[str]:
    return sorted(np.random.default_rng(seed).choice(names, round(share * len(names)), replace=False).tolist())


def scored(name: str, truth: Truth, out: Path, images: Path, *, detector: int, minutes: float, steps: int) -> Path:
    """The run folder of one detector; a finished one is taken as it is."""
    encoder = f"mobilenet_v2:{WEIGHTS}"
    if not (out / "diffusion" / "gsal.json").is_file():
        manifest(out / "fit", [row(n, images, None) for n in sorted(truth)])
        settings = to_dict(FitSettings(encoder=encoder, size="small", minutes=minutes))
        job = {"kind": "fit", "config": settings, "out": str(out / "diffusion")}
        work("lightning_modules.fit_diffusion", out / "fit", job)
    place = out / f"detector-{detector}"
    if not (place / "detector" / "detector.json").is_file():
        known = draw(sorted(truth), 0.1, detector)
        manifest(place / "train", [row(n, images, truth[n]) for n in known])
        train = TrainConfig(backbone=encoder, steps=steps, seed=detector)
        job = {"kind": "train", "config": to_dict(train), "out": str(place / "detector")}
        work("lightning_modules.train", place / "train", job)
    run = place / "score"
    if not (run / "result.json").is_file():
        rows = [row(n, images, None) for n in sorted(truth)]
        manifest(run, [*rows, *(row(n, images, truth[n]) for n in sorted(truth) if truth[n])])
        config = ScoreConfig(
            graph=str(ROOT / "gsal_fo" / "graphs" / f"{name}.yaml"),
            detector=DetectorConfig(checkpoint=str(place / "detector")),
            diffusion=DiffusionConfig(model=str(out / "diffusion")),
            concepts=ConceptConfig(assign="prototypes", encoder=encoder),
            cache=str(out / "cache"),
        )
        work("lightning_modules.score", run, {"kind": "score", "config": to_dict(config)})
    return run


def embeddings(run: Path) -> dict[str, np.ndarray]:
    """id -> crops (n, D)."""
    rows = shards.iter_rows(run, "concepts")
    return {r["id"]: r["embeddings"].reshape(-1, r["dim"]).astype(np.float32) for r in rows if not r["error"]}


def assigned(table: PoolTable, vectors: dict[str, np.ndarray], model: Prototypes) -> PoolTable:
    got = model.assign(np.concatenate([vectors[str(i)] for i in table.ids]))
    return replace(table, fine=got.fine, prob=got.prob, margin=got.margin)


def measure(name: str, out: Path, *, detectors: int, draws: int, minutes: float, steps: int) -> dict[str, Any]:
    truth = link_neutral(name, out / "images", limit=None, seed=0)
    graph = ConceptGraph.load(ROOT / "gsal_fo" / "graphs" / f"{name}.yaml")
    names, rare = sorted(truth), SETS[name][1]
    budget = round(0.1 * len(names))
    found: dict[str, list[float]] = {rule: [] for rule in [*RULES, "random"]}
    for detector in range(detectors):
        run = scored(name, truth, out, out / "images", detector=detector, minutes=minutes, steps=steps)
        table, vectors = load_pool(run), embeddings(run)
        for k in range(draws):
            known = draw(names, 0.1, detector + 1000 * k)
            crops = [n for n in known if truth[n]]
            labels = [label for n in crops for _, label in truth[n]]
            model = Prototypes.fit(np.concatenate([vectors[LABELED + n] for n in crops]), labels, graph.fine)
            pool = assigned(table, vectors, model)
            keep = ~np.isin(pool.ids.astype(str), known)

            def count(rows: list[int], ids: np.ndarray = pool.ids) -> int:
                return sum(label in rare for r in rows for _, label in truth[str(ids[r])])

            for rule, params in RULES.items():
                ranking = rank(pool, graph, Counter(labels), GsalParams(**params), keep=keep)
                found[rule].append(count(pick(ranking, budget)))
            rows = np.flatnonzero(keep)
            found["random"].append(budget / len(rows) * count(rows.tolist()))
    base = np.array(found["quantile"])
    return {
        "set": name,
        "images": len(names),
        "budget": budget,
        "draws": len(base),
        "rare found": {rule: round(float(np.mean(v)), 1) for rule, v in found.items()},
        "worst draw": {rule: float(np.min(v)) for rule, v in found.items() if rule != "random"},
        "better, worse than quantile": {
            rule: [int((np.array(v) > base).sum()), int((np.array(v) < base).sum())] for rule, v in found.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), help=f"of {', '.join(SETS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "rules")
    parser.add_argument("--detectors", type=int, default=2)
    parser.add_argument("--draws", type=int, default=10, help="per detector")
    parser.add_argument("--minutes", type=float, default=4.0, help="time for the diffusion fit")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in args.sets:
        settings = {k: getattr(args, k) for k in ("detectors", "draws", "minutes", "steps")}
        print(json.dumps(measure(name, args.out / name, **settings), indent=1), flush=True)


if __name__ == "__main__":
    main()
