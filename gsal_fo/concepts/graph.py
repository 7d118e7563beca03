"""Concept graph: three levels over the dataset's labels, what has been labeled of each node, and the rarity bonus
(Eq. 4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from gsal_fo.config import GsalParams
from gsal_fo.user_files import FileError, one_line, parse_yaml, read_yaml, shown, unprintable

LEVELS = ("fine", "coarse", "abstract")
FILE_KEYS = ("name", "templates", "background", "concepts")
NODE_KEYS = ("coarse", "abstract", "prompts")
DEFAULT_TEMPLATES = ("a photo of a {}",)


class GraphError(ValueError):
    """A concept graph that cannot be used; the message names the file, the node and the cure."""


class ConceptGraph:
    """A checked concept graph.

    ``graph`` is a DiGraph with node attribute ``level`` and edges fine -> coarse and fine -> abstract. ``fine``,
    ``coarse`` and ``abstract`` are sorted name lists: their order never depends on the file's. Source: METHOD.md
    sections 1, 3 and 9.
    """

    def __init__(
        self,
        graph: nx.DiGraph,
        *,
        name: str,
        templates: Sequence[str],
        background: Sequence[str],
        prompts: Mapping[str, list[str]],
    ) -> None:
        self.graph, self.name = graph, name
        self.templates, self.background = list(templates), list(background)
        self._prompts = dict(prompts)
        by_level = {level: sorted(v for v, d in graph.nodes(data="level") if d == level) for level in LEVELS}
        self.fine, self.coarse, self.abstract = (by_level[level] for level in LEVELS)

    @classmethod
    def load(cls, path: str | Path) -> "ConceptGraph":
        """Read a graph file (YAML, METHOD.md section 9); raises GraphError in one sentence where it is unusable."""
        try:
            # A label 010 is no number: names stay as they are written.
            values = read_yaml(path, "the concept graph", numbers=False)
        except FileError as error:
            raise GraphError(str(error)) from error
        return cls.from_dict(values, source=str(path))

    @classmethod
    def parse(cls, text: str, *, source: str) -> "ConceptGraph":
        """The graph of a file's text, as ``load`` reads it."""
        try:
            return cls.from_dict(parse_yaml(text, source, numbers=False), source=source)
        except FileError as error:
            raise GraphError(str(error)) from error

    @classmethod
    def from_dict(cls, values: Any, *, source: str = "concept graph") -> "ConceptGraph":
        """Build a graph from the plain values of a graph file; ``source`` names it in errors."""

        def refuse(what: str, cure: str) -> GraphError:
            return GraphError(f"{source}: {what}; {cure}")

        if not isinstance(values, Mapping):
            raise refuse(
                f"expected a mapping, got {type(values).__name__}", "start the file with `name:` and `concepts:`"
            )
        _check_keys(values, FILE_KEYS, "unknown key", refuse)
        concepts = values.get("concepts")
        if not isinstance(concepts, Mapping) or not concepts:
            raise refuse("the graph is empty", "list the dataset's labels under `concepts:`")
        templates = _texts(values.get("templates", list(DEFAULT_TEMPLATES)), "templates", refuse)
        if not templates:
            raise refuse("`templates` is empty", 'leave it out or give one such as "a photo of a {}"')
        for template in templates:
            if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
                raise refuse(f"template {shown(template)} has no single {{}}", "put one {} where the prompt goes")
        background = _texts(values.get("background", []), "background", refuse)

        graph = nx.DiGraph()
        prompts: dict[str, list[str]] = {}
        families: dict[str, tuple[str, list[str]]] = {}
        for fine, node in concepts.items():
            fine = _node_name(fine, "a fine node", refuse)
            if fine in families:
                raise refuse(f"label {shown(fine)} is given twice", "keep one of the two")
            if not isinstance(node, Mapping):
                raise refuse(f"{shown(fine)} is not a mapping", "write {coarse: family, abstract: [attribute, ...]}")
            _check_keys(node, NODE_KEYS, f"{shown(fine)} has the unknown key", refuse)
            parent = node.get("coarse")
            if parent is None or parent == []:
                raise refuse(f"{shown(fine)} has no coarse parent", "give it one with `coarse: family`")
            if isinstance(parent, list | tuple | Mapping):
                raise refuse(
                    f"{shown(fine)} has several coarse parents", "keep one; use `abstract:` for shared attributes"
                )
            parent = _node_name(parent, f"the coarse parent of {shown(fine)}", refuse)
            attributes = node.get("abstract", [])
            if not isinstance(attributes, list):
                raise refuse(f"`abstract` of {shown(fine)} is not a list", "write abstract: [attribute, ...]")
            attributes = [_node_name(a, f"an attribute of {shown(fine)}", refuse) for a in attributes]
            if len(set(attributes)) < len(attributes):
                raise refuse(f"{shown(fine)} names an attribute twice", "keep one of the two")
            families[fine] = (parent, attributes)
            given = _texts(node.get("prompts", []), f"prompts of {shown(fine)}", refuse)
            prompts[fine] = given or [fine.replace("_", " ")]
        level: dict[str, str] = {}
        for fine, (parent, attributes) in families.items():
            for node, wanted in [(fine, "fine"), (parent, "coarse"), *((a, "abstract") for a in attributes)]:
                if level.setdefault(node, wanted) != wanted:
                    raise refuse(
                        f"{shown(node)} is used on two levels, {level[node]} and {wanted}", "rename one of the two"
                    )
        for node in sorted(level):
            graph.add_node(node, level=level[node])
        for fine, (parent, attributes) in sorted(families.items()):
            graph.add_edge(fine, parent)
            graph.add_edges_from((fine, a) for a in sorted(attributes))
        name = values.get("name")
        name = one_line(Path(source).stem) if name is None else _node_name(name, "the graph", refuse)
        return cls(graph, name=name, templates=templates, background=background, prompts=prompts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that ``from_dict`` reads back to an equal graph."""
        return {
            "name": self.name,
            "templates": self.templates,
            "background": self.background,
            "concepts": {
                f: {"coarse": self.coarse_of(f), "abstract": self.abstract_of(f), "prompts": self.prompts(f)}
                for f in self.fine
            },
        }

    def level(self, node: str) -> str:
        """The level of a node: "fine", "coarse" or "abstract"; raises KeyError for a name outside the graph."""
        return self.graph.nodes[node]["level"]

    def prompts(self, fine: str) -> list[str]:
        """The prompts of a fine node, before templates."""
        return list(self._prompts[fine])

    def coarse_of(self, fine: str) -> str:
        """The one coarse parent of a fine node."""
        return next(v for v in self.graph.successors(fine) if self.level(v) == "coarse")

    def abstract_of(self, fine: str) -> list[str]:
        """The abstract nodes of a fine node, sorted."""
        return sorted(v for v in self.graph.successors(fine) if self.level(v) == "abstract")

    def path(self, fine: str) -> list[str]:
        """``[fine, coarse, *sorted abstract]``."""
        return [fine, self.coarse_of(fine), *self.abstract_of(fine)]

    def coverage(self, labels: Mapping[str, int]) -> dict[str, int]:
        """Labeled instances per node: coarse and abstract nodes sum the fine nodes below them.

        Labels outside the graph add nothing here. Raises ValueError for a negative count. Source: METHOD.md section 1.
        """
        if negative := sorted(k for k, n in labels.items() if n < 0):
            raise ValueError(f"label counts must be at least 0; got a negative count for {negative[:5]}")
        counts = dict.fromkeys(self.graph, 0)
        for fine in self.fine:
            n = int(labels.get(fine, 0))
            for node in (fine, *self.graph.successors(fine)):
                counts[node] += n
        return counts

    def thresholds(self, coverage: Mapping[str, int], params: GsalParams) -> dict[str, int]:
        """tau per level: the ``params.quantile`` quantile of its nodes' counts, no interpolation (method "lower")."""
        levels = {"fine": self.fine, "coarse": self.coarse, "abstract": self.abstract}
        return {
            level: int(np.quantile([coverage[v] for v in nodes], params.quantile, method="lower"))
            for level, nodes in levels.items()
            if nodes
        }

    def indicators(self, coverage: Mapping[str, int], params: GsalParams) -> dict[str, float]:
        """How rare each node counts in Eq. 4, in [0, 1]: ``n <= tau`` (quantile) or ``1 - n / max n`` of its level
        (graded)."""
        if params.rarity == "quantile":
            tau = self.thresholds(coverage, params)
            return {v: float(coverage[v] <= tau[self.level(v)]) for v in self.graph}
        out: dict[str, float] = {}
        for nodes in (self.fine, self.coarse, self.abstract):
            top = max((coverage[v] for v in nodes), default=0)
            out |= {v: 1 - coverage[v] / top if top else 1.0 for v in nodes}
        return {v: out[v] for v in self.graph}

    def rare(self, coverage: Mapping[str, int], params: GsalParams) -> dict[str, bool]:
        """Which nodes are rare by the quantile rule, whatever ``params.rarity`` says: for display and audit."""
        tau = self.thresholds(coverage, params)
        return {v: coverage[v] <= tau[self.level(v)] for v in self.graph}

    def bonus(self, coverage: Mapping[str, int], params: GsalParams) -> dict[str, float]:
        """Rarity bonus ``b`` of Eq. 4 per fine node; ``params.levels`` leaves levels out, ``params.abstract`` sums or
        averages."""
        weight = self.indicators(coverage, params)
        out = {}
        for fine in self.fine:
            b = weight[fine] if "F" in params.levels else 0.0
            b += weight[self.coarse_of(fine)] if "C" in params.levels else 0.0
            attributes = self.abstract_of(fine)
            if "A" in params.levels and attributes:
                total = sum(weight[a] for a in attributes)
                b += params.delta * (total / len(attributes) if params.abstract == "mean" else total)
            out[fine] = float(b)
        return out


def _check_keys(values: Mapping[Any, Any], known: tuple[str, ...], what: str, refuse: Any) -> None:
    if unknown := [shown(k).strip('"') for k in values if k not in known]:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise refuse(f"{what} {', '.join(sorted(unknown)[:3])}{more}", f"use only {', '.join(known)}")


def _texts(value: Any, what: str, refuse: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise refuse(f"{what} is not a list of non-empty texts", 'write a list such as ["a void", "a dark hole"]')
    if bad := [v for v in value if unprintable(" ".join(v.split()))]:
        raise refuse(f"{what} holds the control character or half character in {shown(bad[0])}", "take it out")
    return [v.strip() for v in value]


def _node_name(value: Any, what: str, refuse: Any) -> str:
    cure = "give each node a name; quote words like yes, no, null"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise refuse(f"{what} has an empty or unusable name ({shown(value)})", cure)
    name = value.strip() if isinstance(value, str) else shown(value)
    if unprintable(name):
        raise refuse(f"{what} has a line break, control character or half character in its name {shown(name)}", cure)
    if not name or (not isinstance(value, str) and not name[-1].isdigit()):
        raise refuse(f"{what} has an empty or unusable name ({shown(value)})", cure)
    return name
