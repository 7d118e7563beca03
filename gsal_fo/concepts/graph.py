"""Concept graph: three levels over the dataset's labels, what has been labeled of each node, and the rarity bonus
(Eq. 4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import yaml

from gsal_fo.config import GsalParams

LEVELS = ("fine", "coarse", "abstract")
FILE_KEYS = ("name", "templates", "background", "concepts")
NODE_KEYS = ("coarse", "abstract", "prompts")
DEFAULT_TEMPLATES = ("a photo of a {}",)


class GraphError(ValueError):
    """A concept graph that cannot be used; the message names the file, the node and the cure."""


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a repeated key, where plain YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise GraphError(
                    f"line {key_node.start_mark.line + 1}: a key must be plain text, not a list or mapping"
                )
            if key in seen:
                raise GraphError(f'line {key_node.start_mark.line + 1}: "{key}" is given twice; keep one of the two')
            seen.add(key)
        return super().construct_mapping(node, deep)


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
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GraphError(
                f"{path}: cannot read the concept graph ({error}); give the path of a YAML file"
            ) from error
        try:
            # A SafeLoader with one more check: it builds plain values only.
            values = yaml.load(text, Loader=_UniqueKeys)
        except GraphError as error:
            raise GraphError(f"{path}: {error}") from error
        except yaml.YAMLError as error:
            raise GraphError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend the file") from error
        return cls.from_dict(values, source=str(path))

    @classmethod
    def from_dict(cls, values: Any, *, source: str = "concept graph") -> "ConceptGraph":
        """Build a graph from the plain values of a graph file; ``source`` names it in errors."""

        def refuse(what: str, cure: str) -> GraphError:
            return GraphError(f"{source}: {what}; {cure}")

        if not isinstance(values, Mapping):
            raise refuse(
                f"expected a mapping, got {type(values).__name__}", "start the file with `name:` and `concepts:`"
            )
        if unknown := sorted(str(k) for k in values if k not in FILE_KEYS):
            raise refuse(f"unknown key {', '.join(unknown)}", f"use only {', '.join(FILE_KEYS)}")
        concepts = values.get("concepts")
        if not isinstance(concepts, Mapping) or not concepts:
            raise refuse("the graph is empty", "list the dataset's labels under `concepts:`")
        templates = _texts(values.get("templates", list(DEFAULT_TEMPLATES)), "templates", refuse)
        if not templates:
            raise refuse("`templates` is empty", 'leave it out or give one such as "a photo of a {}"')
        for template in templates:
            if (
                template.count("{}") != 1
                or template.replace("{}", "").count("{")
                or template.replace("{}", "").count("}")
            ):
                raise refuse(f'template "{template}" has no single {{}}', "put one {} where the prompt goes")
        background = _texts(values.get("background", []), "background", refuse)

        graph = nx.DiGraph()
        prompts: dict[str, list[str]] = {}
        families: dict[str, tuple[str, list[str]]] = {}
        for fine, node in concepts.items():
            fine = _node_name(fine, "a fine node", refuse)
            if fine in families:
                raise refuse(f'label "{fine}" is given twice', "keep one of the two")
            if not isinstance(node, Mapping):
                raise refuse(f'"{fine}" is not a mapping', "write {coarse: family, abstract: [attribute, ...]}")
            if unknown := sorted(str(k) for k in node if k not in NODE_KEYS):
                raise refuse(f'"{fine}" has the unknown key {", ".join(unknown)}', f"use only {', '.join(NODE_KEYS)}")
            parent = node.get("coarse")
            if parent is None or parent == []:
                raise refuse(f'"{fine}" has no coarse parent', "give it one with `coarse: family`")
            if isinstance(parent, list | tuple | Mapping):
                raise refuse(f'"{fine}" has several coarse parents', "keep one; use `abstract:` for shared attributes")
            parent = _node_name(parent, f'the coarse parent of "{fine}"', refuse)
            attributes = node.get("abstract", [])
            if not isinstance(attributes, list):
                raise refuse(f'`abstract` of "{fine}" is not a list', "write abstract: [attribute, ...]")
            attributes = [_node_name(a, f'an attribute of "{fine}"', refuse) for a in attributes]
            if len(set(attributes)) < len(attributes):
                raise refuse(f'"{fine}" names an attribute twice', "keep one of the two")
            families[fine] = (parent, attributes)
            given = _texts(node.get("prompts", []), f'prompts of "{fine}"', refuse)
            prompts[fine] = given or [fine.replace("_", " ")]
        level: dict[str, str] = {}
        for fine, (parent, attributes) in families.items():
            for node, wanted in [(fine, "fine"), (parent, "coarse"), *((a, "abstract") for a in attributes)]:
                if level.setdefault(node, wanted) != wanted:
                    raise refuse(f'"{node}" is used on two levels, {level[node]} and {wanted}', "rename one of the two")
        for node in sorted(level):
            graph.add_node(node, level=level[node])
        for fine, (parent, attributes) in sorted(families.items()):
            graph.add_edge(fine, parent)
            graph.add_edges_from((fine, a) for a in sorted(attributes))
        name = values.get("name", Path(source).stem)
        return cls(graph, name=str(name), templates=templates, background=background, prompts=prompts)

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


def _texts(value: Any, what: str, refuse: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise refuse(f"{what} is not a list of non-empty texts", 'write a list such as ["a void", "a dark hole"]')
    return [v.strip() for v in value]


def _node_name(value: Any, what: str, refuse: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise refuse(
            f"{what} has an empty or unusable name ({value!r})", "give each node a name; quote words like yes, no, null"
        )
    return str(value).strip()
