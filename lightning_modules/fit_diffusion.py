"""Fits a denoiser over a frozen encoder's feature maps (METHOD.md section 4, ``space = "features"``).

    python -m lightning_modules.fit_diffusion --run-dir DIR          # a user's pool; no labels are read
    python -m lightning_modules.fit_diffusion --embedded OUT     # the embedded model, from synthetic slices

The result is a diffusers folder with ``gsal.json`` and ``features.safetensors``, which ``nets.load_denoiser`` reads.
"""

import argparse
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from gsal_fo.diffusion import denoise, reconstruction_maps, reduce_map, region_statistics, shared_noise
from gsal_fo.normalize import z_score
from gsal_fo.shards import ShardError, table_rows
from gsal_fo.synthetic import RARE, plan, render_planned
from lightning_modules import worker
from lightning_modules.data import ImageError, read_image, resized, to_float
from lightning_modules.nets import Denoiser, Encoder, joined_maps, load_denoiser, load_encoder
from lightning_modules.progress import Reporter

SIZES: dict[str, dict[str, Any]] = {  # U-Nets over 16x16 to 32x32 cells
    "tiny": {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8},  # 0.7 M parameters
    "small": {"block_out_channels": (64, 128), "layers_per_block": 1, "norm_num_groups": 16},  # 2.8 M
}
FEWEST = 8  # images: below, a covariance of features means nothing
MOST = 4000  # images: features of all are held in memory, in half precision
HELD_OUT = 0.1
TRAIN_SEED, TEST_SEED = 11_000_000, 21_000_000  # far from the seeds of demos and tests, and of fit_clip


@dataclass(frozen=True)
class FitSettings:
    """``stages`` None: the encoder's maps at strides 8 and 16. ``input_size`` and ``stride`` in pixels; ``minutes`` and
    ``steps`` bound the training; ``whiten`` in [0, 1] is how far PCA components are brought to equal variance."""

    encoder: str = "embedded"
    stages: tuple[str, ...] | None = None
    input_size: int = 256
    stride: int = 16
    components: int = 32
    whiten: float = 0.0
    size: str = "small"
    prediction: str = "v_prediction"
    steps: int = 700
    batch: int = 32
    lr: float = 8e-4
    ema: float = 0.995
    minutes: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}; got {self.size!r}")
        if self.input_size % 32 or self.input_size < 64:
            raise ValueError(f"input_size must be a multiple of 32 px, at least 64; got {self.input_size}")
        if self.stride not in (4, 8, 16, 32) or self.input_size // self.stride < 4:
            raise ValueError(f"stride must be 4, 8, 16 or 32 px with at least 4 cells a side; got {self.stride}")
        if self.steps < 1 or self.batch < 1 or self.components < 1 or not self.minutes > 0:
            raise ValueError("steps, batch, components and minutes must be above 0")


def default_stages(encoder: Encoder) -> tuple[str, ...]:
    """The encoder's stages at strides 8 and 16."""
    return tuple(name for name, (_, stride) in encoder.stages.items() if stride in (8, 16))


@torch.no_grad()
def collect(
    images: Iterable[Tensor], encoder: Encoder, settings: FitSettings, on_image: Callable[[], None] = lambda: None
) -> Tensor:
    """Joined feature maps (N, D, h, w) float16 of images (3, S, S) uint8."""
    stages = list(settings.stages or default_stages(encoder))
    out: list[Tensor] = []
    waiting: list[Tensor] = []

    def flush() -> None:
        if waiting:
            out.append(joined_maps(encoder, to_float(torch.stack(waiting)), stages, settings.stride).half())
            waiting.clear()

    for image in images:
        waiting.append(image)
        on_image()
        if len(waiting) == 16:
            flush()
    flush()
    if not out:
        raise ValueError("no image could be read, so there is nothing to fit on; check the paths")
    return torch.cat(out)


