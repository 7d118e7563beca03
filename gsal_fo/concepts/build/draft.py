"""A concept graph drafted from label names alone: families by clustering their text embeddings, attributes by
similarity."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

from gsal_fo.concepts.build.vocabulary import (
    EncodeText,
    Texts,
    Vocabulary,
    doubts,
    everyday_knowledge,
    everyday_phrases,
    phrases,
    spoken,
)
from gsal_fo.concepts.graph import DEFAULT_TEMPLATES
from gsal_fo.concepts.similarity import unit


@dataclass
class Draft:
    """A graph file in the making: ``values`` as `ConceptGraph.from_dict` reads them, ``comments`` family -> where it
    came from, ``notes`` for the person."""

    values: dict[str, Any]
    comments: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def draft(
    labels: Sequence[str],
    encode_text: EncodeText,
    *,
    name: str,
    vocabulary: Vocabulary,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    families: int | None = None,
    attributes: int = 3,
    taught: Sequence[str] = (),
) -> Draft:
    """Draft a graph of ``labels``.

    Families are clusters of the labels' text embeddings (average linkage over cosine distance), named by the
    vocabulary's family words: the assignment of distinct words with the greatest total similarity. A cluster that no
    word is left for is named after its most central label. Each label gets the ``attributes`` words that fit it better
    than they fit the other labels (similarities centered over labels and words), of these only such as divide the
    labels: carried by two or more and not by all.

    Args:
        labels: names; order and repetition do not matter.
        encode_text: n texts to (n, D), array or tensor; called once, with sorted texts.
        name: the graph's.
        vocabulary: words for families and attributes.
        templates: phrases for the labels, written into the file.
        families: how many; None lets the silhouette choose around the square root of the number of labels.
        attributes: at most so many per label.
        taught: words that this CLIP is known to have been trained on; labels among them raise no doubt about it.

    Raises:
        ValueError: no label, or numbers out of range.
    """
    names = sorted(set(labels))
    if not names:
        raise ValueError("a concept graph needs at least one label; got none")
    if families is not None and not 1 <= families <= len(names):
        raise ValueError(f"families must be in [1, {len(names)}], the number of labels; got {families}")
    if attributes < 0:
        raise ValueError(f"attributes must be at least 0; got {attributes}")
    words = vocabulary.without(names)
    known = {spoken(w) for w in taught}
    trusted = all(spoken(label) in known for label in names)
    wanted = phrases(names, templates) + phrases([*words.attributes, *words.families], words.templates)
    texts = Texts([*wanted, *([] if trusted else everyday_phrases())], encode_text)
    x = texts.words(names, templates)  # (L, D)
    group = _families(x, families)
    centers = np.stack([unit(x[group == g].mean(0)) for g in range(group.max() + 1)])  # (G, D)
    called, comments = _name_families(names, x, group, centers, words, texts)
    carried = _attributes(x, words, texts, attributes)
    concepts = {
        label: {"coarse": called[group[i]], "abstract": carried[i], "prompts": [spoken(label)]}
        for i, label in sorted(enumerate(names), key=lambda p: (called[group[p[0]]], p[1]))
    }
    values = {"name": name, "templates": list(templates), "concepts": concepts}
    notes = doubts(names, x, None if trusted else everyday_knowledge(texts))
    return Draft(values, comments, notes)


def _families(x: np.ndarray, count: int | None) -> np.ndarray:
    """Cluster index (L,) per row, from 0 on in the order of first appearance."""
    n = len(x)
    if n == 1:
        return np.zeros(1, dtype=int)
    gap = np.clip(1 - x @ x.T, 0, 2).round(9)  # rounding noise must not decide between equal distances
    gap = (gap + gap.T) / 2
    np.fill_diagonal(gap, 0)
    tree = linkage(squareform(gap, checks=False), "average")
    if count is None:
        low, high = max(2, math.ceil(math.sqrt(n) / 1.5)), min(n - 1, int(2 * math.sqrt(n)))
        cuts = {k: fcluster(tree, k, "maxclust") for k in range(low, high + 1)}
        rated = [
            (silhouette_score(gap, cut, metric="precomputed"), -k)
            for k, cut in cuts.items()
            if 1 < len(set(cut.tolist())) < n
        ]
        count = -max(rated)[1] if rated else min(n, 2)
    cut = fcluster(tree, count, "maxclust")
    order = {old: i for i, old in enumerate(dict.fromkeys(cut.tolist()))}
    return np.array([order[c] for c in cut.tolist()])


def _name_families(
    names: list[str], x: np.ndarray, group: np.ndarray, centers: np.ndarray, words: Vocabulary, texts: Texts
) -> tuple[list[str], dict[str, str]]:
    """A name per cluster, and per name how it was found."""
    called: dict[int, str] = {}
    comments: dict[str, str] = {}
    if words.families:
        f = texts.words(words.families, words.templates)
        # A word that is near everything names nothing: only what exceeds its mean over the labels counts.
        fit = centers @ f.T - (x @ f.T).mean(0)
        for g, w in zip(*linear_sum_assignment(fit, maximize=True), strict=True):
            called[int(g)] = words.families[w]
            comments[words.families[w]] = f"family word of the vocabulary, similarity {centers[g] @ f[w]:.2f}"
    for g in range(len(centers)):
        if g not in called:
            own = np.flatnonzero(group == g)
            best = names[own[(x[own] @ centers[g]).argmax()]]
            called[g] = f"{best}_and_similar"
            while called[g] in {*names, *words.attributes, *comments}:
                called[g] += "_"
            comments[called[g]] = "named after its most central label: no family word was left"
    return [called[g] for g in range(len(centers))], comments


def _attributes(x: np.ndarray, words: Vocabulary, texts: Texts, count: int) -> list[list[str]]:
    """Attribute names per label, sorted."""
    if not count or not words.attributes:
        return [[] for _ in x]
    a = texts.words(words.attributes, words.templates)
    fit = x @ a.T
    if len(x) > 1:
        fit = fit - fit.mean(0)
    fit = (fit - fit.mean(1, keepdims=True)).round(9)
    ranked = np.argsort(-fit, axis=1, kind="stable")[:, :count]
    carriers = Counter(ranked.ravel().tolist())
    out = []
    for row in ranked.tolist():
        shared = [j for j in row if 2 <= carriers[j] < len(x)]
        out.append(sorted(words.attributes[j] for j in shared or row[:1]))
    return out
