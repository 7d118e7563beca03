"""Time and memory of the full Stable Diffusion 2.1 architecture on one image, loaded and scored as any folder is.

    python -m tests.bench.full_size [--folder DIR] [--precision fp32 bf16] [--crops 2] [--draws 4]

Weights are random: what is measured is the architecture, an 865 M U-Net with v prediction, the KL autoencoder, and the
text encoder that embeds the empty prompt once. A folder of 5.2 GB is written in diffusers' own format, loaded by
``load_denoiser``, used by ``DiffusionScorer`` and deleted. On a GPU where there is one.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 2**30


def build(folder: Path) -> None:
    """Write the folder: configs as published with stable-diffusion-2-1, weights random."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True
    )
    print(f"U-Net {sum(p.numel() for p in unet.parameters()) / 1e6:.0f} M parameters", flush=True)
    unet.save_pretrained(folder / "unet")
    del unet
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=768,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    print(f"autoencoder {sum(p.numel() for p in vae.parameters()) / 1e6:.0f} M", flush=True)
    vae.save_pretrained(folder / "vae")
    DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
            max_position_embeddings=77, hidden_act="gelu", projection_dim=512, bos_token_id=0, eos_token_id=2,
        )
    )  # fmt: skip
    print(f"text encoder {sum(p.numel() for p in text.parameters()) / 1e6:.0f} M", flush=True)
    text.save_pretrained(folder / "text_encoder")
    # The empty prompt needs the two special tokens only, so the vocabulary is not the published one.
    (folder / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "a</w>": 1, "<|endoftext|>": 2}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    tokenizer.save_pretrained(folder / "tokenizer")


@contextmanager
def measured(name: str, device: str) -> Iterator[None]:
    """Print the wall and CPU seconds of a part and its highest memory: of the GPU where there is one, else of the
    process. On a busy machine the CPU seconds are those that can be compared."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    started, worked = time.perf_counter(), time.process_time()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    seconds, work = time.perf_counter() - started, time.process_time() - worked
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / GIB
    elif sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / GIB
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    print(f"  {name:<46} {seconds:8.2f} s wall {work:8.2f} s CPU {peak:6.2f} GiB", flush=True)


def score(folder: Path, precision: str, crops: int, draws: int) -> None:
    """Load the folder and score one image of 512 px and some crops of 256 px, each part measured."""
    import numpy as np
    import torch

    from gsal_fo.config import DiffusionConfig
    from lightning_modules.nets import load_denoiser
    from lightning_modules.stages.difficulty import DifficultyLoader, DiffusionScorer, resolve
    from tests.modules.helpers import write_images

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{precision} on {name}, PyTorch {torch.__version__}, K = {draws}", flush=True)
    with measured("load and digest, the empty prompt included", device):
        denoiser = load_denoiser(str(folder), precision=precision).to(device)
    settings = resolve(DiffusionConfig(draws=draws), denoiser)
    scorer = DiffusionScorer(denoiser, settings, batch_size=4).to(device)
    path = write_images(folder / "images", 1, size=512)[0]
    boxes = np.array([[0.1 + 0.1 * i, 0.2, 0.3, 0.3] for i in range(crops)], np.float32)

    def rows(boxes: np.ndarray) -> list[dict]:
        load = DifficultyLoader(
            size=denoiser.input_size, crop_size=settings["crop_size"], pad=0.2, per_sample=False, cache=None
        )
        row = {"id": "image", "filepath": str(path), "boxes": boxes.ravel(), "error": None}
        return [{**row, **load(row)}]

    with torch.inference_mode():
        image = rows(boxes[:0])
        side = denoiser.input_size
        with measured(f"autoencoder, one image of {side} px", device):
            denoiser.latent(image[0]["image"][None].float().to(device) / 255)
        z = torch.randn(1, 4, side // 8, side // 8, device=device)
        with measured(f"U-Net, one draw at {side // 8} x {side // 8} cells", device):
            denoiser.predict_x0(z, 400)
        with measured(f"scorer, the image, {draws} draws", device):
            (row,) = scorer.predict_step(image, 0)
        print(f"  E = {row['image_error']:.6f}, V = {row['image_variance']:.6f}", flush=True)
        if crops:
            todo = rows(boxes)
            todo[0].pop("image")
            todo[0]["known"] = {todo[0]["image_key"]: np.concatenate([[1, 1], [0.0, 0.0]]).astype(np.float32)}
            with measured(f"scorer, {crops} crops of {settings['crop_size']} px, {draws} draws", device):
                (row,) = scorer.predict_step(todo, 0)
            print("  E of crops " + ", ".join(f"{v:.6f}" for v in row["proposal_error"]), flush=True)


def main() -> None:
    """Build, then score once per precision, each in a process of its own so that peaks are not mixed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the models' temporary folder goes (default: the system's)")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--crops", type=int, default=2)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--part", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        part, folder = args.part
        build(Path(folder)) if part == "build" else score(Path(folder), part, args.crops, args.draws)
        return
    again = [sys.executable, "-m", "tests.bench.full_size", "--crops", str(args.crops), "--draws", str(args.draws)]
    with tempfile.TemporaryDirectory(prefix="gsal-sd21-", dir=args.folder) as folder:
        for part in ("build", *args.precision):
            subprocess.run([*again, "--part", part, folder], check=True)


if __name__ == "__main__":
    main()