def principal_axes(features: Tensor, components: int, whiten: float = 0.0) -> dict[str, Tensor]:
    """The feature space of maps (N, D, h, w): mean, std (D,), components (C, D), scale (C,).

    Channels are standardized; the axes are those of their covariance over all cells (PCA), largest first, signed so
    that the largest entry of each is positive. ``scale`` divides component ``c`` by ``lambda_c^(whiten / 2)``, and
    all by one number that brings the mean variance to 1.
    """
    n, depth = len(features), features.shape[1]
    components = min(components, depth)
    total, square = torch.zeros(depth, dtype=torch.float64), torch.zeros(depth, depth, dtype=torch.float64)
    cells = 0
    for part in features.split(64):
        x = part.permute(0, 2, 3, 1).reshape(-1, depth).double()
        total, square, cells = total + x.sum(0), square + x.T @ x, cells + len(x)
    mean = total / cells
    covariance = square / cells - mean[:, None] * mean[None]
    std = covariance.diagonal().clamp(min=0).sqrt().clamp(min=1e-6)
    values, vectors = torch.linalg.eigh(covariance / (std[:, None] * std[None]))
    values, axes = values.flip(0)[:components].clamp(min=1e-9), vectors.flip(1).T[:components]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    if n < FEWEST:
        raise ValueError(f"a fit needs at least {FEWEST} readable images; got {n}")
    scale = values ** (whiten / 2)
    scale = scale * (values / scale**2).mean().sqrt()
    return {"mean": mean.float(), "std": std.float(), "components": axes.float().contiguous(), "scale": scale.float()}


def project(features: Tensor, space: dict[str, Tensor]) -> Tensor:
    """Latents (N, C, h, w) float32 of joined maps, as ``nets.FeatureSpace`` computes them."""
    parts = []
    for part in features.split(64):
        z = (part.float() - space["mean"].view(1, -1, 1, 1)) / space["std"].view(1, -1, 1, 1)
        parts.append(torch.einsum("bdhw,cd->bchw", z, space["components"]) / space["scale"].view(1, -1, 1, 1))
    return torch.cat(parts)


