"""How well diffusion difficulty finds what is worth labeling: AUROC on the real sets and the synthetic pool.

``python tests/bench/difficulty --work DIR neu_det deeppcb bccd synthetic`` fits and measures, and appends each model's
rows to ``DIR/results.jsonl``; what is there is not measured again, so an interrupted run goes on. ``--report`` prints
the tables of docs/difficulty.md from it.

Images: ``--limit`` of each set, drawn by seed. No label is read by a fit. Questions asked of each score: images with a
rare class against the rest ("rare"), images with any defect against images without, where a set has such ("clean"; and
"control", the same with the defects cut out of the map, which should be 0.5), ground-truth boxes against boxes of the
same sizes that touch none, in the same images ("box"), and rare ones of them ("rare box").
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2])]

from measures import DEEP, corrections, crops_against_maps, draws, levels, rivals, statistic_maps, variants  # noqa: E402
from models import MODELS, Model, load  # noqa: E402
from truth import Judge, items  # noqa: E402

from lightning_modules.data import to_float  # noqa: E402


def run(name: str, model: Model, work: Path, limit: int, seed: int) -> Iterator[dict[str, Any]]:
    """All rows of one model on one set."""
    started = time.process_time()
    denoiser, seconds = load(model, name, work, limit, seed)
    pool = items(name, denoiser.input_size, limit, seed)
    judge = Judge(name, pool)
    images = torch.stack([i.image for i in pool])
    with torch.inference_mode():
        latents = torch.cat([denoiser.latent(to_float(part)).float() for part in images.split(8)])
    yield from levels(judge, denoiser, latents, model.levels)
    yield from rivals(judge, latents, bank=denoiser.space == "features")
    own = denoiser.defaults["t"], denoiser.defaults["reduce"]
    maps = statistic_maps(denoiser, latents, own[0], {"4": slice(0, 4)}, "shared")["4"][0]
    yield from variants(judge, maps, *own)
    if model.deep:
        few = np.sort(np.random.default_rng(seed).permutation(len(pool))[:DEEP])
        part = Judge(name, [pool[i] for i in few])
        yield from corrections(judge, maps, *own)
        yield from crops_against_maps(part, denoiser, maps[few])
        yield from draws(part, denoiser, latents[few])
    counts = {"images": len(pool), "rare": int(judge.rare.sum()), "clean": int(judge.clean.sum())}
    spent = round(time.process_time() - started, 1)
    yield {"kind": "about", **counts, "boxes": len(judge.rare_box), "fit seconds": seconds, "cpu seconds": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--work", type=Path, required=True, help="folder for fitted models and results.jsonl")
    parser.add_argument("--limit", type=int, default=300, help="images per set (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the model of this name alone")
    parser.add_argument("--report", action="store_true", help="print the tables of what was measured, and stop")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results = args.work / "results.jsonl"
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    if args.report:
        from report import tables

        print(tables(known))
        return
    done = {(r["set"], r["model"], r["limit"], r["seed"]) for r in known if r["kind"] == "about"}
    for name in args.sets:
        for model in MODELS[name]:
            key = {"set": name, "model": model.name, "limit": args.limit, "seed": args.seed}
            if tuple(key.values()) in done or args.only not in (None, model.name):
                continue
            for row in run(name, model, args.work, args.limit, args.seed):
                with results.open("a") as stream:  # the row "about" comes last and says that the model is done
                    stream.write(json.dumps({**key, **row}) + "\n")
            print(json.dumps({**key, **row}), flush=True)


if __name__ == "__main__":
    main()
