"""Programs of other ecosystems, each in a virtual environment of its own: their pins and ours exclude each other."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python_of(name: str) -> Path:
    """The interpreter of ``.venv-NAME``; skips the test where it is missing, and fails it in CI, which has made it."""
    folder = Path(os.environ.get(f"GSAL_VENV_{name.upper()}") or ROOT / f".venv-{name}")
    python = folder / "bin" / "python"
    if not (folder / ".ready").is_file():
        reason = f"{folder.name} is not installed; `make {name}` makes it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python


def run(command: Sequence[object]) -> str:
    """What a program prints; its last words where it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
