"""Placebos of docs/method.md section 5: the same ranking with one of its two signals replaced by nothing."""

import hashlib
from dataclasses import replace

import numpy as np

from gsal_fo.acquisition.base import DifficultyColumns, Pool
from gsal_fo.acquisition.strategies.gsal.strategy import Gsal
from gsal_fo.concepts.graph import ConceptGraph


class NoiseDifficulty(Gsal):
    """GSAL with E and V of images and proposals replaced by uniform noise in [0, 1).

    Each number is set by the seed, the image's id and the proposal's place in its image, so neither order nor the rest
    of the pool acts on it. What was not finite stays so: the placebo ranks the same images.
    """

    name, title = "noise_difficulty", "Placebo: difficulty is noise"
    paper = ""

    def measured(self, pool: Pool) -> DifficultyColumns:
        """Noise in the place of E and V."""
        return noise_difficulty(pool, self.params.seed)


class ShuffledGraph(Gsal):
    """GSAL with the fine nodes of its graph permuted."""

    name, title = "shuffled_graph", "Placebo: a shuffled concept graph"
    paper = ""

    def shown_graph(self, graph: ConceptGraph) -> ConceptGraph:
        """The permuted graph."""
        return shuffled_graph(graph, self.params.seed)


def noise_difficulty(pool: Pool, seed: int) -> DifficultyColumns:
    """The pool's E and V as seeded noise, NaN where they were not finite."""
    own, found = pool.difficulty, pool.proposals
    owner = found.owner
    place = np.arange(len(owner)) - found.starts[owner]
    names = [str(pool.ids[row]) for row in owner]
    image = _uniform([f"{seed}:{i}" for i in pool.ids])
    proposal = _uniform([f"{seed}:{i}:{j}" for i, j in zip(names, place, strict=True)])
    return replace(
        own,
        image_error=_where_finite(own.image_error, image[:, 0]),
        image_variance=_where_finite(own.image_variance, image[:, 1]),
        error=_where_finite(own.error, proposal[:, 0]),
        variance=_where_finite(own.variance, proposal[:, 1]),
    )


def shuffled_graph(graph: ConceptGraph, seed: int) -> ConceptGraph:
    """The graph with its fine nodes permuted: each keeps its name, prompts and label count, and gets the family and the
    attributes of another.

    The permutation is one cycle through all fine nodes, so that with two or more of them none stays where it was.
    """
    described = graph.to_dict()
    concepts = described["concepts"]
    cycle = np.random.default_rng(seed).permutation(sorted(concepts)).tolist()
    places = dict(zip(cycle, [*cycle[1:], *cycle[:1]], strict=True))
    described["concepts"] = {
        name: {**node, **{k: concepts[places[name]][k] for k in ("coarse", "abstract")}}
        for name, node in concepts.items()
    }
    return ConceptGraph.from_dict(described, source=f"{graph.name}, shuffled with seed {seed}")


def _uniform(keys: list[str]) -> np.ndarray:
    """(n, 2) numbers in [0, 1), set by the key alone."""
    raw = b"".join(hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys)
    return np.frombuffer(raw, dtype="<u8").reshape(-1, 2).astype(np.float64) / 2.0**64


def _where_finite(values: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), noise, values).astype(values.dtype)
