"""Concept assignment (Eq. 3): which fine node a crop looks like, by CLIP, by labeled prototypes, or by the detector.

Letters: P crops, F fine nodes in the order of ``ConceptGraph.fine``, D embedding size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gsal_fo.concepts.graph import ConceptGraph

BACKGROUND = -1  # the crop abstains: a background prompt fits it best, or it has no usable embedding
UNMATCHED = -2  # like no concept that has labels
PROTOTYPE_TEMPERATURE = 0.05  # of the softmax over cosines; shapes prob and margin only, never which node wins
PROTOTYPE_QUANTILE = 0.95  # share of labeled crops that lie within the limit of their own prototype
ROUNDING = 1e-6  # of a cosine distance: a copy of a labeled crop is never unmatched

EncodeText = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Assignment:
    """What each crop looks like.

    ``fine`` (P,) int16 index into ``ConceptGraph.fine``, -1 background, -2 unmatched; ``prob`` (P,) float32 in [0, 1]
    of the best candidate; ``margin`` (P,) float32, its probability minus the runner-up's; NaN where nothing was
    computed.
    """

    fine: np.ndarray
    prob: np.ndarray
    margin: np.ndarray


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor, without importing torch
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, dtype=np.float64)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, D) scaled to length 1; a zero row stays zero."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def in_content_order(rows: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows (n, D) sorted by their own bytes, and other arrays (n, ...) with them.

    Sums over them then do not depend on the order that images have in a dataset, or on ids that decide one."""
    rows = np.ascontiguousarray(rows)
    order = np.argsort(rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel(), kind="stable")
    return rows[order], *(array[order] for array in more)


def text_embeddings(graph: ConceptGraph, encode_text: EncodeText) -> np.ndarray:
    """Unit rows (F, D) float32, one per fine node: the mean of its templates x prompts as unit rows, scaled to 1 again.

    ``encode_text`` maps n texts to (n, D), array or tensor; it is called once. Source: METHOD.md section 2.
    """
    texts = [[t.format(p) for t in graph.templates for p in graph.prompts(f)] for f in graph.fine]
    rows = unit(_array(encode_text([t for group in texts for t in group])))
    ends = np.cumsum([len(group) for group in texts])
    return unit(np.stack([part.mean(0) for part in np.split(rows, ends[:-1])])).astype(np.float32)


def background_embeddings(graph: ConceptGraph, encode_text: EncodeText) -> np.ndarray | None:
    """Unit rows (n, D) float32, one per background prompt (mean over templates); None where the graph has none."""
    if not graph.background:
        return None
    rows = unit(_array(encode_text([t.format(p) for p in graph.background for t in graph.templates])))
    return unit(rows.reshape(len(graph.background), len(graph.templates), -1).mean(1)).astype(np.float32)


def assign_clip(
    embeddings: Any, text: np.ndarray, background: np.ndarray | None = None, scale: float = 100.0
) -> Assignment:
    """Nearest text per crop by cosine (Eq. 3).

    Args:
        embeddings: crops (P, D); scaled to unit length here.
        text: (F, D) unit rows of ``text_embeddings``.
        background: (n, D) unit rows or None. All together are one more candidate, with the similarity of the nearest of
            them, so that a longer list of background prompts does not thin out anybody's probability.
        scale: CLIP's logit scale (the inverse temperature of its softmax).

    Returns:
        Assignment; -1 where background wins, or where the embedding is not finite (then prob and margin are NaN).
    """
    x = _array(embeddings).reshape(-1, text.shape[1])
    cosine = _cosine(x, text)
    if background is not None and len(background):
        cosine = np.concatenate([cosine, _cosine(x, background).max(1, keepdims=True)], axis=1)
    names = np.arange(cosine.shape[1])
    names[len(text) :] = BACKGROUND
    return _winners(scale * cosine, names)


