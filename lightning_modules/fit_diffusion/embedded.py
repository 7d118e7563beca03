"""Makes the embedded model: fitted on synthetic slices, measured on others."""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsal_fo.config import from_dict, to_dict
from gsal_fo.fit_settings import FitSettings
from gsal_fo.synthetic.thin_film import RARE, plan, render_planned
from gsal_fo.user_files import parse_yaml
from lightning_modules.data import resized
from lightning_modules.fit_diffusion.fitting import fit
from lightning_modules.fit_diffusion.latents import collect
from lightning_modules.fit_diffusion.measuring import measure
from lightning_modules.fit_diffusion.spaces import load_coder
from lightning_modules.nets import load_denoiser

TRAIN_SEED, TEST_SEED = 11_000_000, 21_000_000  # far from the seeds of demos and tests, and of fit_clip
SETTINGS = FitSettings(encoder="embedded", size="tiny", steps=1500, minutes=30.0)


def pool_slices(count: int, seed: int, extra_rare: int = 0) -> list[Any]:
    """Slices as a demo pool has them, and ``extra_rare`` more with one rare defect each, so that few do not decide."""
    wanted = plan(count, seed) + [([RARE[i % 2]], []) for i in range(extra_rare)]
    return [render_planned(seed, i, want) for i, want in enumerate(wanted)]


def choose(table: list[dict[str, Any]]) -> dict[str, Any]:
    """The (t, reduce) with the best mean AUROC of D: defects, rare ones, rare ones against harmless textures, boxes."""
    keys = ("D_defect_image", "D_rare_image", "D_rare_over_texture", "D_defect_box", "D_rare_box")
    best = max(table, key=lambda row: sum(row[k] for k in keys))
    return {"t": best["t"], "reduce": best["reduce"], "regions": "maps"}


def make_embedded(out: Path, settings: FitSettings, *, images: int) -> dict[str, Any]:
    """Fit the embedded model on synthetic slices, measure it on others, and write both into its folder."""
    encoder = load_coder(settings)
    train = (resized(np.repeat(s.image[..., None], 3, 2), settings.side) for s in pool_slices(images, TRAIN_SEED))
    made_by = f"python -m lightning_modules.fit_diffusion --embedded {out}"
    fit(collect(train, encoder, settings), settings, encoder, out, about={"made_by": made_by})
    for name in ("curve.csv", "curve.png", "samples.png"):
        (out / name).unlink()  # of no use to who installs the package
    return measure_embedded(out)


def measure_embedded(out: Path) -> dict[str, Any]:
    """Measure a folder on held-out synthetic slices; write the table and the defaults that it suggests into it."""
    table = measure(load_denoiser(str(out)), pool_slices(300, TEST_SEED, extra_rare=80))
    facts = json.loads((out / "gsal.json").read_text(encoding="utf-8"))
    facts |= {
        "defaults": choose(table),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, CPU",
        "held_out": table,
    }
    (out / "gsal.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def main() -> int:
    """Command line of ``--embedded OUT``; prints the facts and the table, row by row."""
    parser = argparse.ArgumentParser(prog="python -m lightning_modules.fit_diffusion")
    parser.add_argument("--embedded", type=Path, required=True, help="folder to write the embedded model to")
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure-only", action="store_true", help="measure the model that is there")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a field of FitSettings")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    named = {name: parse_yaml(value, f"--set {name}") for name, _, value in (item.partition("=") for item in args.set)}
    settings = from_dict(FitSettings, {**to_dict(SETTINGS), **named})
    fitted = args.measure_only
    facts = measure_embedded(args.embedded) if fitted else make_embedded(args.embedded, settings, images=args.images)
    print(json.dumps({k: v for k, v in facts.items() if k != "held_out"}, indent=1))
    for row in facts["held_out"]:
        print(json.dumps(row))
    return 0
