"""What every worker shares: arguments, ranks, a quiet Trainer, errors as one sentence."""

import argparse
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from gsal_fo.run_folder import shards
from gsal_fo.run_folder.shards import ShardError
from lightning_modules.progress import Reporter


def rank() -> int:
    """This process's rank among all that torchrun or Slurm started; 0 alone."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def world() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)


def trainer(*, precision: str = "32-true", **more: Any) -> pl.Trainer:
    """A Trainer over the processes that are there: one device each, DDP when there are several, no files, no bars."""
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or world())
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "strategy": "ddp" if world() > 1 else "auto",
    }
    return pl.Trainer(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(1, world() // local),
        precision=precision,  # type: ignore[arg-type]
        **{**quiet, "enable_checkpointing": False, **more},
    )


class Terminated(SystemExit):
    """SIGTERM came. A SystemExit, so that Lightning closes its loops and no ``except Exception`` keeps it."""


def _terminate(number: int, frame: Any) -> None:
    raise Terminated(128 + number)


def _sentence(error: BaseException) -> str:
    """An error's message in one line; of one that was raised in a loader process, without the traceback of there."""
    text = str(error).strip()
    if "in DataLoader worker process" in text:
        text = text.splitlines()[-1].partition(": ")[2] or text
    return " ".join(text.split()) or type(error).__name__


def main(kind: str, work: Callable[[Path, dict[str, Any], Reporter], dict[str, Any]], *, module: str) -> int:
    """A worker's command line; returns the exit code. ``work`` gets the run folder, its config and a reporter."""
    # Not `--run`: torchrun would take it for an abbreviation of an option of its own.
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument(
        "--run-dir", dest="run", type=Path, required=True, help="run folder with config.json and manifest.parquet"
    )
    parser.add_argument("--devices", type=int, default=1, help="processes on this machine, one device each")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    if args.devices > 1 and "RANK" not in os.environ:
        launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={args.devices}", "-m", module]
        os.execv(
            sys.executable, [sys.executable, "-m", *launch, "--run-dir", str(args.run), *["--debug"][: args.debug]]
        )
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    before = signal.signal(signal.SIGTERM, _terminate)
    started = time.monotonic()
    with Reporter(rank=rank()) as reporter:
        try:
            config = shards.run_facts(args.run, shards.CONFIG)
            shards.check_run(args.run)
            if config.get("kind") != kind:
                raise ShardError(
                    f"{args.run} is a run of kind {config.get('kind')!r}, not {kind!r}; give another folder"
                )
            facts = work(args.run, config, reporter)
            reporter.done(**facts, seconds=round(time.monotonic() - started, 3))
            return 0
        except Terminated as end:
            reporter.error("ended by SIGTERM; the same command goes on where it stopped")
            return int(end.code or 1)
        except (KeyboardInterrupt, SystemExit):  # Lightning makes the second of the first
            reporter.error("interrupted; the same command goes on where it stopped")
            return 130
        except Exception as error:
            # The one place that may catch all: a worker's caller reads a sentence, and --debug shows the rest.
            reporter.error(_sentence(error))
            if args.debug or not isinstance(error, ValueError):
                traceback.print_exc()
            return 1
        finally:
            signal.signal(signal.SIGTERM, before)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
