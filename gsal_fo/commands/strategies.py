"""`gsal strategies`: what can rank a pool, what each needs and costs, and where it comes from."""

import argparse
import dataclasses
from typing import Any

from gsal_fo.commands import Result


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "list the acquisition strategies: paper, needs, cost and settings"
    sub = commands.add_parser("strategies", parents=[shared], help=text, description=text)
    sub.add_argument("name", nargs="?", help="one strategy alone")
    sub.set_defaults(run=run)


def run(args: argparse.Namespace) -> Result:
    from gsal_fo.acquisition import registry

    known = {name: kind for name, kind in registry.registered().items() if not kind.hidden}
    if args.name:
        registry.make(args.name if not known.get(args.name, registry.Strategy).argument else f"{args.name}:NAME")
        known = {args.name: known[args.name]}
    data = [_about(name, kind) for name, kind in known.items()]
    return Result({"strategies": data}, "\n".join(_lines(d) for d in data))


def _about(name: str, kind: Any) -> dict[str, Any]:
    from gsal_fo.config import GsalParams

    own = [] if kind.Params is GsalParams else dataclasses.fields(kind.Params)
    return {
        "name": f"{name}:NAME" if kind.argument else name,
        "title": kind.title,
        "what": " ".join((kind.__doc__ or "").split()),
        "paper": kind.paper,
        "needs": sorted(s.value for s in kind.needs),
        "cost": kind.cost,
        "settings": {
            f.name: {"default": f.default, "help": f.metadata.get("help", "")} for f in own if f.name != kind.argument
        },
    }


def _lines(about: dict[str, Any]) -> str:
    lines = [f"{about['name']}: {about['title']}", f"    {about['what']}"]
    lines += [f"    paper: {about['paper']}"] if about["paper"] else []
    needs = ", ".join(n.replace("_", " ") for n in about["needs"]) or "nothing"
    lines.append(f"    needs: {needs}; costs: {about['cost']}")
    lines += [f"    --setting {n}={s['default']}: {s['help']}" for n, s in about["settings"].items()]
    return "\n".join(lines)
