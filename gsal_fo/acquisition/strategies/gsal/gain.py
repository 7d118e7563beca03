"""Expected coverage gain: what labeling an image is expected to add to what is known (METHOD.md section 10).

Letters: u(n) the marginal utility of one more labeled instance of a node that has n; g a proposal's gain, q its
probability of being a real object, S an image's sum of both.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gsal_fo.concepts.graph import ConceptGraph

UTILITIES: Mapping[str, Callable[[float], float]] = {
    "harmonic": lambda n: 1 / (1 + n),
    "sqrt": lambda n: float((1 + n) ** -0.5),
    "log": lambda n: float(np.log((n + 2) / (n + 1))),
}
UNMATCHED_GAIN = ("median", "rare", "none")


@dataclass(frozen=True)
class GainRule:
    """How a count becomes a gain: ``utility``, ``levels`` (a non-empty subset of "FCA"), ``delta`` of the attributes'
    mean, and what an ``unmatched`` proposal earns: the median of the fine nodes, an unseen node, or nothing."""

    utility: str = "harmonic"
    levels: str = "FCA"
    delta: float = 0.5
    unmatched: str = "median"


def node_gains(graph: ConceptGraph, coverage: Mapping[str, float], rule: GainRule) -> dict[str, float]:
    """g per fine node: u of the node, of its family, and delta times the mean u of its attributes."""
    u = UTILITIES[rule.utility]
    out = {}
    for fine in graph.fine:
        gain = u(coverage[fine]) if "F" in rule.levels else 0.0
        gain += u(coverage[graph.coarse_of(fine)]) if "C" in rule.levels else 0.0
        attributes = graph.abstract_of(fine)
        if "A" in rule.levels and attributes:
            gain += rule.delta * sum(u(coverage[a]) for a in attributes) / len(attributes)
        out[fine] = gain
    return out


def gain_table(graph: ConceptGraph, coverage: Mapping[str, float], rule: GainRule) -> np.ndarray:
    """g by assigned index (F + 2,): the fine nodes, then unmatched (index -2) and background (index -1, always 0)."""
    gains = list(node_gains(graph, coverage, rule).values())
    if rule.unmatched == "median":
        unmatched = float(np.median(gains))
    elif rule.unmatched == "rare":
        new = UTILITIES[rule.utility](0)
        unmatched = new * (("F" in rule.levels) + ("C" in rule.levels) + rule.delta * ("A" in rule.levels))
    else:
        unmatched = 0.0
    return np.array([*gains, unmatched, 0.0])


def presence(scores: np.ndarray, source: np.ndarray) -> np.ndarray:
    """q (P,) in [0, 1]: the probability that a proposal is a real object.

    Args:
        scores: detection scores (P,); of proposals from a field their confidence.
        source: (P,) where each proposal's image got them: "whole" stands in for nothing found and is 0, "grid" windows
            of a cold start say nothing and are 1.
    """
    q = np.clip(np.nan_to_num(np.asarray(scores, dtype=np.float64)), 0.0, 1.0)
    return np.where(source == "whole", 0.0, np.where(source == "grid", 1.0, q))


def learning_value(difficulty: np.ndarray, kappa: float) -> np.ndarray:
    """sigma(kappa Z(d)) (P,) in (0, 1): difficulty as learning value of what is there; kappa = 0 switches it off and
    gives 1 throughout."""
    if kappa == 0:
        return np.ones(len(difficulty))
    return np.asarray(1 / (1 + np.exp(-kappa * np.nan_to_num(np.asarray(difficulty, dtype=np.float64)))))


def image_gains(value: np.ndarray, owner: np.ndarray, images: int, how: str = "sum") -> np.ndarray:
    """S (N,) from q g (times learning value) (P,): the sum of an image's proposals, or their maximum."""
    if how == "max":
        out = np.zeros(images)
        np.maximum.at(out, owner, value)
        return out
    return np.bincount(owner, weights=value, minlength=images)


class ExpectedCoverage:
    """Instances per node as a batch grows: labels, and the expected instances of what was picked."""

    def __init__(self, graph: ConceptGraph, labels: Mapping[str, float], rule: GainRule) -> None:
        self.graph, self.rule = graph, rule
        self.of = {fine: float(labels.get(fine, 0)) for fine in graph.fine}

    def add(self, fine: np.ndarray, q: np.ndarray) -> None:
        """Count an image's proposals (k,) of assigned index ``fine`` as ``q`` instances each."""
        for index, expected in zip(fine.tolist(), q.tolist(), strict=True):
            if index >= 0:
                self.of[self.graph.fine[index]] += expected

    def table(self) -> np.ndarray:
        """``gain_table`` now."""
        nodes = dict.fromkeys(self.graph.graph, 0.0)
        for fine, n in self.of.items():
            for node in self.graph.path(fine):
                nodes[node] += n
        return gain_table(self.graph, nodes, self.rule)


def greedy_sum(
    budget: int,
    rows: np.ndarray,
    starts: np.ndarray,
    fine: np.ndarray,
    q: np.ndarray,
    weight: np.ndarray,
    base: np.ndarray,
    scale: float,
    coverage: ExpectedCoverage,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (budget,) in the order picked and the value (budget,) of each at its turn.

    An image is worth ``base + scale * sum_j q_j w_j g(fine_j)``; each pick adds its expected instances to the coverage,
    so g only shrinks: an image is valued again only when it leads (the sum is submodular).

    Args:
        budget: images to pick, at most ``len(rows)``.
        rows: the candidates in the order of their ids, which breaks ties.
        starts: (N + 1,) where each image's proposals begin.
        fine, q, weight: assigned index, presence and learning value of each proposal (P,).
        base: (N,) what an image is worth besides.
        scale: of the sum, at least 0.
        coverage: counts before the batch; changed as it grows.
    """
    table = coverage.table()

    def value(row: int) -> float:
        mine = slice(int(starts[row]), int(starts[row + 1]))
        return float(base[row] + scale * (q[mine] * weight[mine] * table[fine[mine]]).sum())

    heap = [(-value(row), place, row, 0) for place, row in enumerate(rows.tolist())]
    heapq.heapify(heap)
    picks, values = np.empty(budget, dtype=np.int64), np.empty(budget)
    for turn in range(budget):
        while heap[0][3] < turn:
            _, place, row, _ = heap[0]
            heapq.heapreplace(heap, (-value(row), place, row, turn))
        bound, _, row, _ = heapq.heappop(heap)
        picks[turn], values[turn] = row, -bound
        mine = slice(int(starts[row]), int(starts[row + 1]))
        coverage.add(fine[mine], q[mine])
        table = coverage.table()
    return picks, values
