"""Worker processes forked from a server that holds the libraries: a start takes a tenth of a second, not ten seconds.

They are processes like any other, with ranks and signals of their own; ``tests/fo/test_real_worker.py`` shows the same
through ``python -m`` and torchrun.
"""

import json
import multiprocessing
import os
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.modules.helpers import run_here

FORKS = multiprocessing.get_context("forkserver")


def start(run: Path, *, module: str = "lightning_modules.score", out: Path | None = None, **env: str) -> BaseProcess:
    """A worker on a run folder; ``out`` receives its exit code, stdout and stderr as JSON when it ends by itself."""
    FORKS.set_forkserver_preload(["lightning_modules.score"])
    process = FORKS.Process(target=_work, args=(run, module, out, {"OMP_NUM_THREADS": "1", **env}))
    process.start()
    return process


def _work(run: Path, module: str, out: Path | None, env: dict[str, str]) -> None:
    os.environ.update(env)
    done = run_here(run, module=module)
    if out:
        out.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))


def run_ranks(run: Path, *, processes: int = 2, module: str = "lightning_modules.score") -> None:
    """Run a worker to its end in several processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        env |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
        out = run / f"rank-{rank}.json"
        started.append((out, start(run, module=module, out=out, **{k: str(v) for k, v in env.items()})))
    for _, process in started:
        process.join()
    ended = [json.loads(out.read_text()) if out.exists() else (p.exitcode, "", "") for out, p in started]
    assert [code for code, _, _ in ended] == [0] * processes, "\n".join(a + b for _, a, b in ended)
