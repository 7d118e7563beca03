"""The main job on real images, through the commands that a user types.

``python tests/bench/real_sets.py --out DIR neu_det bccd``

Images come from ``../shared/datasets`` and are linked under neutral names, since some file names hold the class. 10 %
of the labels are revealed; a diffusion model is fitted on all images, a detector trained on the labeled ones, both from
the ImageNet MobileNetV2 in ``../shared/weights``; concepts are assigned by prototypes, because the embedded CLIP knows
thin films only. Prints seconds per stage and how many rare instances GSAL, entropy and random (mean of 100 draws) find
at the same budget.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_imagenet_fp16.safetensors"
SETS = {  # labels file, rare classes
    "neu_det": ("labels_lt.json", ("pitted_surface", "crazing")),
    "bccd": ("labels.json", ("Platelets",)),
}
DRAWS = 100
Truth = dict[str, list[tuple[list[float], str]]]  # neutral name -> (xywh_rel box, class)


def link_neutral(name: str, images: Path, *, limit: int | None, seed: int) -> Truth:
    """Link a set's images under names that say nothing.

    Returns the truth by those names; ``limit`` takes a random part of the set.
    """
    from gsal_fo.boxes import xywh_px_to_xywh_rel

    coco = json.loads((SHARED / "datasets" / name / SETS[name][0]).read_text(encoding="utf-8"))
    classes = {c["id"]: c["name"] for c in coco["categories"]}
    chosen = coco["images"]
    if limit is not None:
        rows = np.random.default_rng(seed).choice(len(chosen), limit, replace=False)
        chosen = [chosen[r] for r in sorted(rows)]
    images.mkdir(parents=True, exist_ok=True)
    truth: Truth = {}
    by_id = {}
    for entry in chosen:
        source = SHARED / "datasets" / name / "images" / entry["file_name"]
        neutral = hashlib.sha256(source.read_bytes()).hexdigest()[:16] + source.suffix
        (images / neutral).unlink(missing_ok=True)
        (images / neutral).symlink_to(source)
        truth[neutral] = []
        by_id[entry["id"]] = (neutral, entry["width"], entry["height"])
    for a in coco["annotations"]:
        if a["image_id"] in by_id:
            neutral, width, height = by_id[a["image_id"]]
            truth[neutral].append(
                (xywh_px_to_xywh_rel(a["bbox"], width, height)[0].tolist(), classes[a["category_id"]])
            )
    return truth


def gsal(*args: str | Path) -> dict[str, Any]:
    """Run one `gsal` command as a user would, and return its JSON."""
    from gsal_fo import cli

    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        code = cli.main([*map(str, args), "--json"])
    if code:
        raise SystemExit(f"gsal {' '.join(map(str, args))} ended with {code}")
    return json.loads(stdout.getvalue())


def run_set(
    name: str,
    out: Path,
    *,
    limit: int | None = None,
    reveal: float = 0.1,
    budget: float = 0.1,
    minutes: float = 4.0,
    size: str = "small",
    steps: int = 300,
    assign: str = "prototypes",
    rarity: str = "graded",
    seed: int = 0,
) -> dict[str, Any]:
    """Import, fit, train, score, select, export, ingest one set. ``reveal`` and ``budget`` are shares of the images."""
    import fiftyone as fo

    from gsal_fo.acquisition.picking import pick
    from gsal_fo.acquisition.ranking import load_pool, rank
    from gsal_fo.fo.demo.simulated_labeler import Truth as Labeler
    from gsal_fo.fo.demo.simulated_labeler import import_pool, label

    encoder = f"mobilenet_v2:{WEIGHTS}"
    graph = ROOT / "gsal_fo" / "graphs" / f"{name}.yaml"
    dataset_name = f"gsal-real-{name}"
    seconds: dict[str, float] = {}

    def timed(stage: str, *args: str | Path) -> dict[str, Any]:
        started = time.monotonic()
        got = gsal(*args)
        seconds[stage] = round(time.monotonic() - started, 1)
        return got

    if (out / "images").is_dir():  # an earlier run's: its folders belong to samples that import_pool replaces
        shutil.rmtree(out)
    truth = link_neutral(name, out / "images", limit=limit, seed=seed)
    known = Labeler(truth, SETS[name][1])
    names = sorted(truth)
    first = sorted(np.random.default_rng(seed).choice(names, round(reveal * len(names)), replace=False).tolist())
    import_pool(dataset_name, out / "images", known, first, seed=seed)
    wanted = round(budget * len(names))
    timed(
        "fit",
        "fit",
        dataset_name,
        "--encoder",
        encoder,
        "--out",
        out / "diffusion",
        "--size",
        size,
        "--minutes",
        str(minutes),
    )
    detector = out / "detector"
    timed("train", "train", dataset_name, "--backbone", encoder, "--steps", str(steps), "--out", detector)
    models = ("--detector", detector, "--diffusion", out / "diffusion", "--assign", assign, "--encoder", encoder)
    scored = timed("score", "score", dataset_name, "--concepts", graph, *models)
    selected = timed("select", "select", dataset_name, "--budget", str(wanted), "--rarity", rarity)
    timed("views", "setup-views", dataset_name)
    timed("export", "export", dataset_name, "--out", out / "batch")
    labels = label(out / "batch", known)
    ingested = timed("ingest", "ingest", dataset_name, labels)

    dataset = fo.load_dataset(dataset_name)
    files = dict(zip(*dataset.values(["id", "filepath"]), strict=True))

    def found(ids: list[str]) -> int:
        return sum(known.rare_in(Path(files[i]).name for i in ids).values())

    from gsal_fo.concepts.graph import ConceptGraph
    from gsal_fo.config import GsalParams

    table = load_pool(Path(scored["run_dir"]))
    counts = Counter(label for n in first for _, label in truth[n])
    ids = [str(i) for i in table.ids]
    own = json.loads((Path(scored["run_dir"]) / "result.json").read_text(encoding="utf-8"))["diffusion"]["mix"]

    def picked(**params: Any) -> int:
        ranking = rank(table, ConceptGraph.load(graph), counts, GsalParams(**{**own, **params}))
        return found([ids[r] for r in pick(ranking, wanted)])

    rng = np.random.default_rng((seed, 1))
    random = [found(rng.choice(ids, wanted, replace=False).tolist()) for _ in range(DRAWS)]
    return {
        "set": name,
        "images": len(names),
        "labeled": len(first),
        "budget": wanted,
        "rare_classes": list(known.rare),
        "rare_in_pool": found(ids),
        "rare_found": {
            "gsal": found([p["id"] for p in selected["picks"]]),
            "gsal, quantile rule": picked(rarity="quantile"),
            "gsal, graded rule": picked(rarity="graded"),
            "gsal, graded rule, alpha = beta": picked(rarity="graded", alpha=0.5, beta=0.5),
            "difficulty alone": picked(strategy="diffusion_only"),
            "entropy": picked(strategy="entropy"),
            "random": float(np.mean(random)),
        },
        "assign": assign,
        "notes": scored["notes"],
        "ingested": {k: v if isinstance(v, int | dict) else len(v) for k, v in ingested.items()},
        "seconds": seconds,
        "dataset": dataset_name,
    }


def screenshot(dataset_name: str, file: Path, *, port: int = 5163) -> None:
    """A picture of the App on the dataset, by headless Chromium."""
    import fiftyone as fo
    from playwright.sync_api import sync_playwright

    session = fo.launch_app(fo.load_dataset(dataset_name), port=port, remote=True, address="127.0.0.1")
    flags = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-gl=swiftshader",
        "--enable-webgl",
        "--ignore-gpu-blocklist",
    ]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.goto(f"http://127.0.0.1:{port}/datasets/{dataset_name}")
        page.wait_for_function(
            "document.querySelector('canvas')?.getAttribute('canvas-loaded') === 'true'", timeout=90_000
        )
        if page.get_by_text("Dismiss").count():  # an advertisement over the grid
            page.get_by_text("Dismiss").click()
        page.screenshot(path=str(file))
        browser.close()
    session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), help=f"of {', '.join(SETS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "real")
    parser.add_argument("--assign", choices=("prototypes", "detector"), default="prototypes")
    parser.add_argument("--rarity", choices=("graded", "quantile"), default="graded")
    parser.add_argument("--minutes", type=float, default=4.0, help="time for the diffusion fit")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--screenshot", action="store_true", help="write OUT/SET/app.png")
    args = parser.parse_args()
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    for name in args.sets:
        out = args.out / f"{name}-{args.seed}"
        settings = {k: getattr(args, k) for k in ("minutes", "steps", "assign", "rarity", "seed")}
        result = run_set(name, out, **settings)
        print(json.dumps(result, indent=1))
        (out / "result.json").write_text(json.dumps(result, indent=1))
        if args.screenshot:
            screenshot(result["dataset"], out / "app.png")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
