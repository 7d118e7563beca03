"""`gsal audit verify`: prove that the picks of every round follow from what is stored, or say what was altered."""

import argparse
from pathlib import Path
from typing import Any

from gsal_fo.commands import Result

ALTERED = 3  # exit code; 1 is an error, 2 a wrong call


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    audit = commands.add_parser("audit", help="verify how batches were selected")
    actions = audit.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "recompute hashes and picks from the stored statistics; exit code 3 where anything was altered"
    sub = actions.add_parser("verify", parents=[shared], help=text, description=text)
    sub.add_argument("dataset", nargs="?", help="FiftyOne dataset; all its scorings")
    sub.add_argument("--run-key", help="one scoring of the dataset")
    sub.add_argument("--run-dir", type=Path, help="a run folder instead of a dataset; needs no database")
    sub.set_defaults(run=verify)


def verify(args: argparse.Namespace) -> Result:
    if (args.dataset is None) == (args.run_dir is None):
        raise ValueError("give a dataset or --run-dir, and not both")
    if args.run_dir is not None:
        from gsal_fo.audit import verify as verify_run

        found = {str(args.run_dir): verify_run(args.run_dir)}
    else:
        from gsal_fo.fo import auditing
        from gsal_fo.fo.console import open_samples

        found = auditing.verify(open_samples(args.dataset, None), run_key=args.run_key)
    lines = []
    for name, problems in found.items():
        lines.append(f"{name}: {'altered' if problems else 'as it was: hashes, files and picks agree'}")
        lines += [f"  {problem}" for problem in problems]
    altered = any(found.values())
    return Result({"altered": altered, "problems": found}, "\n".join(lines), code=ALTERED if altered else 0)
