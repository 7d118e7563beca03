"""The model folder: diffusers' layout, ``gsal.json``, loss curve, sample sheet; written whole or not at all."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from gsal_fo.run_folder.shards import ShardError
from lightning_modules.fit_diffusion.latents import Latents
from lightning_modules.fit_diffusion.sheets import draw_curve, draw_sheet
from lightning_modules.fit_diffusion.spaces import Coder
from lightning_modules.nets import load_denoiser

WEIGHTS = "diffusion_pytorch_model.safetensors"
WRITTEN = frozenset(
    (
        *("gsal.json", "curve.csv", "curve.png", "samples.png", "features.safetensors"),
        "scheduler/scheduler_config.json",
        *(f"{part}/{name}" for part in ("unet", "vae") for name in ("config.json", WEIGHTS)),
    )
)  # every file that a model folder has


def save(
    unet: Any,
    scheduler: Any,
    coder: Coder,
    latents: Latents,
    curve: list[dict[str, float]],
    facts: dict[str, Any],
    out: Path,
) -> None:
    """Write the folder under another name, load it as a scorer would for its sample sheet, and move it into place.

    Weights are in half precision. An older model gives way; anything else in the folder stays, whenever it came there.
    Raises ShardError where it cannot be written.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        unet.half().save_pretrained(temporary / "unet", safe_serialization=True)
        scheduler.save_pretrained(temporary / "scheduler")
        if facts["space"] == "features":
            save_file(latents.axes, temporary / "features.safetensors")
        if facts["space"] == "vae":
            coder.save_pretrained(temporary / "vae", safe_serialization=True)
        for path in temporary.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors writes for the owner alone
        (temporary / "gsal.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        with (temporary / "curve.csv").open("w", newline="", encoding="utf-8") as f:
            table = csv.DictWriter(f, list(curve[0]))
            table.writeheader()
            table.writerows(curve)
        draw_curve(curve, facts["fit"]["best_step"], facts["fit"]["settings"]["guard"], temporary / "curve.png")
        draw_sheet(load_denoiser(str(temporary)), latents.pictures, temporary / "samples.png")
        place(temporary, out)
    except OSError as error:
        reason = error.strerror or error
        raise ShardError(f"cannot write {out}: {reason}; free space or choose another output folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def place(made: Path, out: Path) -> None:
    """Move a finished folder to its place. What is there is moved aside and looked at there, where nothing joins it."""
    if not out.is_dir() or not any(out.iterdir()):
        os.replace(made, out)  # over an empty folder, and over nothing else
        return
    aside = out.with_name(f".{out.name}.{os.getpid()}.old")
    os.replace(out, aside)
    held = {p.relative_to(aside).as_posix() for p in aside.rglob("*") if not p.is_dir()}
    if "gsal.json" not in held or not held <= WRITTEN:
        os.replace(aside, out)
        raise ShardError(
            f"{out} holds files that came while the model was fitted, such as {min(held - WRITTEN or held)}; move them "
            f"away and run the same command again: it goes on from its checkpoint"
        )
    os.replace(made, out)
    shutil.rmtree(aside)
