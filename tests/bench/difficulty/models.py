"""What is measured: which models are fitted on which set, and how."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import autoencoder
from truth import SHARED, items

from lightning_modules.fit_diffusion import FitSettings, collect, fit, load_coder
from lightning_modules.nets import load_denoiser

WEIGHTS = f"mobilenet_v2:{SHARED / 'weights' / 'mobilenet_v2_imagenet_fp16.safetensors'}"


@dataclass(frozen=True)
class Model:
    """A denoiser to measure: ``name`` in the tables; ``fit`` None is the embedded model, else settings of a fit."""

    name: str
    fit: dict[str, Any] | None
    levels: tuple[float, ...] = (0.05, 0.2, 0.4, 0.7)
    fitted: int = 400  # images of the fit
    deep: bool = False  # draws, noise modes, corrections and crops too


def mobilenet(
    name: str, *, deep: bool = False, levels: tuple[float, ...] = Model.levels, fitted: int = 400, **more: Any
) -> Model:
    return Model(name, {"encoder": WEIGHTS, "size": "tiny", "steps": 250, **more}, levels, fitted, deep)


FEW = (0.2, 0.4, 0.7)
FINE = ("features.3", "features.6")
# Defects of 30 px on boards of 640: a small receptive field, fine cells, windows of 128 px.
BOARD = {"stages": ("features.3",), "stride": 8, "input_size": 512, "window": 16, "batch": 16, "steps": 100}
LONG = {**BOARD, "steps": 800}
LONGER = {**BOARD, "steps": 2400}
HIGH = (0.7, 0.9, 0.2)
LATENTS = {"space": "vae", "input_size": 128, "size": "tiny", "steps": 300, "batch": 16}
PIXELS = {"space": "pixels", "input_size": 64, "size": "tiny", "steps": 300, "batch": 16}
MODELS = {
    "neu_det": [
        mobilenet("MobileNetV2 8+16", deep=True),
        Model("embedded", None),
        Model("pixels 64x64", PIXELS, FEW),
        Model("own autoencoder, 128 px, 32x32", LATENTS, FEW),
        mobilenet("MobileNetV2 8+16, 800 steps", steps=800, levels=FEW),
        mobilenet("MobileNetV2 8+16, whitened", whiten=1.0, levels=FEW),
        mobilenet("MobileNetV2 16 alone", stages=("features.13",), levels=FEW),
        Model("embedded CLIP tower 8+16", {"encoder": "embedded", "size": "tiny", "steps": 250}, FEW),
        mobilenet("MobileNetV2 4+8, 32x32", stages=FINE, stride=8, steps=300, window=16, levels=FEW),
        mobilenet("MobileNetV2 8+16, small", size="small", levels=FEW),
    ],
    "deeppcb": [
        mobilenet("MobileNetV2 4, 512 px, 64x64", **BOARD, levels=HIGH, fitted=80),
        mobilenet("MobileNetV2 4, 512 px, 64x64, whitened", **BOARD, whiten=1.0, levels=HIGH, fitted=80),
        mobilenet("MobileNetV2 4, 512 px, 64x64, 800 steps", **LONG, levels=HIGH, fitted=200),
        mobilenet("MobileNetV2 4, 512 px, 64x64, 800 steps, whitened", **LONG, whiten=1.0, levels=HIGH, fitted=200),
        mobilenet("MobileNetV2 4, 512 px, 64x64, 2400 steps", **LONGER, levels=(0.7, 0.9, 0.4), fitted=200),
        Model("embedded", None, FEW),
    ],
    "bccd": [
        mobilenet("MobileNetV2 8+16", deep=True),
        Model("embedded", None, FEW),
        mobilenet("MobileNetV2 8+16, 800 steps", steps=800, levels=FEW),
    ],
    "synthetic": [
        Model("embedded", None, deep=True),
        mobilenet("MobileNetV2 8+16", levels=FEW),
        Model("pixels 64x64", PIXELS, FEW),
        Model("own autoencoder, 128 px, 32x32", LATENTS, FEW),
    ],
}


def load(model: Model, name: str, work: Path, limit: int, seed: int) -> tuple[Any, float]:
    """The denoiser, fitted on the images of the set where it is one to fit; and the seconds that its fit took."""
    if model.fit is None:
        return load_denoiser("embedded"), 0.0
    folder = work / "models" / f"{name}-{model.name}-{limit}-{seed}".replace(" ", "_").replace(",", "")
    if not (folder / "gsal.json").is_file():
        more = dict(model.fit)
        if more.get("space") == "vae":
            seen = [i.image for i in items(name, more["input_size"], model.fitted, seed, judged=False)]
            more["vae"] = str(autoencoder.make(folder.with_name(f"{folder.name}-vae"), seen, seed))
        settings = FitSettings(**more, minutes=60.0, seed=seed)
        coder = load_coder(settings)
        images = (item.image for item in items(name, settings.side, model.fitted, seed, judged=False))
        fit(collect(images, coder, settings), settings, coder, folder)
    about = json.loads((folder / "gsal.json").read_text(encoding="utf-8"))
    return load_denoiser(str(folder)), float(about["fit"]["seconds"])
