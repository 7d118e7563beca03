"""Commands that are killed at one of their writes, to see what the next one makes of it.

``python -m tests.mortal`` is a server that has imported the libraries, without a connection to the database, and forks
a process for each command: a fork takes a tenth of a second where a start takes five. The fork counts what it writes,
to the database (every writing command of the protocol) and to the disk (every file opened for writing, renamed,
removed), and ends itself by SIGKILL just before the n-th.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WRITES = ("insert", "update", "delete", "findAndModify", "create", "createIndexes", "drop", "dropIndexes", "collMod")
FILES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVERY = bool(os.environ.get("GSAL_EVERY_KILL"))  # all points, which takes minutes; else some of them


@dataclass(frozen=True)
class Ended:
    """How a command ended: ``killed`` at its point, or ``error``, a traceback; ``writes`` that it made, each named."""

    killed: bool
    error: str
    writes: list[str]


class Mortals:
    """The server, started once and ended with this process."""

    def __init__(self) -> None:
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.mortal"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=env
        )
        atexit.register(self._server.wait)
        atexit.register(self._server.kill)

    def run(self, code: str, *, at: int | None = None, env: dict[str, str] | None = None, wait: bool = True) -> Any:
        """Run Python code in a process of its own; ``at``: it is killed at that write, counted from 1.

        Without ``wait`` the answer is a pid, and `ended` gives what came of it.
        """
        asked = {"code": code, "at": at, "env": dict(os.environ) | (env or {})}
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked).encode() + b"\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        return self.ended(answer["report"], answer["pid"]) if wait else (answer["report"], answer["pid"])

    def ended(self, report: str, pid: int) -> Ended:
        """What came of a process, once it has ended."""
        path = Path(report)
        while not path.with_suffix(".end").exists():
            time.sleep(0.005)
        lines = path.read_text().splitlines() if path.exists() else []
        writes = [line for line in lines if not line.startswith("error ")]
        error = "".join(json.loads(line.removeprefix("error ")) for line in lines if line.startswith("error "))
        killed = path.with_suffix(".end").read_text() == str(-signal.SIGKILL)
        return Ended(killed, error, writes)


def on(name: str, command: str, prepare: str = "") -> str:
    """A command on a dataset, as code for `Mortals.run` that knows ``ds``, ``fo``, ``gfo`` and ``Path``; its writes are
    counted, those of ``prepare`` are not."""
    head = f"from pathlib import Path\nimport fiftyone as fo, gsal_fo.fo as gfo\nds = fo.load_dataset({name!r})\n"
    return f"{head}{prepare}\n# the command\n{command}\n"


def points(count: int, most: int) -> Sequence[int]:
    """Which of ``count`` writes to kill at: all, or ``most`` of them spread evenly, first and last included."""
    if EVERY or count <= most:
        return range(1, count + 1)
    return sorted({round(1 + k * (count - 1) / (most - 1)) for k in range(most)})


def serve() -> None:
    """Fork a process per line of stdin; a second fork waits for it, so that no request waits for another."""
    uri = os.environ.pop("FIFTYONE_DATABASE_URI")
    os.environ["FIFTYONE_DISABLE_SERVICES"] = "1"  # FiftyOne then connects to nothing, and a fork inherits no socket
    importlib.import_module("gsal_fo.fo")

    number = 0
    for line in sys.stdin.buffer:
        asked, number = json.loads(line), number + 1
        report = Path(os.environ["FIFTYONE_DATABASE_DIR"]).parent / f"mortal-{os.getpid()}-{number}.report"
        ours, theirs = os.pipe()
        if os.fork() == 0:
            pid = os.fork()
            if pid == 0:
                _live(asked, uri, report)
            os.write(theirs, str(pid).encode())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            (end := report.with_suffix(".tmp")).write_text(str(code))
            end.rename(report.with_suffix(".end"))
            os._exit(0)
        os.close(theirs)
        pid = int(os.read(ours, 20))
        os.close(ours)
        print(json.dumps({"report": str(report), "pid": pid}), flush=True)


def _live(asked: dict[str, Any], uri: str, report: Path) -> None:
    """The life of one command; does not return."""
    import fiftyone as fo
    import fiftyone.core.odm.database as database
    from pymongo import monitoring

    for number in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    os.environ.update(asked["env"])
    note = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    left = asked["at"]
    counting = False

    def write(what: str) -> None:
        nonlocal left
        if not counting:
            return
        if left is not None:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
        os.write(note, what.encode() + b"\n")

    class Listener(monitoring.CommandListener):
        def started(self, event: monitoring.CommandStartedEvent) -> None:
            name = event.command_name
            stages = [next(iter(s)) for s in event.command.get("pipeline", [])] if name == "aggregate" else []
            if name in WRITES or {"$merge", "$out"} & set(stages):
                write(f"{name} {event.command.get(name, '')}")

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

        def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    def file(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes) and not args[2] & WRITING:
            return
        if event in ("open", *FILES) and isinstance(args[0], str | bytes | os.PathLike):
            path = os.fsdecode(args[0])
            if path != os.devnull and "__pycache__" not in path:
                write(f"{event} {Path(path).name}")

    monitoring.register(Listener())
    sys.addaudithook(file)
    fo.config.database_uri = uri
    del os.environ["FIFTYONE_DISABLE_SERVICES"]
    database.establish_db_conn(fo.config)
    try:
        prepare, command = asked["code"].split("# the command\n")
        names: dict[str, Any] = {}
        exec(prepare, names)
        counting = True
        exec(command, names)
        counting = False
    except BaseException:
        counting = False
        os.write(note, b"error " + json.dumps(traceback.format_exc()).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    serve()
