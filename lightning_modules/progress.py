"""How a worker tells what it does: JSON lines on stdout for a calling process, a rich bar for a person at a
terminal."""

import json
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

INTERVAL_S = 0.2  # at most five progress lines a second: a pipe that nobody drains quickly must not slow a GPU


class Reporter:
    """Writes the worker's events; only rank 0 speaks. Use as a context manager: it closes the bar."""

    def __init__(self, *, rank: int = 0, terminal: bool | None = None) -> None:
        self.silent = rank != 0
        self._bar: Progress | None = None
        if not self.silent and (sys.stdout.isatty() if terminal is None else terminal):
            columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}
        self._last = 0.0

    def __enter__(self) -> "Reporter":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def progress(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` items of a stage; calls in quick succession are thinned, the first and last never."""
        now = time.monotonic()
        if self.silent or (0 < done < total and now - self._last < INTERVAL_S):
            return
        self._last = now
        if self._bar:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=total)
            self._bar.update(self._tasks[stage], completed=done, total=total)
        else:
            self._say(event="progress", stage=stage, done=done, total=total)

    def stage(self, stage: str, seconds: float) -> None:
        """A stage ended after ``seconds``."""
        self._tell(f"{stage}: {seconds:.1f} s", event="stage", stage=stage, seconds=round(seconds, 3))

    def failed(self, sample_id: str, reason: str) -> None:
        """One image has no result."""
        self._tell(f"{sample_id}: {reason}", event="failed", id=sample_id, reason=reason)

    def note(self, message: str) -> None:
        """Something that the user should know and need not act on."""
        self._tell(message, event="note", message=message)

    def error(self, message: str) -> None:
        """Why the worker stops, in one sentence."""
        self._tell(f"error: {message}", event="error", message=message)

    def done(self, **facts: Any) -> None:
        """The worker ended well."""
        self._tell("done", event="done", **facts)

    def _tell(self, text: str, **event: Any) -> None:
        if self.silent:
            return
        if self._bar:
            self._bar.console.print(text, markup=False)
        else:
            self._say(**event)

    def _say(self, **event: Any) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
