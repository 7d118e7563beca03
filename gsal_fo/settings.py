"""A setting is declared once: its default, what it means, its range or choices. Flags, forms, files and digests read
it from here."""

import dataclasses
import math
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

from gsal_fo import user_files


def setting(
    default: Any,
    meaning: str,
    *,
    choices: tuple[Any, ...] = (),
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    shown: str = "",
) -> Any:
    """A dataclass field with all that is known about it.

    Args:
        default: its value where the user names none; None means "the model's own", and needs a type that allows None.
        meaning: one line of help, without the default.
        choices: the values it may have.
        low, high: the closed range of a number.
        unit: of a number, such as "px".
        shown: what help says of a default of None, in place of "the model's own".
    """
    about = {"help": meaning, "choices": choices, "low": low, "high": high, "unit": unit}
    return dataclasses.field(default=default, metadata={**about, **({"default": shown} if shown else {})})


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
            known = ", ".join(map(str, about["choices"]))
            raise ValueError(f"{name} must be one of {known}; got {user_files.shown(value)}")
    elif bool in kinds:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false; got {user_files.shown(value)}")
    elif int in kinds or float in kinds:
        check_number(name, value, whole=float not in kinds, low=about["low"], high=about["high"])
    elif str in kinds and not (isinstance(value, str) and not user_files.unprintable(value)):
        raise ValueError(f"{name} must be text on one line; got {user_files.shown(value)}")


def check_number(
    name: str, value: Any, *, whole: bool = False, low: float | None = None, high: float | None = None
) -> None:
    """Raise ValueError unless ``value`` is a number, a whole one where asked, in the closed range. An infinite one is
    none unless ``high`` is infinite."""
    what = "a whole number" if whole else "a number"
    if low is not None and high is not None and math.isfinite(high):
        what += f" in [{low:,.10g}, {high:,.10g}]"
    elif low is not None:
        what += f" of at least {low:,.10g}"
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if fits and not isinstance(value, int):
        fits = math.isfinite(value) or value == high
    if not fits or (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{name} must be {what}; got {user_files.shown(value)}")
