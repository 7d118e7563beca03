"""``assign="auto"``: which concept assignment the labeled crops speak for, and why.

CLIP knows every concept of the graph, labeled or not, where it knows the domain; prototypes know only concepts that
have labels, but any domain. The labeled crops show which is the case.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import assign_clip, unit
from gsal_fo.images import ImageError, file_digest
from gsal_fo.run_folder import shards

CONFIDENCE = 0.95  # of the one-sided sign tests
TRIAL_IMAGES = 500  # labeled images that take part at most: 500 tell apart what matters


@dataclass(frozen=True)
class Trial:
    """CLIP against its rivals on labeled crops. Shares in [0, 1]; ``*_confidence`` is one minus the p-value of a
    one-sided sign test with one vote per image. ``constant``: the best constant guess, the most frequent label."""

    images: int
    crops: int
    constant: str
    constant_right: float
    clip_right: float
    prototypes_right: float
    clip_beats_constant: float
    prototypes_beat_clip: float


@dataclass(frozen=True)
class Choice:
    """``assign`` is "clip" or "prototypes"; ``why`` one sentence; ``trial`` None at a cold start."""

    assign: str
    why: str
    trial: Trial | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def trial_images(run: Path, graph: ConceptGraph) -> set[str]:
    """Ids of the labeled images that take part in the trial: those with a label of the graph, at most
    ``TRIAL_IMAGES``, by the hash of their annotations and, among images annotated alike, of their files: neither order
    nor ids nor names nor the rest of the pool decide."""
    columns = ("id", "filepath", "role", "labels", "boxes")
    table = shards.read_manifest(run, columns)
    known = set(graph.fine)
    images = [
        (_annotation_hash(labels, boxes or []), i, path)
        for i, path, role, labels, boxes in zip(*(table[c].to_pylist() for c in columns), strict=True)
        if role == "labeled" and known & set(labels or [])
    ]
    if len(images) <= TRIAL_IMAGES:
        return {i for _, i, _ in images}
    edge = sorted(mark for mark, _, _ in images)[TRIAL_IMAGES]
    taken = {i for mark, i, _ in images if mark < edge}
    alike = sorted((_file_hash(path), i) for mark, i, path in images if mark == edge)
    return taken | {i for _, i in alike[: TRIAL_IMAGES - len(taken)]}


def _annotation_hash(labels: Sequence[str], boxes: Sequence[float]) -> bytes:
    """Of what an image is labeled with, in whatever order."""
    place = [tuple(boxes[4 * k : 4 * k + 4]) for k in range(len(labels))]
    return hashlib.sha256(repr(sorted(zip(labels, place, strict=True))).encode()).digest()


def _file_hash(path: str) -> str:
    """The file's digest; one that cannot be read comes last, as the embedding will report it."""
    try:
        return file_digest(path)
    except ImageError:
        return "unreadable"


def cold_start(graph: ConceptGraph) -> Choice:
    """Nothing is labeled that prototypes could be made of."""
    return Choice("clip", f'concepts by CLIP: no crop is labeled with a concept of "{graph.name}" yet')


