"""Passing a worker's events on: to the caller's listener, to bars where a person watches, or to nobody."""

import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

from gsal_fo.worker.bars import Bars

Event = dict[str, Any]
OnEvent = Callable[[Event], None]
Events = Generator[Event, None, None]


def listener(on_event: OnEvent | None) -> AbstractContextManager[OnEvent]:
    """``on_event`` itself; where it is None, bars on a terminal's stderr, or a listener that does nothing."""
    if on_event is not None:
        return nullcontext(on_event)
    return Bars() if sys.stderr.isatty() else nullcontext(lambda event: None)


def consume(events: Events, on_event: OnEvent | None) -> Event:
    """Pass all events on and return the last; where the listener fails, the worker behind the events is ended."""
    last: Event = {}
    with closing(events), listener(on_event) as tell:
        for last in events:
            tell(last)
    return last