class LatentTrainer(pl.LightningModule):
    """Trains a U-Net on latents: random steps, mean squared error of its prediction, an exponential average of weights.

    Source: Ho et al. 2020 (arXiv:2006.11239) Algorithm 1; v-prediction by Salimans & Ho 2022 (arXiv:2202.00512).
    """

    def __init__(self, unet: Any, scheduler: Any, settings: FitSettings, on_step: Callable[[int], None]) -> None:
        super().__init__()
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        self.unet, self.scheduler, self.settings, self.on_step = unet, scheduler, settings, on_step
        self.average = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
        self.held_out: list[float] = []

    def loss(self, unet: Any, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the prediction, over all elements."""
        noised = self.scheduler.add_noise(z, noise, t)
        kind = self.settings.prediction
        if kind == "v_prediction":
            target = self.scheduler.get_velocity(z, noise, t)
        else:
            target = noise if kind == "epsilon" else z
        return (unet(noised, t).sample - target).square().mean()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """One step; half the batch is mirrored left to right."""
        z = batch[0]
        z = torch.where(torch.rand(len(z), 1, 1, 1, device=z.device) < 0.5, z.flip(3), z)
        t = torch.randint(0, len(self.scheduler.alphas_cumprod), (len(z),), device=z.device)
        return self.loss(self.unet, z, t, torch.randn_like(z))

    def on_train_batch_end(self, *args: Any) -> None:
        """Averages the weights; early on over fewer steps, so that the start is soon forgotten."""
        if self.global_step < 1 / (1 - self.settings.ema):
            self.average.n_averaged.zero_()  # the next update copies
        self.average.update_parameters(self.unet)
        self.on_step(self.global_step)

    @torch.no_grad()
    def held_out_loss(self, z: Tensor) -> float:
        """Loss of the averaged weights on held-out latents, at fixed steps and noise."""
        generator = torch.Generator().manual_seed(0)
        losses = []
        for share in (0.1, 0.3, 0.5, 0.7, 0.9):
            t = torch.full((len(z),), int(share * len(self.scheduler.alphas_cumprod)))
            losses.append(float(self.loss(self.average.module, z, t, torch.randn(z.shape, generator=generator))))
        return float(np.mean(losses))

    def configure_optimizers(self) -> Any:
        """AdamW, warm-up, cosine."""
        optimizer = torch.optim.AdamW(self.unet.parameters(), lr=self.settings.lr, weight_decay=0.01)
        total = self.settings.steps

        def share(step: int) -> float:
            return min((step + 1) / 50, 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))) + 0.01)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(
    features: Tensor,
    settings: FitSettings,
    encoder: Encoder,
    out: Path,
    *,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit a denoiser to joined maps (N, D, h, w) and write its folder ``out``, whole or not at all.

    Returns what is in the folder's ``gsal.json``. Raises ValueError for too few images, ShardError when ``out`` cannot
    be written.
    """
    from diffusers import DDPMScheduler, UNet2DModel

    pl.seed_everything(settings.seed, verbose=False)
    started = time.monotonic()
    space = principal_axes(features, settings.components, settings.whiten)
    z = project(features, space)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(settings.seed))
    aside = z[order[: max(1, int(HELD_OUT * len(z)))]]
    train = z[order[len(aside) :]]
    channels = z.shape[1]
    shape = SIZES[settings.size]
    unet = UNet2DModel(
        sample_size=z.shape[-1],
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        **shape,
    )
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=settings.prediction,
        clip_sample=False,
    )
    module = LatentTrainer(unet, scheduler, settings, lambda step: on_step(step, settings.steps))
    loader: DataLoader = DataLoader(
        TensorDataset(train), batch_size=min(settings.batch, len(train)), shuffle=True, drop_last=True
    )
    module.average.update_parameters(unet)
    trainer = worker.trainer(
        max_steps=settings.steps, max_epochs=-1, max_time={"minutes": settings.minutes}, gradient_clip_val=1.0
    )
    trainer.fit(module.train(), loader)
    average = module.average.module.eval().cpu()
    module.cpu()
    facts: dict[str, Any] = {
        "space": "features",
        "encoder": settings.encoder,
        "encoder_digest": encoder.digest,
        "stages": list(settings.stages or default_stages(encoder)),
        "stride": settings.stride,
        "input_size": settings.input_size,
        "fit": {
            "settings": asdict(settings),
            "images": len(z),
            "steps": trainer.global_step,
            "seconds": round(time.monotonic() - started, 1),
            "held_out_loss": round(module.held_out_loss(aside), 5),
            "parameters": sum(p.numel() for p in unet.parameters()),
        },
        **(about or {}),
    }
    save(average, scheduler, space, facts, out)
    return facts


def save(unet: Any, scheduler: Any, space: dict[str, Tensor], facts: dict[str, Any], out: Path) -> None:
    """Write the folder under another name and move it into place; half-precision weights."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        unet.half().save_pretrained(temporary / "unet", safe_serialization=True)
        scheduler.save_pretrained(temporary / "scheduler")
        save_file(space, temporary / "features.safetensors")
        for path in temporary.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors writes for the owner alone
        (temporary / "gsal.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    except OSError as error:
        reason = error.strerror or error
        raise ShardError(f"cannot write {out}: {reason}; free space or choose another output folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@torch.no_grad()
def error_maps(denoiser: Denoiser, images: Iterable[Tensor], share: float, draws: int = 4) -> tuple[Tensor, Tensor]:
    """E and V maps (N, h, w) of images (3, S, S) uint8 at ``t = share T``."""
    steps = len(denoiser.alphas_cumprod)
    out: list[tuple[Tensor, Tensor]] = []
    for batch in torch.stack(list(images)).split(16):
        z = denoiser.latent(to_float(batch))
        noise = shared_noise(draws, z.shape[1:], seed=0)
        z_hat = denoise(
            z,
            noise,
            t=min(int(share * steps), steps - 1),
            steps=1,
            alpha_bar=denoiser.alphas_cumprod,
            predict_x0=denoiser.predict_x0,
        )
        out.append(reconstruction_maps(z, z_hat))
    return torch.cat([e for e, _ in out]), torch.cat([v for _, v in out])


def absolute_encoder(name: str) -> str:
    """An encoder's name that means the same from any working folder: paths in it made absolute."""
    path = Path(name.removeprefix("mobilenet_v2:")).expanduser()
    if name.endswith(".safetensors"):
        return f"mobilenet_v2:{path.resolve()}"
    return str(path.resolve()) if path.is_dir() and name not in ("embedded", "default", "none") else name


