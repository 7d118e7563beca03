"""Candidate concepts of a pool: clusters of its crops that match no fine concept of the graph. NumPy over shards."""

import hashlib
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from gsal_fo.concepts.assignment import labeled_prototypes
from gsal_fo.concepts.build.vocabulary import (
    KNOWS,
    Texts,
    Vocabulary,
    everyday_knowledge,
    everyday_phrases,
    phrases,
    spoken,
)
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import UNMATCHED, unit
from gsal_fo.run_folder import shards

CAP = 3000  # crops that are clustered: a sample by hash, since linkage takes memory by their square
FLOOR = 0.5  # CLIP's probability of its best concept below which a crop counts as matching none
WIDTH = 0.1  # quantile of the distances between crops that bounds a cluster, where no labeled concept tells a width
EXAMPLES = 12  # crops shown per candidate
PER_IMAGE = 2  # of one image among them
SURE = 0.5  # probability among the vocabulary's words above which CLIP names a candidate

EmbedCrops = Callable[[Sequence[tuple[str, Sequence[float]]]], np.ndarray]


@dataclass(frozen=True)
class Crop:
    """One proposal of the pool: image id, its file, the proposal's number, its box ``xywh_rel``."""

    image: str
    path: str
    number: int
    box: tuple[float, ...]


@dataclass
class Candidate:
    """A cluster of unmatched crops. ``crops`` and ``images`` count it among the sampled; ``examples`` are those nearest
    to its middle; ``nearest`` is the known concept that it is least unlike, with the cosine distance, where labels tell
    one; ``why`` says where the name came from."""

    name: str
    crops: int
    images: int
    examples: list[Crop]
    nearest: tuple[str, float] | None = None
    why: str = "no name known"


@dataclass
class Found:
    """All candidates, largest first; ``unmatched`` crops in the run, ``sampled`` of them clustered, at cosine distance
    ``width``."""

    candidates: list[Candidate]
    unmatched: int
    sampled: int
    width: float
    notes: list[str]


def find(run: Path, graph: ConceptGraph, *, most: int = 12, smallest: int = 5, embed: EmbedCrops) -> Found:
    """Cluster the crops of a scoring that match no fine concept.

    Unmatched are proposals that the assignment calls so, and, where CLIP assigned, those whose best concept is less
    probable than ``FLOOR``; what abstained as background is not. Clusters: average linkage over cosine distance, cut at
    the width of a labeled concept (the prototypes' limit), or at the ``WIDTH`` quantile of all distances. Nothing
    depends on the order of parts or images.

    Args:
        run: run folder.
        graph: the graph that it was assigned with.
        most: candidates at most.
        smallest: crops that make a cluster a candidate; they must come from two images at least.
        embed: embeds crops where the run holds no crop embeddings (assigned by the detector); NaN rows are left out.

    Raises:
        ValueError: numbers out of range, or a run folder without an assignment.
    """
    if most < 1 or smallest < 2:
        raise ValueError(f"candidates must be at least 1 and crops per candidate at least 2; got {most} and {smallest}")
    facts = shards.run_facts(run, "assigned.json")
    picked, total = _unmatched(run, facts["assign"])
    crops, x = _embedded(run, picked, facts["assign"], embed)
    if len(crops) < smallest:
        return Found([], total, len(crops), float("nan"), [])
    width = facts.get("limit") or _width(x)
    cut = fcluster(linkage(x, "average", "cosine"), width, "distance") if len(x) > 1 else np.ones(1, int)
    groups = [np.flatnonzero(cut == g) for g in np.unique(cut)]
    groups = [g for g in groups if len(g) >= smallest and len({crops[i].image for i in g}) > 1]
    groups.sort(key=lambda g: (-len(g), g[0]))
    prototypes = _known(run, graph, facts["assign"])
    out = []
    for number, g in enumerate(groups[:most], 1):
        center = unit(x[g].mean(0))
        nearest = None
        if prototypes is not None:
            cosine = prototypes.vectors @ center
            nearest = graph.fine[prototypes.fine[cosine.argmax()]], float(1 - cosine.max())
        order = g[np.argsort(-(x[g] @ center).round(6), kind="stable")]
        images = len({crops[i].image for i in g})
        out.append(Candidate(f"candidate_{number}", len(g), images, _examples([crops[i] for i in order]), nearest))
    return Found(out, total, len(crops), float(width), [])


