"""What a result may depend on besides images, labels and settings: part of every record of a training or scoring."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from lightning_modules import worker

PACKAGES = (
    "gsal-fo",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "numpy",
    "pillow",
    "diffusers",
    "open-clip-torch",
    "timm",
)


def environment(*, threads: int | None = None, to_the_bit: bool = False) -> dict[str, Any]:
    """Plain values: processes, threads of each, processor and its instructions, versions.

    Args:
        threads: of each process; None: as many as torch uses.
        to_the_bit: whether, on a CPU, other numbers of threads and processes give the same bits. A GPU gives none such.
    """
    gpu = torch.cuda.is_available()
    return {
        "processes": worker.world(),
        "threads": threads or torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "repeats": "to the bit" if to_the_bit and not gpu else "to rounding",
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
