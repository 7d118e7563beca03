"""One module per group of `gsal` commands: ``add`` declares arguments, the rest runs them and imports what it needs."""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from gsal_fo import config
from gsal_fo.settings import check_number
from gsal_fo.worker.process import MOST_PROCESSES


@dataclass(frozen=True)
class Result:
    """What a command ends with: ``data`` for ``--json``, ``text`` for a person, the exit code, what runs next."""

    data: dict[str, Any]
    text: str
    code: int = 0
    then: Callable[[], None] | None = None


def whole(low: int, high: int) -> Callable[[str], int]:
    """Reads a flag's whole number in [low, high]; anything else is a usage error of one sentence."""
    return _reader(int, low, high)


def number(low: float, high: float) -> Callable[[str], float]:
    """Reads a flag's number in [low, high]."""
    return _reader(float, low, high)


def _reader(kind: type, low: float | None, high: float | None) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text
        try:
            check_number("it", value, whole=kind is int, low=low, high=high)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return read


SEED = whole(0, config.MOST_SEED)
PROCESSES = whole(1, MOST_PROCESSES)
ROUND = whole(1, 10**6)


def add_settings(parser: argparse.ArgumentParser, kind: type, title: str, *, skip: tuple[str, ...] = ()) -> None:
    """One flag per field of a config dataclass; only those that the user gives reach ``given``."""
    group = parser.add_argument_group(title)
    hints = get_type_hints(kind)
    for f in dataclasses.fields(kind):
        if f.name in skip:
            continue
        options = [t for t in getattr(hints[f.name], "__args__", (hints[f.name],)) if t is not type(None)]
        default = f.metadata.get("default", "the model's own") if f.default is None else f.default
        low, high, choices = (f.metadata.get(k) for k in ("low", "high", "choices"))
        said = [f.metadata.get("help", ""), f"one of {', '.join(map(str, choices))}" if choices else ""]
        group.add_argument(
            "--" + f.name.replace("_", "-"),
            type=_reader(options[0], low, high) if options[0] in (int, float) else options[0],
            metavar=options[0].__name__.upper(),
            default=argparse.SUPPRESS,
            help=f"{': '.join(filter(None, said))} (default {default})".lstrip().replace("%", "%%"),
        )


def add_samples(parser: argparse.ArgumentParser, *, view: bool = True, slice: bool = True) -> None:
    """The dataset and which of its images; `samples_of` opens them."""
    parser.add_argument("dataset", help="FiftyOne dataset")
    if view:
        parser.add_argument("--view", help="saved view to work on instead of the whole dataset")
    if slice:
        parser.add_argument("--slice", metavar="NAME", help="slice of a grouped dataset")


def samples_of(args: argparse.Namespace) -> Any:
    """The dataset, saved view or slice that a command names; raises ValueError where there is none."""
    from gsal_fo.fo.console import open_samples

    return open_samples(args.dataset, getattr(args, "view", None), getattr(args, "slice", None))


def given(args: argparse.Namespace, kind: type, *, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of ``kind`` that the user gave on the command line."""
    names = {f.name for f in dataclasses.fields(kind)} - set(skip)
    return {k: v for k, v in vars(args).items() if k in names}
