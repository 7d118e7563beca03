"""Putting the App's plugin where FiftyOne looks for plugins."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import fiftyone as fo
import fiftyone.plugins as fop

from gsal_fo import user_files

PACKAGE = Path(__file__).resolve().parents[2]
FOLDER = "gsal"
NAME = "@gsal/active-learning"
DEFINITION = "fiftyone.yml"
COPIED = ".copied.json"  # in a copy: digest of each file, by which a later call knows whether somebody has edited it
MOVE = "move it away and install again"


def source() -> Path:
    """The plugin's folder: the checkout's, or the copy that the wheel carries.

    Raises:
        ValueError: neither is there.
    """
    for folder in (PACKAGE.parent / "plugins" / FOLDER, PACKAGE / "_plugin"):
        if (folder / DEFINITION).is_file():
            return folder
    raise ValueError(f"the plugin is missing from {PACKAGE}; install gsal-fo again")


def install(target: str | Path | None = None) -> Path:
    """Link the plugin into FiftyOne's plugin folder, or copy it where the file system has no links.

    Args:
        target: the plugin folder; None is ``fiftyone.config.plugins_dir``.

    Returns:
        The installed folder. A link to the plugin, or an unedited copy that an earlier call made, is replaced; what a
        link points to is never touched.

    Raises:
        ValueError: something else is in the way, FiftyOne has the plugin already in another folder of its plugin
            folder, or the folder cannot be written.
    """
    place = Path(target).expanduser() if target is not None else Path(fo.config.plugins_dir)
    installed, origin = place / FOLDER, source()
    try:
        if _same(installed, origin):
            return installed
        if other := _elsewhere(place, installed):
            if _same(other, origin):
                return other
            raise ValueError(
                f'FiftyOne has the plugin already, in {other}; "fiftyone plugins delete {NAME}", or {MOVE}'
            )
        place.mkdir(parents=True, exist_ok=True)
        _clear(installed)
        try:
            installed.symlink_to(origin, target_is_directory=True)
        except OSError:
            _copy(origin, installed)
    except OSError as error:
        raise ValueError(f"cannot install the plugin into {place}: {error.strerror or error}") from error
    return installed


def is_installed() -> bool:
    """Whether FiftyOne finds the plugin, wherever it lies and however it came there."""
    return any(found.name == NAME for found in fop.list_plugins())


def _same(folder: Path, origin: Path) -> bool:
    """Whether both are one folder: FiftyOne's plugin folder may be the checkout's own."""
    return folder.exists() and folder.samefile(origin)


def _elsewhere(place: Path, installed: Path) -> Path | None:
    """The plugin in another folder of FiftyOne's, which would hide the one that is installed, or be hidden by it."""
    if place.absolute() != Path(fo.config.plugins_dir).expanduser().absolute():
        return None
    found = [Path(p.directory) for p in fop.list_plugins(enabled="all", builtin=False) if p.name == NAME]
    return next((folder for folder in found if folder.absolute() != installed.absolute()), None)


def _clear(installed: Path) -> None:
    """Make room where what is there is ours alone; raises ValueError otherwise."""
    if installed.is_symlink():
        goes_to = installed.readlink()
        gone = not installed.exists() and goes_to.parts[-2:] in (("plugins", FOLDER), ("gsal_fo", "_plugin"))
        if not gone and not _is_plugin(installed):
            raise ValueError(f"{installed} is a link to {goes_to}, which is not this plugin; {MOVE}")
        installed.unlink()
    elif installed.exists():
        if not _is_plugin(installed):
            raise ValueError(f"{installed} is another plugin or file; {MOVE}")
        if edited := _edited(installed):
            raise ValueError(f"{installed} is a copy of the plugin with files of somebody's, such as {edited}; {MOVE}")
        shutil.rmtree(installed)


def _is_plugin(folder: Path) -> bool:
    """Whether the folder's definition names this plugin, and not one whose name begins so."""
    try:
        found = user_files.read_yaml(folder / DEFINITION, "a plugin's definition")
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("name") == NAME


def _copy(origin: Path, installed: Path) -> None:
    """Copy whole or not at all; FiftyOne passes over folders whose names begin with a dot."""
    temporary = installed.with_name(f".{installed.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(origin, temporary, ignore=shutil.ignore_patterns("__pycache__"))
        (temporary / COPIED).write_text(json.dumps(_digests(temporary)), encoding="utf-8")
        os.replace(temporary, installed)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _edited(copy: Path) -> str | None:
    """A file of a copy that no call of `install` has put there as it is; None where there is none."""
    try:
        made = json.loads((copy / COPIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = _digests(source())  # a copy of before it was noted, perhaps of this very version
    made = made if isinstance(made, dict) else {}
    return next((name for name, digest in _digests(copy).items() if made.get(name) != digest), None)


def _digests(folder: Path) -> dict[str, str]:
    """File -> digest of its content; what Python and this module leave is passed over."""
    files = (p for p in sorted(folder.rglob("*")) if not p.is_dir() and p.suffix != ".pyc" and p.name != COPIED)
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