def fit_run(run: Path, config: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Fit on the images of a run folder, every row of its manifest; labels are not read.

    ``config.json``: {"kind": "fit", "out": folder, and any of FitSettings' fields, or "epochs" instead of "steps"}.
    """
    out = Path(config["out"])
    if (out / "gsal.json").is_file():
        reporter.note(f"{out} holds a fitted model already; nothing to do")
        return {"out": str(out)}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ShardError(f"{out} holds other files; give a new or empty folder")
    known = {k: v for k, v in config.items() if k in FitSettings.__dataclass_fields__ and v is not None}
    if isinstance(known.get("stages"), list):
        known["stages"] = tuple(known["stages"])
    known["encoder"] = absolute_encoder(str(known.get("encoder", "embedded")))
    settings = FitSettings(**known)
    encoder = load_encoder(settings.encoder)
    rows = table_rows(pq.read_table(run / "manifest.parquet", columns=["id", "filepath"]))
    paths = [(row["id"], row["filepath"]) for row in rows]
    if len(paths) > MOST:
        rng = np.random.default_rng(settings.seed)
        paths = [paths[i] for i in sorted(rng.choice(len(paths), MOST, replace=False))]
        reporter.note(f"fitting on {MOST} images drawn by seed {settings.seed}")
    if config.get("epochs"):
        per_epoch = max(1, int((1 - HELD_OUT) * len(paths)) // settings.batch)
        settings = replace(settings, steps=max(1, round(config["epochs"] * per_epoch)))
    total, done = len(paths) + settings.steps, 0

    def read() -> Iterable[Tensor]:
        nonlocal done
        for sample_id, path in paths:
            done += 1
            reporter.progress("fit", done, total)
            try:
                yield resized(read_image(path)[0], settings.input_size)
            except ImageError as error:
                reporter.failed(sample_id, str(error))

    reporter.progress("fit", 0, total)
    started = time.monotonic()
    features = collect(read(), encoder, settings)
    facts = fit(
        features,
        settings,
        encoder,
        out,
        on_step=lambda step, steps: reporter.progress("fit", min(len(paths) + step, total - 1), total),
    )
    reporter.progress("fit", total, total)
    reporter.stage("fit", time.monotonic() - started)
    return {"out": str(out), "images": facts["fit"]["images"], "held_out_loss": facts["fit"]["held_out_loss"]}


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive exceeds a negative, ties counted half; NaN where one side is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    both = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # average rank of ties
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative)))


SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
REDUCTIONS = ("mean", "max", "topk")


def measure(denoiser: Denoiser, slices: list[Any], seed: int = 0) -> list[dict[str, Any]]:
    """AUROC on slices with ground truth, one row per (t, reduce).

    ``*_image``: an image with a defect (with a rare one) against the images without; ``*_box``: a defect's box against
    boxes of the same sizes laid at random over images without defects; ``*_texture_image``: harmless textures against
    plain images (high is what difficulty alone falls for); ``*_rare_over_texture``: a rare defect against those. For
    E, V and D, the sum of their z-scores.
    """
    rng = np.random.default_rng([seed, 4])
    images = [resized(np.repeat(s.image[..., None], 3, 2), denoiser.input_size) for s in slices]
    clean = np.array([not s.labels for s in slices])
    rare = np.array([any(label in RARE for label in s.labels) for s in slices])
    textured = np.array([bool(s.textures) for s in slices])
    sizes = np.concatenate([s.boxes[:, 2:] for s in slices if s.labels]) / slices[0].image.shape[0]
    random_boxes = {}
    for i in np.flatnonzero(clean):
        size = sizes[rng.integers(len(sizes), size=4)]
        random_boxes[i] = np.concatenate([rng.uniform(0, 1, (4, 2)) * (1 - size), size], 1)
    out = []
    is_rare = np.array([label in RARE for s in slices for label in s.labels])
    for share in SHARES:
        maps = [m.numpy() for m in error_maps(denoiser, images, share)]
        for how in REDUCTIONS:
            row: dict[str, Any] = {"t": share, "reduce": how}
            image = [reduce_map(torch.from_numpy(m), how).numpy() for m in maps]
            inside, outside = [], []
            for m in maps:
                parts = [region_statistics(g, s.boxes / s.image.shape[0], how) for g, s in zip(m, slices, strict=True)]
                inside.append(np.concatenate(parts))
                outside.append(np.concatenate([region_statistics(m[i], b, how) for i, b in random_boxes.items()]))
            # D of Eq. 7 and 8 in the same breath: the two z-scores' sum, over all images and over all boxes.
            image.append(z_score(image[0]) + z_score(image[1]))
            both = [z_score(np.concatenate(pair)) for pair in zip(inside, outside, strict=True)]
            inside.append((both[0] + both[1])[: len(is_rare)])
            outside.append((both[0] + both[1])[len(is_rare) :])
            for name, v, box, other in zip("EVD", image, inside, outside, strict=True):
                row[f"{name}_defect_image"] = auroc(v[~clean], v[clean])
                row[f"{name}_rare_image"] = auroc(v[rare], v[clean])
                row[f"{name}_texture_image"] = auroc(v[clean & textured], v[clean & ~textured])
                row[f"{name}_rare_over_texture"] = auroc(v[rare], v[clean & textured])
                row[f"{name}_defect_box"] = auroc(box, other)
                row[f"{name}_rare_box"] = auroc(box[is_rare], other)
            out.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    return out


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
    encoder = load_encoder(settings.encoder)
    train = (resized(np.repeat(s.image[..., None], 3, 2), settings.input_size) for s in pool_slices(images, TRAIN_SEED))
    features = collect(train, encoder, settings)
    fit(
        features,
        settings,
        encoder,
        out,
        about={"made_by": f"python -m lightning_modules.fit_diffusion --embedded {out}"},
    )
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
    """Command line: ``--embedded OUT`` makes the embedded model; everything else is the worker's ``--run-dir DIR``."""
    if "--embedded" not in sys.argv:
        return worker.main("fit", fit_run, module="lightning_modules.fit_diffusion")
    parser = argparse.ArgumentParser(prog="python -m lightning_modules.fit_diffusion")
    parser.add_argument("--embedded", type=Path, required=True, help="folder to write the embedded model to")
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure-only", action="store_true", help="measure the model that is there")
    for name in ("stride", "components", "steps", "batch", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(EMBEDDED_SETTINGS, name))
    for name in ("whiten", "lr", "minutes"):
        parser.add_argument(f"--{name}", type=float, default=getattr(EMBEDDED_SETTINGS, name))
    for name in ("encoder", "size", "prediction"):
        parser.add_argument(f"--{name}", default=getattr(EMBEDDED_SETTINGS, name))
    parser.add_argument("--stages", nargs="+", default=EMBEDDED_SETTINGS.stages)
    args = vars(parser.parse_args())
    out, images, fitted = args.pop("embedded"), args.pop("images"), args.pop("measure_only")
    torch.set_num_threads(args.pop("threads"))
    if args["stages"]:
        args["stages"] = tuple(args["stages"])
    facts = measure_embedded(out) if fitted else make_embedded(out, FitSettings(**args), images=images)
    print(json.dumps({k: v for k, v in facts.items() if k != "held_out"}, indent=1))
    for row in facts["held_out"]:
        print(json.dumps(row))
    return 0


EMBEDDED_SETTINGS = FitSettings(size="tiny", steps=1500, minutes=30.0)

if __name__ == "__main__":
    sys.exit(main())
