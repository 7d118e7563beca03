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

    Weights are in half precision. Raises ShardError where it cannot be written.
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
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    except OSError as error:
        reason = error.strerror or error
        raise ShardError(f"cannot write {out}: {reason}; free space or choose another output folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
