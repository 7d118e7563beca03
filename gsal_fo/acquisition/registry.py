"""All acquisition strategies by name: whatever class stands in a file of ``acquisition/strategies``."""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from gsal_fo.acquisition import strategies
from gsal_fo.acquisition.base import Strategy
from gsal_fo.config import GsalParams


@cache
def registered() -> Mapping[str, type[Strategy]]:
    """Name -> class of every strategy, by name."""
    found: dict[str, type[Strategy]] = {}
    for module in pkgutil.walk_packages(strategies.__path__, strategies.__name__ + "."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, Strategy) and not inspect.isabstract(kind) and kind.__module__ == module.name:
                if kind.name in found:
                    raise ValueError(f"two strategies are called {kind.name}: {found[kind.name]} and {kind}")
                found[kind.name] = kind
    return dict(sorted(found.items()))


def make(name: str, settings: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy of a name, with the settings that are named; ``field:NAME`` carries its argument behind a colon.

    Raises:
        ValueError: there is no such strategy or setting, or a value is out of its range.
    """
    base, _, argument = name.partition(":")
    known = registered()
    if base not in known:
        near = difflib.get_close_matches(base, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f'there is no strategy "{base[:40]}"{hint} `gsal strategies` lists them'.replace("  ", " "))
    kind, given = known[base], dict(settings or {})
    takes = kind.argument
    if takes and not argument and not given.get(takes):
        raise ValueError(f"strategy {base} needs a name behind a colon: {base}:NAME")
    if argument and not takes:
        raise ValueError(f"strategy {base} takes nothing behind a colon; got {name[:60]!r}")
    if takes and argument:
        given[takes] = argument
    if kind.Params is GsalParams:
        given["strategy"] = base
    names = [f.name for f in dataclasses.fields(kind.Params)]
    if strange := sorted(set(given) - set(names)):
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise ValueError(f"strategy {base} has no setting {strange[0]!r}; {has}")
    return kind(kind.Params(**given))


def of(params: GsalParams) -> Strategy:
    """The strategy that ``params.strategy`` names: GSAL and its switches take all the constants, any other strategy its
    own ``params.settings``."""
    base = params.strategy.partition(":")[0]
    known = registered()
    if base in known and known[base].Params is GsalParams:
        return known[base](params)
    return make(params.strategy, params.settings)
