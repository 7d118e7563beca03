"""Worker events as rich bars on stderr; as plain lines where stderr is no terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

STAGES = {
    "detect": "detector",
    "difficulty": "diffusion",
    "concepts": "concepts",
    "trial": "trying CLIP on labels",
    "assign": "assignment",
    "crops": "diffusion of crops",
    "train": "training the detector",
    "files": "reading the files",
    "fit": "fitting the diffusion model",
}


class Bars:
    """A context manager whose call takes one worker event (the ``on_event`` of ``gsal_fo.fo``)."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """One line above the bars."""
        self.progress.console.print(text, markup=False, soft_wrap=True)

    def __call__(self, event: dict[str, Any]) -> None:
        kind, stage = event.get("event"), str(event.get("stage", ""))
        name = STAGES.get(stage, stage)
        if kind == "progress":
            if stage not in self.tasks:
                self.tasks[stage] = self.progress.add_task(name, total=event["total"])
            self.progress.update(self.tasks[stage], completed=event["done"], total=event["total"])
        elif kind == "stage":
            # The next run of the same stage (a second round) gets a bar of its own.
            self.tasks.pop(stage, None)
            if not self.console.is_terminal:
                self.say(f"{name}: {event['seconds']:.1f} s")
        elif kind == "failed":
            self.say(f"left out {event['id']}: {event['reason']}")
        elif kind == "note":
            self.say(str(event["message"]))