def choose(
    graph: ConceptGraph,
    labels: Mapping[str, Sequence[str]],
    clip_crops: Mapping[str, np.ndarray],
    encoder_crops: Mapping[str, np.ndarray],
    text: np.ndarray,
    background: np.ndarray | None = None,
) -> Choice:
    """CLIP where it is told apart from chance and prototypes are not told to be better; else prototypes; CLIP where no
    crop is labeled.

    Each image votes for who names more of its crops: crops of one image resemble each other, so they are no independent
    evidence. CLIP must beat the best constant guess, and prototypes must not beat CLIP, each by a one-sided exact sign
    test at 95 %. Prototypes are tried without the crops of the image that they name; a crop whose label occurs in no
    other image is one that they get wrong.

    Args:
        graph: the concept graph.
        labels: image id -> label of each of its crops; those outside the graph take no part.
        clip_crops: image id -> crops (n, D) by CLIP's image tower; an image that is not in it takes no part.
        encoder_crops: the same by the encoder that prototypes would use.
        text: ``similarity.text_embeddings`` of the graph.
        background: ``similarity.background_embeddings``, or None.

    Source: METHOD.md section 2 leaves the choice open; this test is ours.
    """
    index = {name: k for k, name in enumerate(graph.fine)}
    ids = sorted(i for i in labels if i in clip_crops and i in encoder_crops)
    rows = [(i, k, index[name]) for i in ids for k, name in enumerate(labels[i]) if name in index]
    if not rows:
        return cold_start(graph)
    rows.sort(key=lambda row: (encoder_crops[row[0]][row[1]].tobytes(), row[2]))  # sums in an order that no id decides
    place = {i: n for n, i in enumerate(ids)}
    image = np.array([place[i] for i, _, _ in rows])
    truth = np.array([f for _, _, f in rows])
    seen = assign_clip(np.stack([clip_crops[i][k] for i, k, _ in rows]), text, background).fine
    named = _leave_one_image_out(np.stack([encoder_crops[i][k] for i, k, _ in rows]), truth, image, len(index))
    most = int(np.bincount(truth).argmax())
    clip, prototypes, constant = seen == truth, named == truth, truth == most
    trial = Trial(
        images=len(np.unique(image)),
        crops=len(rows),
        constant=graph.fine[most],
        constant_right=float(constant.mean()),
        clip_right=float(clip.mean()),
        prototypes_right=float(prototypes.mean()),
        clip_beats_constant=1 - sign_test(*_votes(clip, constant, image)),
        prototypes_beat_clip=1 - sign_test(*_votes(prototypes, clip, image)),
    )
    chance = trial.clip_beats_constant < CONFIDENCE
    worse = trial.prototypes_beat_clip >= CONFIDENCE
    assign = "prototypes" if chance or worse else "clip"
    return Choice(assign, _sentence(trial, chance=chance, worse=worse), trial)


def sign_test(wins: int, losses: int) -> float:
    """One-sided exact p-value of at least ``wins`` of wins + losses fair coins; 1 where nobody voted."""
    n = wins + losses
    return sum(math.comb(n, k) for k in range(wins, n + 1)) / 2**n if n else 1.0


def _votes(one: np.ndarray, other: np.ndarray, image: np.ndarray) -> tuple[int, int]:
    """Images in which ``one`` names more crops than ``other``, and the reverse; ties vote for nobody."""
    lead = np.bincount(image, one.astype(int) - other.astype(int))
    return int((lead > 0).sum()), int((lead < 0).sum())


def _leave_one_image_out(x: np.ndarray, truth: np.ndarray, image: np.ndarray, count: int) -> np.ndarray:
    """Nearest prototype (n,) of each crop, from the crops of the other images; -1 where there is none, or no vector."""
    good = np.isfinite(x).all(1)
    x = unit(np.where(good[:, None], x, 0).astype(np.float64))
    sums, sizes = np.zeros((count, x.shape[1])), np.bincount(truth[good], minlength=count)
    np.add.at(sums, truth[good], x[good])
    out = np.full(len(x), -1)
    for one in np.unique(image):
        mine = image == one
        own, n = np.zeros_like(sums), np.bincount(truth[mine & good], minlength=count)
        np.add.at(own, truth[mine & good], x[mine & good])
        cosine = np.where(sizes - n > 0, x[mine] @ unit(sums - own).T, -np.inf)
        out[mine] = np.where(np.isfinite(cosine).any(1), cosine.argmax(1), -1)
    return np.where(good, out, -1)


def _sentence(trial: Trial, *, chance: bool, worse: bool) -> str:
    t = trial
    facts = (
        f"of {_count(t.crops, 'labeled crop')} in {_count(t.images, 'image')} CLIP names {t.clip_right:.0%}, always "
        f'"{t.constant}" {t.constant_right:.0%}, prototypes {t.prototypes_right:.0%}'
    )
    if chance:
        return (
            f"concepts by prototypes: CLIP is not told apart from chance ({facts}; confidence "
            f"{_percent(t.clip_beats_constant)}, {CONFIDENCE:.0%} needed)"
        )
    if worse:
        return (
            f"concepts by prototypes: they name more than CLIP ({facts}; confidence {_percent(t.prototypes_beat_clip)})"
        )
    return f"concepts by CLIP: it knows this domain ({facts}; confidence {_percent(t.clip_beats_constant)})"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _percent(share: float) -> str:
    """Never "100 %" for what is not certain."""
    return f"{min(share, 0.999):.1%}"
