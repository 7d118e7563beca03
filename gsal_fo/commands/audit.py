"""`gsal audit verify|report|accept`: prove that the picks of every round follow from what is stored, and show why."""

import argparse
from pathlib import Path
from typing import Any

from gsal_fo.commands import ROUND, Result

ALTERED = 3  # exit code; 1 is an error, 2 a wrong call


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    audit = commands.add_parser("audit", help="verify how batches were selected")
    actions = audit.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, text in (
        ("verify", verify, "recompute hashes and picks from the stored statistics; exit code 3 where one was altered"),
        (
            "report",
            report,
            "verify, and write a page that shows every pick and why it was picked",
        ),
        (
            "accept",
            accept,
            "take the rounds as the dataset has them now, and say so in the ledger: tags that somebody moved, a ledger "
            "that cannot be gone on with",
        ),
    ):
        sub = actions.add_parser(name, parents=[shared], help=text, description=text)
        sub.add_argument("--run-key", help="one scoring of the dataset")
        sub.set_defaults(run=run)
        needed = {} if name == "accept" else {"nargs": "?"}
        sub.add_argument("dataset", help="FiftyOne dataset; all its scorings", **needed)
        if name != "accept":
            sub.add_argument("--run-dir", type=Path, help="a run folder instead of a dataset; needs no database")
        if name == "report":
            sub.add_argument("--out", type=Path, default=Path("gsal-audit.html"), help="default %(default)s")
            sub.add_argument("--force", action="store_true", help="overwrite --out, whatever it holds")
            sub.add_argument("--round", type=ROUND, help="one round; default all")


def verify(args: argparse.Namespace) -> Result:
    return _result({str(run): problems for run, problems in _verified(args).items()})


def report(args: argparse.Namespace) -> Result:
    from gsal_fo.pages import audit_page, files

    files.check_new(args.out, force=args.force)  # refused here, not after the work
    found = _verified(args)
    if len(found) > 1:
        raise ValueError(
            f"selections were made from {len(found)} scorings, {', '.join(map(str, found))}; "
            "give --run-key gsal_score_NNN or --run-dir FOLDER"
        )
    (run, problems), tags = next(iter(found.items())), None
    if args.round is not None:
        tags = [f"gsal_round_{args.round:03d}"]
    picks = audit_page.write(args.out, run, problems, tags=tags, force=args.force)
    done = _result({str(run): problems})
    return Result(
        {**done.data, "out": str(args.out), "picks": picks}, f"{done.text}\n{args.out}: {picks} picks", done.code
    )


def accept(args: argparse.Namespace) -> Result:
    from gsal_fo.fo import auditing
    from gsal_fo.fo.console import open_samples
    from gsal_fo.worker.bars import Bars

    with Bars() as bars:
        done = auditing.accept(open_samples(args.dataset, None), run_key=args.run_key, on_event=bars)
    lines = [f"{run}: {said}" for run, said in done.items()] or ["nothing differs; nothing was written"]
    return Result({"accepted": {str(run): said for run, said in done.items()}}, "\n".join(lines))


def _verified(args: argparse.Namespace) -> dict[Path, list[str]]:
    """Run folder -> what was altered."""
    if (args.dataset is None) == (args.run_dir is None):
        raise ValueError("give a dataset or --run-dir, and not both")
    if args.run_dir is not None:
        from gsal_fo.audit.verify import verify as verify_run

        return {args.run_dir: verify_run(args.run_dir)}
    from gsal_fo.fo import auditing
    from gsal_fo.fo.console import open_samples

    return auditing.verify(open_samples(args.dataset, None), run_key=args.run_key)


def _result(found: dict[str, list[str]]) -> Result:
    lines = []
    for name, problems in found.items():
        lines.append(f"{name}: {'altered' if problems else 'as it was: hashes, files and picks agree'}")
        lines += [f"  {problem}" for problem in problems]
    altered = any(found.values())
    return Result({"altered": altered, "problems": found}, "\n".join(lines), code=ALTERED if altered else 0)
