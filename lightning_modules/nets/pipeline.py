"""Parts of a diffusers folder besides the autoencoder: U-Net, schedule, empty prompt."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.nets.files import first_line, from_folder, read_json, read_safetensors


def load_unet(folder: Path) -> Any:
    import diffusers

    sub = "unet" if (folder / "unet").is_dir() else None
    config = folder / (sub or "") / "config.json"
    if not config.is_file():
        raise ValueError(
            f"{folder} is no diffusers folder: it has no unet/config.json; give a folder saved by diffusers"
        )
    name = read_json(config).get("_class_name", "UNet2DModel")
    if name not in ("UNet2DModel", "UNet2DConditionModel"):
        raise ValueError(f"{config}: the denoiser must be a UNet2DModel or UNet2DConditionModel; got {name}")
    return from_folder(getattr(diffusers, name), folder, sub)


def load_schedule(folder: Path) -> tuple[Tensor, str, float | None]:
    """``alphas_cumprod``, the prediction type, and the range that clean predictions are clipped to, if any."""
    from diffusers import DDPMScheduler

    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        path = folder / "scheduler_config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no scheduler/scheduler_config.json; save the model with its scheduler")
    config = read_json(path)
    if "beta_schedule" not in config and "beta_start" not in config and "trained_betas" not in config:
        raise ValueError(
            f"{path}: {config.get('_class_name')} has no betas; only DDPM-like schedules have a clean prediction"
        )
    if config.get("thresholding"):
        raise ValueError(
            f"{path}: dynamic thresholding makes a prediction depend on its batch; set thresholding to false"
        )
    # The betas, not the sampler, are needed: any DDPM-like scheduler's file describes them in the same words.
    known = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    scheduler = DDPMScheduler(**{k: config[k] for k in known if config.get(k) is not None})
    clips = bool(config.get("clip_sample", config.get("_class_name") == "DDPMScheduler"))
    clip_range = float(config.get("clip_sample_range") or 1.0) if clips else None
    return scheduler.alphas_cumprod, str(config.get("prediction_type", "epsilon")), clip_range


@torch.no_grad()
def empty_prompt(folder: Path) -> Tensor:
    """The empty prompt's embedding (1, L, D), from the folder's own text encoder, which is then dropped."""
    saved = folder / "empty_prompt.safetensors"
    if saved.is_file():
        return read_safetensors(saved)[0]["prompt"].float()
    if not (folder / "text_encoder").is_dir() or not (folder / "tokenizer").is_dir():
        raise ValueError(f"{folder}: a conditional U-Net needs text_encoder/ and tokenizer/ for its empty prompt")
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except Exception as error:
        raise ValueError(f"{folder}/tokenizer: no usable CLIPTokenizer ({first_line(error)}); save it again") from error
    encoder = from_folder(CLIPTextModel, folder, "text_encoder").eval()
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    ids = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return encoder(ids)[0].float()
