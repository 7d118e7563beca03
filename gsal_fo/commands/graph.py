"""`gsal concepts check|show`: look at a concept graph file."""

import argparse
from typing import Any

from gsal_fo.commands import Result


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    concepts = commands.add_parser("concepts", help="check or show a concept graph file")
    actions = concepts.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, text in (("check", check, "read the file, count its nodes"), ("show", show, "print it as a tree")):
        sub = actions.add_parser(name, parents=[shared], help=text, description=text)
        sub.add_argument("file", help="concept graph (YAML)")
        sub.set_defaults(run=run)


def check(args: argparse.Namespace) -> Result:
    from gsal_fo.concepts import ConceptGraph

    graph = ConceptGraph.load(args.file)
    data = {
        "file": args.file,
        "name": graph.name,
        "fine": len(graph.fine),
        "coarse": len(graph.coarse),
        "abstract": len(graph.abstract),
    }
    counts = f"{len(graph.fine)} labels in {len(graph.coarse)} families, {len(graph.abstract)} attributes"
    text = f"{args.file}: {graph.name} is in order: {counts}"
    return Result(data, text)


def show(args: argparse.Namespace) -> Result:
    from gsal_fo.concepts import ConceptGraph

    graph = ConceptGraph.load(args.file)
    families = {c: [f for f in graph.fine if graph.coarse_of(f) == c] for c in graph.coarse}
    lines = [graph.name]
    for family, members in families.items():
        lines.append(f"  {family}")
        for fine in members:
            attributes = ", ".join(graph.abstract_of(fine))
            prompts = "; ".join(graph.prompts(fine))
            lines.append(f"    {fine}" + (f" {{{attributes}}}" if attributes else "") + f'  "{prompts}"')
    nodes = {f: {"path": graph.path(f), "prompts": graph.prompts(f)} for f in graph.fine}
    return Result({"name": graph.name, "concepts": nodes, "background": graph.background}, "\n".join(lines))
