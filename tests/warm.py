"""Workers forked from a server that has imported the libraries: a start takes a tenth of a second, not fifteen.

They are processes like any other, with sessions, signals and pipes of their own, and run the module that was asked for.
What starts them is all that differs; ``tests/fo/test_process.py``, ``test_real_worker.py``, ``tests/test_wheel.py`` and
the browser's round start them as a user's machine does.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import pytest

from gsal_fo.worker import process

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([f"lightning_modules.{name}" for name in ("score", "train", "fit_diffusion", "embed")])


class Worker:
    """``python -m module *args`` in a fork, with what is used of a ``subprocess.Popen``; ``stdout`` is its pipe."""

    def __init__(
        self, module: str, args: Sequence[str], env: Mapping[str, str], errors: int, keep_open: Sequence[int] = ()
    ) -> None:
        ours, theirs = FORKS.Pipe(duplex=False)
        handed = [theirs, *(Connection(os.dup(fd)) for fd in (errors, *keep_open))]
        self._process = FORKS.Process(target=_run, args=(module, list(args), dict(env), handed))
        self._process.start()
        for end in handed:
            end.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self.stdout: IO[bytes] = os.fdopen(os.dup(ours.fileno()), "rb")
        ours.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked worker", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()


def _run(module: str, args: list[str], env: dict[str, str], handed: list[Connection]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, end in ((1, handed[0]), (2, handed[1])):
        os.dup2(end.fileno(), number)
        end.close()
    sys.argv = [module, *args]
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115  lives as long as the fork
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _start(cold: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., Worker | subprocess.Popen[bytes]]:
    def start(command: list[str], errors: IO[bytes], keep_open: Sequence[int]) -> Worker | subprocess.Popen[bytes]:
        module, *args = command[command.index("-m") + 1 :]
        if not module.startswith("lightning_modules."):
            return cold(command, errors, keep_open)
        return Worker(module, args, process._environment(), errors.fileno(), keep_open)

    return start


@pytest.fixture(scope="module")
def warm():
    """Workers of this file's tests are forked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_start", _start(process._start))
        yield