@dataclass(frozen=True)
class Prototypes:
    """Mean labeled crop per fine node that has any.

    ``vectors`` (M, D) unit rows, ``fine`` (M,) their indices, ``counts`` (M,) crops behind each, ``limit`` the cosine
    distance in [0, 2] beyond which a crop is unmatched.
    """

    vectors: np.ndarray
    fine: np.ndarray
    counts: np.ndarray
    limit: float

    @classmethod
    def fit(cls, embeddings: Any, labels: Sequence[str], fine_names: Sequence[str]) -> "Prototypes":
        """Prototypes of labeled crops.

        The limit is the 95 % quantile of the labeled crops' cosine distance to their own prototype, each measured
        against the prototype of the *other* crops of its class [choice: a crop pulls its own mean toward itself, so
        with few crops the plain distances are too small and most new crops of the same class would count as unmatched].
        A class with one crop adds no distance; where no class has two, the limit is the smallest distance between two
        prototypes, and with a single prototype nothing is unmatched.

        Args:
            embeddings: labeled crops (n, D).
            labels: n names; a crop whose label is not in ``fine_names``, or whose embedding is not finite, is left out.
            fine_names: ``ConceptGraph.fine``.

        Raises:
            ValueError: if the lengths differ or no crop is left.
        """
        x = _array(embeddings)
        if x.ndim != 2 or len(x) != len(labels):
            raise ValueError(f"prototypes need one label per crop; got embeddings {x.shape} and {len(labels)} labels")
        index = {name: i for i, name in enumerate(fine_names)}
        own = np.array([index.get(label, -1) for label in labels], dtype=np.int64)
        usable = (own >= 0) & np.isfinite(x).all(1)
        if not usable.any():
            raise ValueError(
                'no labeled crop carries a label of the concept graph; label some images or use assign="clip"'
            )
        x, own = in_content_order(x[usable], own[usable])
        x = unit(x)
        fine, group, counts = np.unique(own, return_inverse=True, return_counts=True)
        sums = np.zeros((len(fine), x.shape[1]))
        np.add.at(sums, group, x)
        vectors = unit(sums)
        several = counts[group] > 1
        if several.any():
            others = unit(sums[group[several]] - x[several])
            limit = float(np.quantile(1 - (x[several] * others).sum(1), PROTOTYPE_QUANTILE))
        elif len(fine) > 1:
            limit = float((1 - _cosine(vectors, vectors))[~np.eye(len(fine), dtype=bool)].min())
        else:
            limit = float("inf")
        return cls(vectors=vectors, fine=fine, counts=counts, limit=limit)

    def assign(self, embeddings: Any) -> Assignment:
        """Nearest prototype per crop (P, D); -2 where every prototype is farther than ``limit`` (prob and margin stay
        those of the nearest), -1 with NaN where the embedding is not finite."""
        cosine = _cosine(_array(embeddings).reshape(-1, self.vectors.shape[1]), self.vectors)
        got = _winners(cosine / PROTOTYPE_TEMPERATURE, self.fine)
        far = 1 - cosine.max(1, initial=-1) > self.limit + ROUNDING
        return Assignment(np.where(far, np.int16(UNMATCHED), got.fine), got.prob, got.margin)


def assign_detector(posterior: Any, classes: Sequence[str], fine_names: Sequence[str], floor: float) -> Assignment:
    """The detector's own class per proposal.

    Args:
        posterior: (P, C + 1) class probabilities, background first.
        classes: C names, in the posterior's order.
        fine_names: ``ConceptGraph.fine``.
        floor: a proposal whose best class (background aside) stays below it is unmatched.

    Returns:
        Assignment with the posterior's own numbers; -2 also where the best class is not in the graph, -1 with NaN where
        the posterior is not finite.

    Raises:
        ValueError: if the posterior does not have one column per class and one for background.
    """
    p = _array(posterior)
    if p.ndim != 2 or p.shape[1] != len(classes) + 1 or not len(classes):
        raise ValueError(
            f"posterior must be (P, {len(classes) + 1}), background first, then {len(classes)} classes; got {p.shape}"
        )
    index = {name: i for i, name in enumerate(fine_names)}
    names = np.array([index.get(c, UNMATCHED) for c in classes], dtype=np.int64)
    got = _best(p[:, 1:], names)
    return Assignment(np.where(got.prob < floor, np.int16(UNMATCHED), got.fine), got.prob, got.margin)


def _cosine(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cosines (P, n); a row of ``x`` that is not finite gives NaN."""
    good = np.isfinite(x).all(1)
    out = unit(np.where(good[:, None], x, 0)) @ np.asarray(rows, dtype=np.float64).T
    out[~good] = np.nan
    return out


def _winners(logits: np.ndarray, names: np.ndarray) -> Assignment:
    with np.errstate(invalid="ignore"):
        e = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    return _best(e / e.sum(1, keepdims=True), names)


def _best(prob: np.ndarray, names: np.ndarray) -> Assignment:
    """The most probable candidate of each row (P, n), ``names[j]`` its index; ties go to the first."""
    rows = np.arange(len(prob))
    good = np.isfinite(prob).all(1)
    p = np.where(good[:, None], prob, 0)
    best = p.argmax(1)
    top = p[rows, best]
    p[rows, best] = -1
    second = np.clip(p.max(1), 0, None)  # one candidate alone has no runner-up: 0
    fine = np.where(good, names[best], BACKGROUND).astype(np.int16)
    return Assignment(
        fine, np.where(good, top, np.nan).astype(np.float32), np.where(good, top - second, np.nan).astype(np.float32)
    )
