"""`gsal plugin install|path`: put the FiftyOne plugin that ships with the package where the App finds it."""

import argparse
import os
from pathlib import Path
from typing import Any

from gsal_fo.commands import Result

PACKAGE = Path(__file__).parents[1]


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    plugin = commands.add_parser("plugin", help="install the FiftyOne plugin, or print where it is")
    actions = plugin.add_subparsers(dest="action", required=True, metavar="ACTION")
    install = actions.add_parser("install", parents=[shared], help="link the plugin into FiftyOne's plugin folder")
    install.add_argument("--plugins-dir", type=Path, help="default: FiftyOne's own setting (FIFTYONE_PLUGINS_DIR)")
    install.set_defaults(run=run_install)
    actions.add_parser("path", parents=[shared], help="print the plugin's folder").set_defaults(run=run_path)


def folder() -> Path:
    """Where the plugin's files are: beside the package's modules in a wheel, ``plugins/gsal`` in a checkout."""
    for place in (PACKAGE / "_plugin", PACKAGE.parent / "plugins" / "gsal"):
        if (place / "fiftyone.yml").is_file():
            return place
    raise ValueError(f"the plugin's files are missing beside {PACKAGE}; install gsal-fo again")


def linked(plugins_dir: Path) -> Path | None:
    """The plugin's place in ``plugins_dir`` when it points at this installation, else None."""
    place = plugins_dir / "gsal"
    return place if place.exists() and place.resolve() == folder().resolve() else None


def install(plugins_dir: Path) -> Path:
    """Link the plugin into ``plugins_dir``; a link is replaced, anything that a person put there is refused."""
    place = plugins_dir / "gsal"
    if place.exists() and not place.is_symlink():
        raise ValueError(f"{place} exists and is no link of ours; move it away and run this again")
    plugins_dir.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".gsal.{os.getpid()}")
    fresh.symlink_to(folder().resolve(), target_is_directory=True)
    os.replace(fresh, place)
    return place


def run_install(args: argparse.Namespace) -> Result:
    from gsal_fo.fo.probe import plugins_dir

    place = install(args.plugins_dir or plugins_dir())
    return Result({"plugin": str(place), "points_at": str(folder())}, f"linked {place}; restart the App to see it")


def run_path(args: argparse.Namespace) -> Result:
    return Result({"plugin": str(folder())}, str(folder()))
