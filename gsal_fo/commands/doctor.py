"""`gsal doctor`."""

import argparse
from typing import Any

from gsal_fo.commands import Result


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "check Python, torch, mongod, FiftyOne, plugin, models, browser and disk, and say what to do about each"
    doctor = commands.add_parser("doctor", parents=[shared], help="check this installation", description=text)
    doctor.set_defaults(run=run)


def run(args: argparse.Namespace) -> Result:
    from gsal_fo.commands.checks import examine, report

    checks = examine()
    broken = [c.name for c in checks if c.state == "broken"]
    return Result({"checks": [vars(c) for c in checks], "broken": broken}, report(checks), code=1 if broken else 0)
