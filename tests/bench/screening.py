"""What a screen costs and saves: ranking and picks against the literal method, over the share of images screened.

``python tests/bench/screening.py --work DIR synthetic neu_det`` trains a small detector on a tenth of the images,
scores the rest twice with the worker (crops, and proposals pooled from maps), and then screens at many shares from the
stored statistics, as the worker would. On neu_det a feature-space model is fitted on all images first, without labels.
What is in DIR already is not made again. Rankings are those of the constants that a scoring with these models takes by
default. Images are screened by their score from maps under the same constants, as the worker does it ("score"), or
under the paper's where those differ ("paper's score"); or by chance. Work is counted in elements of the denoiser, not
in seconds; ``--draws`` repeats each share with other images drawn at random.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gsal_fo import config as cfg  # noqa: E402
from gsal_fo.acquisition.ranking import PoolTable, load_pool, rank  # noqa: E402
from gsal_fo.acquisition.screening import STATISTICS, calibrated, calibration, choose  # noqa: E402
from gsal_fo.boxes import xywh_px_to_xywh_rel  # noqa: E402
from gsal_fo.concepts.graph import ConceptGraph  # noqa: E402
from gsal_fo.run_folder import shards  # noqa: E402

SHARED = ROOT.parent / "shared"
WEIGHTS = f"mobilenet_v2:{SHARED / 'weights' / 'mobilenet_v2_imagenet_fp16.safetensors'}"
GRAPHS = {"synthetic": "thin_film", "neu_det": "neu_det"}
SHARES = (0.1, 0.25, 0.4, 0.5, 0.75, 1.0)
CROP = 128  # pixels


def worker(module: str, run: Path, rows: pa.Table, config: dict[str, Any]) -> None:
    """Run a worker over its folder to its end."""
    shards.write_table(rows, run / "manifest.parquet")
    shards.write_json(config, run / "config.json")
    subprocess.run([sys.executable, "-m", f"lightning_modules.{module}", "--run-dir", str(run)], check=True, cwd=ROOT)


def manifest(name: str, work: Path, limit: int, seed: int) -> pa.Table:
    """``limit`` images of a set by seed, a tenth of them labeled."""
    if name == "synthetic":
        from gsal_fo.synthetic.thin_film import make_pool

        made = make_pool(work / "pool", images=limit, seed=7 + seed)
        truth, folder = made.truth, work / "pool" / "images"
    else:
        truth, folder = SHARED / "datasets" / name / "labels_lt.json", SHARED / "datasets" / name / "images"
    coco = json.loads(truth.read_text(encoding="utf-8"))
    classes = {c["id"]: c["name"] for c in coco["categories"]}
    marks: dict[int, list[Any]] = {}
    for a in coco["annotations"]:
        marks.setdefault(a["image_id"], []).append(a)
    chosen = sorted(np.random.default_rng(seed).permutation(len(coco["images"]))[:limit])
    labeled = set(np.random.default_rng(seed + 1).permutation(len(chosen))[: len(chosen) // 10].tolist())
    rows = []
    for i, entry in enumerate(coco["images"][r] for r in chosen):
        row: dict[str, Any] = {"id": f"{i:05d}", "filepath": str(folder / entry["file_name"]), "role": "pool"}
        if i in labeled:
            own = marks.get(entry["id"], [])
            drawn = np.array([a["bbox"] for a in own], dtype=np.float64).reshape(-1, 4)
            boxes = xywh_px_to_xywh_rel(drawn, entry["width"], entry["height"]).ravel().tolist()
            row |= {"role": "labeled", "boxes": boxes, "labels": [classes[a["category_id"]] for a in own]}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=shards.MANIFEST)


def fit(work: Path, rows: pa.Table, seed: int) -> str:
    """A feature-space model of the images; returns its folder."""
    from gsal_fo.images import read_image
    from lightning_modules.data import resized
    from lightning_modules.fit_diffusion import FitSettings, collect, load_coder
    from lightning_modules.fit_diffusion import fit as fit_model

    folder = work / "model"
    if not (folder / "gsal.json").is_file():
        settings = FitSettings(encoder=WEIGHTS, size="tiny", steps=500, minutes=30.0, seed=seed)
        coder = load_coder(settings)
        images = (resized(read_image(p)[0], settings.side) for p in rows["filepath"].to_pylist())
        fit_model(collect(images, coder, settings), settings, coder, folder)
    return str(folder)


def scored(name: str, work: Path, limit: int, seed: int) -> dict[str, tuple[PoolTable, int]]:
    """Pool tables of ``maps`` and ``crops``, and how many elements each sent through the denoiser. The images' own
    statistics are in the first alone: the second finds them in the cache."""
    known = name == "synthetic"
    if not (work / "crops" / "result.json").is_file():
        rows = manifest(name, work, limit, seed)
        model = "embedded" if known else fit(work, rows, seed)
        training = cfg.TrainConfig(steps=250, backbone="embedded" if known else WEIGHTS, seed=seed)
        out = work / "detector"
        worker("train", work / "train", rows, {"kind": "train", "config": cfg.to_dict(training), "out": str(out)})
        for regions in ("maps", "crops"):
            config = cfg.ScoreConfig(
                graph=str(ROOT / "gsal_fo" / "graphs" / f"{GRAPHS[name]}.yaml"),
                detector=cfg.DetectorConfig(checkpoint=str(out)),
                diffusion=cfg.DiffusionConfig(model=model, regions=regions, crop_size=CROP, screen=1.0, seed=seed),
                concepts=cfg.ConceptConfig() if known else cfg.ConceptConfig(assign="prototypes", encoder=WEIGHTS),
                cache=str(work / "cache"),
            )
            worker("score", work / regions, rows, {"kind": "score", "config": cfg.to_dict(config)})
    runs = {r: work / r for r in ("maps", "crops")}
    return {r: (load_pool(p), shards.read_json(p / "result.json")["diffusion"]["elements"]) for r, p in runs.items()}


def screened(maps: PoolTable, crops: PoolTable, weight: np.ndarray) -> PoolTable:
    """The table that a screen with these weights leaves."""
    own = weight[maps.proposal_image]
    final = {}
    for name in STATISTICS:
        source, measured = getattr(maps, name), getattr(crops, name)
        estimates = calibrated(source, calibration(source, np.where(own > 0, measured, np.nan), own))
        final[name] = np.where(own > 0, measured, estimates)
    return dataclasses.replace(crops, screened=weight > 0, **final)


def measure(name: str, work: Path, limit: int, draws: int, seed: int) -> list[dict[str, Any]]:
    """One row per share: agreement with the literal method, and the share of the denoiser's work saved."""
    from scipy.stats import spearmanr

    runs = scored(name, work, limit, seed)
    (maps, on_images), (crops, on_crops) = runs["maps"], runs["crops"]
    graph = ConceptGraph.load(ROOT / "gsal_fo" / "graphs" / f"{GRAPHS[name]}.yaml")
    found = pq.read_table(work / "crops" / "manifest.parquet", columns=["labels"])["labels"].to_pylist()
    labels = Counter(label for names in found for label in names or [])
    facts = shards.read_json(work / "crops" / "result.json")
    params = cfg.default_params(facts["config"]["concepts"]["assign"], facts["diffusion"]["mix"])
    literal = rank(crops, graph, labels, params)
    n = len(crops.ids)

    def against(table: PoolTable) -> dict[str, float]:
        other = rank(table, graph, labels, params)
        out = {"rho": float(spearmanr(literal.scores.score, other.scores.score).statistic)}
        for share in (0.05, 0.1):
            k = round(share * n)
            out[f"same of top {share:.0%}"] = len({*literal.order[:k]} & {*other.order[:k]}) / k
        return out

    chance = np.random.default_rng(seed)
    signals = {"score": rank(maps, graph, labels, params).scores.score, "chance": chance.random(n)}
    if params != cfg.GsalParams():
        signals["paper's score"] = rank(maps, graph, labels).scores.score
    every = {"set": name, "images": n, "proposals": len(crops.boxes)}
    saved = on_crops / (on_images + on_crops)
    out = [{**every, "screen": 0.0, "by": "maps alone", "saved": saved, **against(maps)}]
    for by, signal in signals.items():
        for share in SHARES:
            rows, left = [], []
            for draw in range(1 if share == 1 else draws):
                weight = choose(crops.ids, signal, share, seed=draw)
                rows.append(against(screened(maps, crops, weight)))
                left.append(saved * np.mean(weight[crops.proposal_image] == 0))
            mean = {key: float(np.mean([r[key] for r in rows])) for key in rows[0]}
            out.append({**every, "screen": share, "by": by, "saved": float(np.mean(left)), **mean})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=list(GRAPHS))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=400, help="images per set (default %(default)s)")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.sets:
        for row in measure(name, args.work.absolute() / name, args.limit, args.draws, args.seed):
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    main()