def name_them(
    found: Found,
    graph: ConceptGraph,
    vocabulary: Vocabulary,
    embed: Callable[[Sequence[str], Sequence[tuple[str, Sequence[float]]]], tuple[np.ndarray, np.ndarray]],
    *,
    scale: float = 100.0,
    taught: Sequence[str] = (),
) -> None:
    """Name candidates by the family word that CLIP finds in their examples, where it can.

    A name is given where CLIP knows everyday words (or was taught all words in question), and where one word has more
    than ``SURE`` of the probability among them; a word names one candidate, the largest first.

    Args:
        found: changed in place.
        graph: its names are taken.
        vocabulary: the words.
        embed: texts and crops to unit rows of one CLIP model.
        scale: CLIP's logit scale.
        taught: words that the CLIP is known to have been trained on.
    """
    words = vocabulary.without(list(graph.graph))
    if not found.candidates or not words.families:
        return
    known = {spoken(w) for w in taught}
    trusted = all(spoken(w) in known for w in words.families)
    crops = [(c.path, c.box) for candidate in found.candidates for c in candidate.examples]
    wanted = sorted({*phrases(words.families, words.templates), *everyday_phrases()})
    rows, vectors = embed(wanted, crops)
    texts = Texts(wanted, lambda ordered: rows)
    knowledge = 1.0 if trusted else everyday_knowledge(texts)
    if knowledge < KNOWS:
        found.notes.append(
            f"candidates are numbered, not named: this CLIP does not know everyday words ({knowledge:.0%} of pairs "
            f"right, chance is 50 %)"
        )
        return
    f = texts.words(words.families, words.templates)
    used: set[int] = set()
    start = 0
    for candidate in found.candidates:
        own = vectors[start : start + len(candidate.examples)]
        start += len(candidate.examples)
        own = own[np.isfinite(own).all(1)]
        if not len(own):
            continue
        logits = scale * (f @ unit(own.astype(np.float64).mean(0)))
        p = np.exp(logits - logits.max())
        best = int(p.argmax())
        if best not in used and p[best] / p.sum() > SURE:
            used.add(best)
            candidate.name = words.families[best]
            candidate.why = f"named by CLIP, probability {p[best] / p.sum():.2f} among the vocabulary's families"


def _unmatched(run: Path, assign: str) -> tuple[list[tuple[str, int]], int]:
    """At most ``CAP`` (image, proposal number), chosen and ordered by hash, and how many there are."""
    heap: list[tuple[int, str, int]] = []  # the largest hash on top, as its negative
    total = 0
    for row in shards.iter_rows(run, "assignment"):
        if row["error"] or row["role"] != "pool":
            continue
        none = row["fine"] == UNMATCHED
        if assign == "clip":
            none = none | ((row["fine"] >= 0) & (row["prob"] < FLOOR))
        for number in np.flatnonzero(none).tolist():
            total += 1
            mark = hashlib.blake2b(f"{row['id']}:{number}".encode(), digest_size=8).digest()
            item = (-int.from_bytes(mark), row["id"], number)
            if len(heap) < CAP:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
    return [(image, number) for _, image, number in sorted(heap, reverse=True)], total


def _embedded(
    run: Path, picked: list[tuple[str, int]], assign: str, embed: EmbedCrops
) -> tuple[list[Crop], np.ndarray]:
    """The picked crops and their unit rows, those without a usable embedding left out."""
    wanted: dict[str, list[int]] = {}
    for image, number in picked:
        wanted.setdefault(image, []).append(number)
    crops: dict[tuple[str, int], Crop] = {}
    for row in shards.iter_rows(run, "proposals"):
        for number in wanted.get(row["id"], ()):
            box = tuple(float(v) for v in row["boxes"][4 * number : 4 * number + 4])
            crops[row["id"], number] = Crop(row["id"], row["filepath"], number, box)
    ordered = [crops[key] for key in picked]
    if not ordered:
        return [], np.empty((0, 1))
    if assign == "detector":
        x = embed([(c.path, c.box) for c in ordered])
    else:
        vectors: dict[tuple[str, int], np.ndarray] = {}
        for row in shards.iter_rows(run, "concepts"):
            if row["role"] == "pool" and not row["error"]:
                rows = row["embeddings"].reshape(-1, max(1, row["dim"]))
                vectors |= {(row["id"], n): rows[n] for n in wanted.get(row["id"], ())}
        x = np.stack([vectors[key] for key in picked])
    x = np.asarray(x, dtype=np.float64)
    good = np.isfinite(x).all(1) & (np.linalg.norm(np.nan_to_num(x), axis=1) > 0)
    return [c for c, ok in zip(ordered, good, strict=True) if ok], unit(x[good])


def _width(x: np.ndarray) -> float:
    gaps = (1 - x @ x.T)[np.triu_indices(len(x), 1)]
    return max(float(np.quantile(gaps, WIDTH)), 1e-6)


def _known(run: Path, graph: ConceptGraph, assign: str) -> Any:
    """Prototypes of the labeled crops, where the run holds their embeddings; None elsewhere."""
    if assign != "prototypes":
        return None
    manifest = shards.read_manifest(run, ["id", "role", "labels"])
    rows = zip(*(manifest[c].to_pylist() for c in ("id", "role", "labels")), strict=True)
    return labeled_prototypes(run, graph, {i: names or [] for i, role, names in rows if role == "labeled"})


def _examples(crops: list[Crop]) -> list[Crop]:
    out: list[Crop] = []
    for crop in crops:
        if sum(c.image == crop.image for c in out) < PER_IMAGE:
            out.append(crop)
        if len(out) == EXAMPLES:
            break
    return out
