"""What a person sees while a worker runs: rich bars on stderr, or nothing where no person watches."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Event = dict[str, Any]
OnEvent = Callable[[Event], None]
Events = Generator[Event, None, None]


@contextmanager
def listener(on_event: OnEvent | None) -> Iterator[OnEvent]:
    """``on_event`` itself; where it is None, bars on a terminal's stderr, or a listener that does nothing."""
    if on_event is not None:
        yield on_event
    elif not sys.stderr.isatty():
        yield lambda event: None
    else:
        columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bars:
            yield _Bars(bars)


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self.bars, self.tasks = bars, dict[str, TaskID]()

    def __call__(self, event: Event) -> None:
        if event["event"] == "progress":
            stage = event["stage"]
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, total=event["total"])
            self.bars.update(self.tasks[stage], completed=event["done"], total=event["total"])
        elif event["event"] == "note":
            self.bars.console.print(event["message"], markup=False)
        elif event["event"] == "failed":
            self.bars.console.print(f"no score for {event['id']}: {event['reason']}", markup=False)


def consume(events: Events, on_event: OnEvent | None) -> Event:
    """Pass all events on and return the last; where the listener fails, the worker behind the events is ended."""
    last: Event = {}
    with closing(events), listener(on_event) as tell:
        for last in events:
            tell(last)
    return last
