"""`gsal demo`."""

import argparse
from pathlib import Path
from typing import Any

from gsal_fo import config
from gsal_fo.commands import SEED, Result, whole
from gsal_fo.worker.bars import Bars


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "two rounds on a synthetic CT pool against random and entropy, with a report; then the App"
    demo = commands.add_parser("demo", parents=[shared], help=text, description=text)
    demo.add_argument("--out", type=Path, default=Path("gsal-demo"), help="results folder (default %(default)s)")
    demo.add_argument("--no-app", action="store_true", help="end after the results")
    demo.add_argument("--seed", type=SEED, default=0)
    demo.add_argument("--images", type=whole(20, 10**6), default=480, help="size of the pool (default %(default)s)")
    demo.add_argument("--budget", type=whole(1, 10**6), help="images per round (default: 5 %% of the pool)")
    demo.add_argument("--rounds", type=whole(1, 1000), default=2, help="default %(default)s")
    demo.add_argument(
        "--steps",
        type=whole(1, config.MOST_STEPS),
        default=200,
        help="training steps of the detector (default %(default)s)",
    )
    demo.add_argument("--port", type=whole(1, 65535), default=5151, help="port of the App (default %(default)s)")
    demo.set_defaults(run=run)


def run(args: argparse.Namespace) -> Result:
    from gsal_fo.fo.demo.demo import DemoConfig, open_app, run_demo, sentences

    names = ("out", "seed", "images", "budget", "rounds", "steps")
    config = DemoConfig(**{name: getattr(args, name) for name in names})
    with Bars() as bars:
        summary = run_demo(config, on_event=bars, say=bars.say)
    return Result(summary, sentences(summary, args.out), then=None if args.no_app else lambda: open_app(args.port))
