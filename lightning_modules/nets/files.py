"""Files of models: the packaged ones, JSON, safetensors, diffusers folders and hub ids; problems as sentences."""

import re
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gsal_fo import user_files
from lightning_modules.nets.base import EMBEDDED

HUB_FILES = [
    "*.json",
    "*/*.json",
    "features.safetensors",
    "*/diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "tokenizer/*",
]


def embedded_folder(kind: str) -> Path:
    """The packaged folder of ``kind`` ("clip" or "diffusion"); raises ValueError when the installation lacks it."""
    folder = Path(str(resources.files("gsal_fo"))) / "embedded" / kind
    if not folder.is_dir():
        raise ValueError(f"the embedded {kind} model is missing at {folder}; reinstall gsal-fo or name another model")
    return folder


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    if not path.is_file():
        raise ValueError(f"weights file {path} does not exist; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as f:
            about = f.metadata() or {}
        return load_file(path), about
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable safetensors file ({error}); download or export it again") from error


def folder_of(name: str) -> Path:
    if name == EMBEDDED:
        return embedded_folder("diffusion")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        raise ValueError(f'no diffusion model {name!r}: give "embedded", an existing folder, or a hub id "owner/name"')
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*.fp16.*", "safety_checker/*"]))
    except Exception as error:  # the hub raises what its HTTP back ends raise
        raise ValueError(
            f"diffusion model {name} is neither a folder nor reachable on the hub ({first_line(error)}); give a local "
            'folder, or leave the model at "embedded"'
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    values = user_files.read_json(path, "a model's settings")
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(values).__name__}; save the model again")
    return values


def from_folder(kind: Any, folder: Path, sub: str | None) -> Any:
    """``kind.from_pretrained`` on a local folder, safetensors only, float32."""
    where = folder / sub if sub else folder
    try:
        # Random initialization of what is then overwritten must leave no trace in the caller's generator.
        with torch.random.fork_rng(devices=[]):
            model = kind.from_pretrained(
                where,
                use_safetensors=True,
                local_files_only=True,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,  # said, so that diffusers does not print advice to install another package
            )
    except Exception as error:  # diffusers and transformers raise OSError, ValueError, RuntimeError and their own
        raise ValueError(
            f"{where}: no usable {kind.__name__} ({first_line(error)}); it needs config.json and safetensors weights"
        ) from error
    return model.float()


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
