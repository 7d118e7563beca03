"""The door between the adapter and the workers: a worker is a process that prints JSON lines, never an import."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from gsal_fo.settings import check_number

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
MOST_PROCESSES = max(16, os.cpu_count() or 1)
GRACE_S = 5.0  # torchrun needs a moment to end its own children after SIGTERM


class WorkerError(ValueError):
    """A worker process ended badly; the message says in one sentence why. ``details`` is the tail of its stderr."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def check_processes(processes: Any) -> None:
    """Raise ValueError unless so many worker processes may be started on this machine."""
    check_number("processes", processes, whole=True, low=1, high=MOST_PROCESSES)


def run_worker(
    module: str,
    args: Sequence[str],
    *,
    processes: int = 1,
    log: Path | None = None,
    keep_open: Sequence[int] = (),
) -> Generator[dict[str, Any], None, None]:
    """Start ``python -m module *args`` and yield its events (dicts with a key ``event``) as they come.

    Args:
        module: an importable module, such as ``lightning_modules.score``.
        args: its arguments.
        processes: more than 1 starts that many under torchrun on this machine.
        log: file that receives the worker's stderr; None keeps it only until the worker ends.
        keep_open: file descriptors that the worker inherits (a lock on its run folder lives as long as it does).

    Raises:
        WorkerError: the worker reported an error, exited with another code than 0, or was killed.

    Closing the generator, or an exception in the caller's loop, ends the worker and all its descendants.
    """
    check_processes(processes)
    launcher = [sys.executable, "-P", "-m"]  # -P: a file named like a library in the caller's folder is not imported
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    message = ""
    with log.open("a+b") if log else tempfile.TemporaryFile() as errors:
        start = errors.seek(0, os.SEEK_END)
        worker = _start([*launcher, module, *args], errors, keep_open)
        try:
            assert worker.stdout is not None
            for line in worker.stdout:
                if event := _event(line):
                    if event["event"] == "error":
                        message = str(event.get("message", ""))
                    yield event
            code = worker.wait()
        finally:
            _end(worker)
        if code != 0 or message:
            tail = _tail(errors, start)
            raise WorkerError(message or _why(module, code, tail), tail)


def _start(command: list[str], errors: IO[bytes], keep_open: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=_environment(),
        pass_fds=tuple(keep_open),
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the worker in order
    )


def _environment() -> dict[str, str]:
    env = dict(os.environ, PYTHONUNBUFFERED="1")
    # Threads that wait by spinning fight with whatever else runs: with one of two cores busy, training took 6 times as
    # long as with waiting threads asleep, and on an idle machine it is no faster.
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if PACKAGE_ROOT.name not in ("site-packages", "dist-packages"):  # a checkout: its workers are beside gsal_fo
        env["PYTHONPATH"] = os.pathsep.join([str(PACKAGE_ROOT), *filter(None, [env.get("PYTHONPATH")])])
    return env


def _event(line: bytes) -> dict[str, Any] | None:
    """The event of a line, or None: libraries print to stdout too."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("event"), str) else None


def _tail(stream: IO[bytes], start: int, size: int = 8000) -> str:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(start, end - size))
    return stream.read().decode("utf-8", "replace").strip()


def _why(module: str, code: int, tail: str) -> str:
    if code < 0:
        name = {s.value: s.name for s in signal.Signals}.get(-code, f"signal {-code}")
        hint = ", often a sign of too little memory" if -code == signal.SIGKILL else ""
        return f"the worker {module} was killed by {name}{hint}; run the same command again, it goes on from there"
    last = tail.splitlines()[-1].strip() if tail else "it printed nothing"
    return f"the worker {module} ended with code {code} ({last}); run the same command again once that is mended"


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and its descendants, children of torchrun in sessions of their own included."""
    try:
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    if worker.poll() is None:
        worker.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(GRACE_S)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()  # psutil checks the creation time: a reused process id is never hit
    worker.wait()
    if worker.stdout:
        worker.stdout.close()
