"""A setting is declared once: its default, what it means, its range or choices. Flags, forms, files and digests read
it from here."""

import dataclasses
import math
import types
from typing import Any, Union, get_args, get_origin, get_type_hints


def setting(
    default: Any,
    meaning: str,
    *,
    choices: tuple[Any, ...] = (),
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
) -> Any:
    """A dataclass field with all that is known about it.

    Args:
        default: its value where the user names none; None means "the model's own", and needs a type that allows None.
        meaning: one line of help, without the default.
        choices: the values it may have.
        low, high: the closed range of a number.
        unit: of a number, such as "px".
    """
    return dataclasses.field(
        default=default,
        metadata={"help": meaning, "choices": choices, "low": low, "high": high, "unit": unit},
    )


def check(settings: Any) -> None:
    """Raise ValueError with one sentence for the first field of a dataclass that is not what it was declared as."""
    hints = get_type_hints(type(settings))
    for f in dataclasses.fields(settings):
        if "choices" in f.metadata:
            _check(f.name, getattr(settings, f.name), hints[f.name], f.metadata)


def _check(name: str, value: Any, hint: Any, about: Any) -> None:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return
    if about["choices"]:
        if not any(value == c and type(value) is type(c) for c in about["choices"]):
            raise ValueError(f"{name} must be one of {', '.join(map(str, about['choices']))}; got {value!r}")
    elif bool in kinds:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false; got {value!r}")
    elif int in kinds or float in kinds:
        _check_number(name, value, whole=float not in kinds, low=about["low"], high=about["high"])
    elif str in kinds and not isinstance(value, str):
        raise ValueError(f"{name} must be text; got {value!r}")


def _check_number(name: str, value: Any, *, whole: bool, low: float | None, high: float | None) -> None:
    what = "a whole number" if whole else "a number"
    if low is not None and high is not None:
        what += f" in [{low:g}, {high:g}]"
    elif low is not None:
        what += f" of at least {low:g}"
    kind = int if whole else (int, float)
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{name} must be {what}; got {str(value)[:40]}")
