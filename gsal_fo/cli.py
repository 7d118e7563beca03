"""The `gsal` command: one line per error, exit code 0 only on success, one JSON object with ``--json``."""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from gsal_fo import __version__
from gsal_fo.commands import Result, audit, demo, doctor, graph, handoff, loop, plugin, strategies

USAGE = """the loop, on a FiftyOne dataset:
  gsal score DATASET --concepts graph.yaml    rank the unlabeled images
  gsal select DATASET --budget 50             tag the next batch
  gsal export DATASET --out batch/            images and pre-labels for the labeling tool
  gsal ingest DATASET labels.json             labels back; then score again
  gsal status DATASET                         how far each round has come
"""


def parser() -> argparse.ArgumentParser:
    """All commands. Building it imports neither torch nor FiftyOne, so that ``--help`` is instant."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top = argparse.ArgumentParser(
        prog="gsal",
        description="Rank the unlabeled images of a detection dataset by difficulty and concept rarity (GSAL).",
        epilog=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"gsal-fo {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (demo, doctor, loop, strategies, handoff, graph, audit, plugin):
        module.add(commands, shared)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 1 (failed), 2 (usage), 130 (interrupted) or 143 (SIGTERM)."""
    args = parser().parse_args(argv)
    # FiftyOne's own bars go to stdout and would stand in the middle of --json; ours are on stderr.
    os.environ.setdefault("FIFTYONE_SHOW_PROGRESS_BARS", "false")
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result: Result = args.run(args)
        print(json.dumps(result.data, default=str) if args.json else result.text, flush=True)
        if result.then:
            result.then()
    except KeyboardInterrupt as stop:
        resumes = args.command in ("train", "fit", "score")
        how, code = ("ended by SIGTERM", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
        print(f"gsal: {how}" + "; the same command goes on from here" * resumes, file=sys.stderr)
        return code
    except Exception as error:
        if args.debug:
            raise
        print(f"gsal {args.command}: {_sentence(error)}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return result.code


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a command ends as by Ctrl-C, its worker with it."""


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


def _sentence(error: Exception) -> str:
    """One line for any error; an unexpected kind is named, since its text alone may say little."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | RuntimeError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text or 'no message'}; --debug shows where"


if __name__ == "__main__":
    sys.exit(main())
