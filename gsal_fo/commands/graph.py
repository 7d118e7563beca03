"""`gsal concepts check|show|build`: look at a concept graph file, or draft one."""

import argparse
from pathlib import Path
from typing import Any

from gsal_fo.commands import Result, graph_build


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    concepts = commands.add_parser("concepts", help="check, show or build a concept graph file")
    actions = concepts.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, text in (("check", check, "read the file, count its nodes"), ("show", show, "print it as a tree")):
        sub = actions.add_parser(name, parents=[shared], help=text, description=text)
        sub.add_argument("file", help="concept graph (YAML)")
        sub.set_defaults(run=run)
        if name == "show":
            sub.add_argument("--html", type=Path, metavar="FILE", help="draw it into an HTML file instead")
            sub.add_argument("--force", action="store_true", help="overwrite --html")
            sub.add_argument("--counts", type=Path, metavar="JSON", help="COCO file, or {label: count}: colors --html")
    graph_build.add(actions, shared)


def check(args: argparse.Namespace) -> Result:
    from gsal_fo.concepts.graph import ConceptGraph

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
    from gsal_fo.concepts.graph import ConceptGraph

    graph = ConceptGraph.load(args.file)
    if args.counts and not args.html:
        raise ValueError("--counts colors the picture of --html FILE; give both")
    if args.html:
        from gsal_fo.pages import graph_page

        counts = graph_page.read_counts(args.counts) if args.counts else None
        out = graph_page.write(graph, args.html, counts, force=args.force)
        outside = sorted(set(counts or {}) - set(graph.fine))
        note = f"; not in the graph and not counted: {', '.join(outside)}" if outside else ""
        return Result({"html": str(out), "outside": outside}, f"{graph.name} drawn into {out}{note}")
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
