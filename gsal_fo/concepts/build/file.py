"""Concept graph files that a person edits: labels in, commented YAML out, never over somebody's work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.user_files import MOST_YAML, compose_yaml, one_line, parse_yaml, read_json, read_text, shown, unprintable


def read_labels(path: Path) -> list[str]:
    """Label names, sorted: of a COCO file (``categories``), or of a text file with one name per line (# comments).

    Raises ValueError naming the file where it is neither."""
    expected = "expected a COCO file (JSON with categories), or a text file with one label per line"
    if path.suffix.lower() == ".json":
        categories = read_json(path, "the labels")
        categories = categories.get("categories") if isinstance(categories, Mapping) else None
        if not isinstance(categories, list) or not all(isinstance(c, Mapping) and "name" in c for c in categories):
            raise ValueError(f"{path}: {expected}; it has no list of categories with names")
        names = [c["name"] for c in categories]
    else:
        lines = (line.strip() for line in read_text(path, "the labels", most=MOST_YAML).splitlines())
        names = [line for line in lines if line and not line.startswith("#")]
    return checked_labels(names, str(path))


def checked_labels(names: Sequence[Any], source: str) -> list[str]:
    """The names, sorted and once each; raises ValueError where there is none or one is no one-line text."""
    if bad := [n for n in names if not isinstance(n, str) or not n.strip() or unprintable(n)]:
        raise ValueError(f"{source}: a label is no plain one-line text: {shown(bad[0])}; rename it")
    if not names:
        raise ValueError(f"{source}: holds no label; give one name per line, or a COCO file with categories")
    return sorted({n.strip() for n in names})


def render(values: Mapping[str, Any], *, header: Sequence[str], comments: Mapping[str, str]) -> str:
    """A graph as YAML: ``header`` lines on top, labels grouped by family, each family with its comment."""
    lines = [f"# {line}" for line in header]
    lines.append(f"name: {_flow(values['name'])}")
    for key in ("templates", "background"):
        if values.get(key):
            lines += [f"{key}:", *(f"  - {_flow(v)}" for v in values[key])]
    lines.append("concepts:")
    family = None
    for label, node in sorted(values["concepts"].items(), key=lambda item: (item[1]["coarse"], item[0])):
        if node["coarse"] != family:
            family = node["coarse"]
            lines.append(f"  # {one_line(family)}: {one_line(comments.get(family, 'family'))}")
        lines += entry(label, node)
    text = "\n".join(lines) + "\n"
    if parse_yaml(text, "the graph", numbers=False) != _plain(values):
        raise ValueError(f"the graph {shown(values['name'])} has names that YAML cannot keep; rename them")
    return text


def entry(label: str, node: Mapping[str, Any], indent: str = "  ") -> list[str]:
    """The lines of one label under ``concepts:``."""
    out = [f"{indent}{_flow(label)}:", f"{indent}  coarse: {_flow(node['coarse'])}"]
    out += [f"{indent}  {key}: {_flow(list(node[key]))}" for key in ("abstract", "prompts") if node.get(key)]
    return out


def append(text: str, nodes: Mapping[str, tuple[Mapping[str, Any], str]], *, source: str) -> str:
    """A graph file's text with more labels at the end of its ``concepts:``, each after a comment.

    Every line that was there stays as it is. ``nodes``: label -> (node, comment).

    Raises:
        ValueError: the file's concepts are written in one line with braces.
    """
    check(text, Path(source))  # within bounds and a graph, before it is taken apart
    root = compose_yaml(text, source)
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    concepts = next((v for k, v in entries if k.value == "concepts"), None)
    if not isinstance(concepts, yaml.MappingNode):
        raise ValueError(f"{source}: concepts are merged in by `<<`; write them under `concepts:`, then add")
    if concepts.flow_style or not concepts.value:
        raise ValueError(f"{source}: concepts stand in braces; write one label per line under `concepts:`, then add")
    indent = " " * concepts.value[0][0].start_mark.column
    lines = text.splitlines()
    last = concepts.value[-1][1].end_mark
    # A block's end mark stands at the next token, beyond blank lines and comments: go back to the last line of it.
    at = last.line + (1 if last.column and last.line < len(lines) else 0)
    while at and (not lines[at - 1].strip() or lines[at - 1].lstrip().startswith("#")):
        at -= 1
    new: list[str] = []
    for label, (node, comment) in nodes.items():
        new += [f"{indent}# {one_line(comment)}", *entry(label, node, indent)]
    return "\n".join([*lines[:at], *new, *lines[at:]]) + "\n"


def check(text: str, path: Path) -> ConceptGraph:
    """The graph that this text will be, by the graph's own checks; ``path`` names it in errors."""
    return ConceptGraph.parse(text, source=str(path))


def write(text: str, path: Path, *, force: bool = False) -> bool:
    """Write a graph file; returns False where the file holds this text already.

    Raises:
        ValueError: the text is no graph, the folder does not exist, or the file holds something else and ``force`` is
            off.
    """
    check(text, path)
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; create it or choose another file")
    if path.exists():
        if not path.is_file():
            raise ValueError(f"{path} is no file; choose another name for the graph")
        if path.read_bytes() == text.encode():
            return False
        if not force:
            raise ValueError(f"{path} exists and may hold edits; choose another file, or overwrite it with --force")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return True


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, allow_unicode=True).strip()
    return text.removesuffix("...").strip()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """What reading the rendered text must give."""
    concepts = {
        label: {k: list(v) if k != "coarse" else v for k, v in node.items() if v}
        for label, node in values["concepts"].items()
    }
    more = {k: list(values[k]) for k in ("templates", "background") if values.get(k)}
    return {"name": values["name"], **more, "concepts": concepts}
