"""`gsal doctor`."""

import argparse
from typing import Any

from gsal_fo.commands import Result


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = (
        "check Python, torch, mongod, FiftyOne, plugin, models, browser and disk, and say what to do about each; with "
        "a dataset: find what killed commands of this or older versions have left in it, and mend that"
    )
    doctor = commands.add_parser(
        "doctor", parents=[shared], help="check this installation, or a dataset", description=text
    )
    doctor.add_argument("dataset", nargs="?", help="FiftyOne dataset to examine instead of the installation")
    doctor.add_argument("--mend", action="store_true", help="mend what is found in the dataset; labels never change")
    doctor.set_defaults(run=run)


def run(args: argparse.Namespace) -> Result:
    if args.dataset is not None:
        return _dataset(args)
    if args.mend:
        raise ValueError("--mend needs a dataset: gsal doctor DATASET --mend")
    from gsal_fo.commands.checks import examine, report

    checks = examine()
    broken = [c.name for c in checks if c.state == "broken"]
    return Result({"checks": [vars(c) for c in checks], "broken": broken}, report(checks), code=1 if broken else 0)


def _dataset(args: argparse.Namespace) -> Result:
    from gsal_fo.fo import healing
    from gsal_fo.fo.console import open_samples
    from gsal_fo.worker.bars import Bars

    dataset = open_samples(args.dataset)
    with Bars() as bars:
        found = healing.mend(dataset, on_event=bars) if args.mend else healing.examine(dataset)
    left = [f for f in found if not f.mended]
    lines = []
    for f in found:
        lines.append(f"{'mended' if f.mended else '!!'}  {f.kind}: {f.detail}")
        lines.append(f"    -> {f.cure}")
    if left and any(f.mendable for f in left):
        lines.append(f"mend it: gsal doctor {args.dataset} --mend")
    data = {"dataset": args.dataset, "findings": [f.to_dict() for f in found], "left": len(left)}
    return Result(data, "\n".join(lines) or f"{args.dataset}: nothing is left half done", code=1 if left else 0)
