"""Several ranks of a worker, or one to kill, forked as in ``tests/warm.py``.

``tests/fo/test_real_worker.py`` shows the same through ``python -m`` and torchrun.
"""

import signal
import socket
import time
from pathlib import Path

from tests.modules.helpers import environment
from tests.warm import Worker


def start(run: Path, *, module: str = "lightning_modules.score", log: str = "worker.log", **env: str) -> Worker:
    """A worker on a run folder, which gets its stderr as a file."""
    with (run / log).open("ab") as errors:
        return Worker(module, ["--run-dir", str(run)], {**environment(), **env}, errors.fileno())


def run_ranks(run: Path, *, processes: int = 2, module: str = "lightning_modules.score") -> None:
    """Run a worker to its end in several processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(processes):
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        env |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
        ranks.append(start(run, module=module, log=f"rank-{rank}.log", **{k: str(v) for k, v in env.items()}))
    said = []
    for rank, worker in enumerate(ranks):
        with worker.stdout:
            out = worker.stdout.read().decode()
        said.append(out + (run / f"rank-{rank}.log").read_text())
    assert [w.wait() for w in ranks] == [0] * processes, "\n".join(said)


def kill_at(run: Path, parts: Path, **env: str) -> None:
    """Start a worker and kill it as soon as ``parts`` holds one."""
    worker = start(run, **env)
    with worker.stdout:
        while worker.poll() is None and not list(parts.glob("part-*")):
            time.sleep(0.002)  # parts of one row are written within milliseconds of each other
        worker.send_signal(signal.SIGKILL)  # while its pipe is open: a closed one would end it in another way
        worker.wait()
