"""One module per group of `gsal` commands: ``add`` declares arguments, the rest runs them and imports what it needs."""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Result:
    """What a command ends with: ``data`` for ``--json``, ``text`` for a person, the exit code, what runs next."""

    data: dict[str, Any]
    text: str
    code: int = 0
    then: Callable[[], None] | None = None


def add_settings(parser: argparse.ArgumentParser, kind: type, title: str, *, skip: tuple[str, ...] = ()) -> None:
    """One flag per field of a config dataclass; only those that the user gives reach ``given``."""
    group = parser.add_argument_group(title)
    hints = get_type_hints(kind)
    for f in dataclasses.fields(kind):
        if f.name in skip:
            continue
        options = [t for t in getattr(hints[f.name], "__args__", (hints[f.name],)) if t is not type(None)]
        default = f.metadata.get("default", "the model's own") if f.default is None else f.default
        group.add_argument(
            "--" + f.name.replace("_", "-"),
            type=options[0],
            metavar=options[0].__name__.upper(),
            default=argparse.SUPPRESS,
            help=f"{f.metadata.get('help', '')} (default {default})".lstrip().replace("%", "%%"),
        )


def given(args: argparse.Namespace, kind: type, *, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of ``kind`` that the user gave on the command line."""
    names = {f.name for f in dataclasses.fields(kind)} - set(skip)
    return {k: v for k, v in vars(args).items() if k in names}
