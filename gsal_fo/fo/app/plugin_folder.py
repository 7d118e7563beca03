"""Putting the App's plugin where FiftyOne looks for plugins."""

import shutil
from pathlib import Path

import fiftyone as fo
import fiftyone.plugins as fop

PACKAGE = Path(__file__).resolve().parents[2]
FOLDER = "gsal"
NAME = "@gsal/active-learning"


def source() -> Path:
    """The plugin's folder: the checkout's, or the copy that the wheel carries.

    Raises:
        ValueError: neither is there.
    """
    for folder in (PACKAGE.parent / "plugins" / FOLDER, PACKAGE / "_plugin"):
        if (folder / "fiftyone.yml").is_file():
            return folder
    raise ValueError(f"the plugin is missing from {PACKAGE}; install gsal-fo again")


def install(target: str | Path | None = None) -> Path:
    """Link the plugin into FiftyOne's plugin folder, or copy it where the file system has no links.

    Args:
        target: the plugin folder; None is ``fiftyone.config.plugins_dir``.

    Returns:
        The installed folder. A copy or link that an earlier call made is replaced.

    Raises:
        ValueError: something else is in the way, or the folder cannot be written.
    """
    place = Path(target).expanduser() if target is not None else Path(fo.config.plugins_dir)
    installed, origin = place / FOLDER, source()
    try:
        place.mkdir(parents=True, exist_ok=True)
        if installed.exists() and not _is_ours(installed):
            raise ValueError(f"{installed} is another plugin or file; move it away and install again")
        if installed.is_symlink():  # one whose target has gone included
            installed.unlink()
        elif installed.exists():
            shutil.rmtree(installed)
        try:
            installed.symlink_to(origin, target_is_directory=True)
        except OSError:
            shutil.copytree(origin, installed, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise ValueError(f"cannot install the plugin into {place}: {error.strerror or error}") from error
    return installed


def is_installed() -> bool:
    """Whether FiftyOne finds the plugin, wherever it lies and however it came there."""
    return any(found.name == NAME for found in fop.list_plugins())


def _is_ours(folder: Path) -> bool:
    definition = folder / "fiftyone.yml"
    return definition.is_file() and NAME in definition.read_text(encoding="utf-8")
