"""`gsal plugin install|path`: put the FiftyOne plugin that ships with the package where the App finds it."""

import argparse
from pathlib import Path
from typing import Any

from gsal_fo.commands import Result


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    plugin_folder = commands.add_parser("plugin", help="install the FiftyOne plugin, or print where it is")
    actions = plugin_folder.add_subparsers(dest="action", required=True, metavar="ACTION")
    install = actions.add_parser("install", parents=[shared], help="link the plugin into FiftyOne's plugin folder")
    install.add_argument("--plugins-dir", type=Path, help="default: FiftyOne's own setting (FIFTYONE_PLUGINS_DIR)")
    install.set_defaults(run=run_install)
    actions.add_parser("path", parents=[shared], help="print the plugin's folder").set_defaults(run=run_path)


def run_install(args: argparse.Namespace) -> Result:
    from gsal_fo.fo.app import plugin_folder

    place = plugin_folder.install(args.plugins_dir)
    return Result(
        {"plugin": str(place), "source": str(plugin_folder.source())}, f"{place} is in place; restart the App to see it"
    )


def run_path(args: argparse.Namespace) -> Result:
    from gsal_fo.fo.app import plugin_folder

    return Result({"source": str(plugin_folder.source())}, str(plugin_folder.source()))
