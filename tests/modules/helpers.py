"""Tiny real things for worker tests: images, a pixel-space diffusers folder, a run folder."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
import unittest.mock
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import ConceptConfig, DetectorConfig, DiffusionConfig, ScoreConfig, to_dict
from gsal_fo.run_folder import shards
from lightning_modules import worker

ROOT = Path(__file__).parents[2]
GRAPH = {
    "concepts": {"disk": {"coarse": "blob", "abstract": ["bright"]}, "bar": {"coarse": "line", "abstract": ["bright"]}}
}


def write_images(folder: Path, count: int, *, size: int = 48, seed: int = 0) -> list[Path]:
    """Gray noise with a bright disk or bar, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        pixels = rng.normal(90, 20, (size, size))
        if i % 2:
            pixels[10:20, 10:20] += 90
        else:
            pixels[30:33, 5:40] += 90
        out.append(folder / f"{i:04d}.png")
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out[-1])
    return out


def write_ddpm(folder: Path, *, nan: bool = False, seed: int = 0) -> Path:
    """An unconditional pixel-space U-Net with random weights, in diffusers' own format."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    if nan:
        with torch.no_grad():
            unet.conv_out.bias.fill_(float("nan"))
    unet.save_pretrained(folder / "unet")
    DDPMScheduler(num_train_timesteps=100).save_pretrained(folder / "scheduler")
    return folder


def write_graph(path: Path) -> Path:
    """A two-label concept graph."""
    import yaml

    path.write_text(yaml.safe_dump(GRAPH), encoding="utf-8")
    return path


BOXES = {1: [10 / 48, 10 / 48, 10 / 48, 10 / 48], 0: [5 / 48, 30 / 48, 35 / 48, 3 / 48]}


def write_run(folder: Path, images: list[Path], *, model: Path, labeled: int = 6, **changes: Any) -> ScoreConfig:
    """A run folder: the first ``labeled`` images carry one labeled box each, the rest is the pool."""
    rows = []
    for i, path in enumerate(images):
        known = i < labeled
        rows.append(
            {
                "id": f"img{i:04d}",
                "filepath": str(path),
                "role": "labeled" if known else "pool",
                "boxes": BOXES[i % 2] if known else None,
                "labels": [["bar", "disk"][i % 2]] if known else None,
                "scores": None,
            }
        )
    shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), folder / "manifest.parquet")
    config = ScoreConfig(
        graph=str(write_graph(folder / "graph.yaml")),
        detector=changes.pop("detector", DetectorConfig()),
        diffusion=changes.pop("diffusion", DiffusionConfig(model=str(model), crop_size=16, batch_size=32)),
        concepts=changes.pop("concepts", ConceptConfig(assign="prototypes", encoder="mobilenet_v2:none")),
        **changes,
    )
    shards.write_json({"kind": "score", "config": to_dict(config)}, folder / "config.json")
    return config


def environment() -> dict[str, str]:
    """The caller's environment with this checkout importable and one thread per process."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def command(run: Path, *more: str, module: str = "lightning_modules.score") -> list[str]:
    """The worker's command line."""
    return [sys.executable, "-m", module, "--run-dir", str(run), *more]


def run_here(run: Path, *more: str, module: str = "lightning_modules.score") -> subprocess.CompletedProcess[str]:
    """A worker's whole command line in this process: a start of Python and its imports take most of a small run."""
    name, out, err = module.rpartition(".")[2], io.StringIO(), io.StringIO()
    loaded = importlib.import_module(module)
    with (
        unittest.mock.patch.object(sys, "argv", [module, "--run-dir", str(run), *more]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        code = worker.main(name, getattr(loaded, name), module=module)
    return subprocess.CompletedProcess(command(run, *more, module=module), code, out.getvalue(), err.getvalue())


def run_worker(run: Path, *more: str, module: str = "lightning_modules.score") -> subprocess.CompletedProcess[str]:
    """Run a worker to its end."""
    return subprocess.run(
        command(run, *more, module=module), env=environment(), capture_output=True, text=True, check=False
    )


def picks(run: Path) -> list[str]:
    """The pool's ids, best first, as ``select`` would rank them."""
    pool = load_pool(run)
    ranking = rank(pool, ConceptGraph.load(run / "graph.yaml"), {"disk": 3, "bar": 3})
    return [str(pool.ids[i]) for i in ranking.order]
