"""Words for a concept graph: the vocabulary of attributes and families, and whether a CLIP knows what words mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.concepts.similarity import unit
from gsal_fo.user_files import read_yaml, shown, unprintable

DEFAULT = Path(__file__).parents[2] / "vocabularies" / "default.yaml"
KEYS = ("templates", "attributes", "families")
# Everyday words in groups. A CLIP that read captions puts a group's words closer together than words of two groups.
EVERYDAY = (
    ("dog", "cat", "horse", "rabbit"),
    ("car", "bus", "truck", "motorcycle"),
    ("apple", "banana", "orange", "strawberry"),
    ("chair", "table", "sofa", "bed"),
    ("hammer", "screwdriver", "wrench", "pliers"),
    ("shirt", "jacket", "trousers", "skirt"),
)
KNOWS = 0.7  # share of everyday pairs ranked right below which a CLIP counts as ignorant of everyday words; chance 0.5
SAME = 0.98  # cosine from which two labels' texts are one to CLIP
NARROW = 0.02  # standard deviation of the cosines between labels below which they are nearly constant

EncodeText = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Vocabulary:
    """Words to name families and attributes with; ``templates`` put each into a phrase for CLIP."""

    attributes: tuple[str, ...]
    families: tuple[str, ...]
    templates: tuple[str, ...] = ("a photo of a {}",)

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Vocabulary":
        """Read a vocabulary (YAML with ``attributes`` and optionally ``families`` and ``templates``); None is the
        packaged one. Raises ValueError naming the file and what is wrong with it."""
        path = Path(path) if path is not None else DEFAULT
        values = read_yaml(path, "the vocabulary", numbers=False)
        cure = "write `attributes: [dark, round]`, and if wanted `families: [...]` and `templates: [...]`"
        if not isinstance(values, Mapping) or set(values) - set(KEYS) or not values.get("attributes"):
            raise ValueError(f"{path}: expected a mapping with attributes and only {', '.join(KEYS)}; {cure}")
        words: dict[str, tuple[str, ...]] = {}
        for key in KEYS:
            given = values.get(key, [])
            if not isinstance(given, list) or not all(isinstance(w, str) and w.strip() for w in given):
                raise ValueError(f"{path}: `{key}` is not a list of texts (quote words like yes and no); {cure}")
            if bad := [w for w in given if unprintable(w.strip())]:
                raise ValueError(f"{path}: `{key}` holds a line break or control character in {shown(bad[0])}; mend it")
            words[key] = tuple(dict.fromkeys(w.strip() for w in given))
        if both := sorted(set(words["attributes"]) & set(words["families"])):
            raise ValueError(f"{path}: {shown(both[0])} is an attribute and a family; rename one of the two")
        if bad := [t for t in words["templates"] if t.count("{}") != 1]:
            raise ValueError(f"{path}: template {shown(bad[0])} has no single {{}}; put one {{}} where the word goes")
        return cls(words["attributes"], words["families"], words["templates"] or cls.templates)

    def without(self, taken: Sequence[str]) -> "Vocabulary":
        """The vocabulary without words that are already names in a graph, where they would stand on two levels."""
        names = {_plain(t) for t in taken}
        keep = {k: tuple(w for w in getattr(self, k) if _plain(w) not in names) for k in ("attributes", "families")}
        return Vocabulary(keep["attributes"], keep["families"], self.templates)


def spoken(word: str) -> str:
    """A name as a person says it: "rolled-in_scale" is "rolled-in scale"."""
    return " ".join(word.replace("_", " ").split()) or word


def phrases(words: Sequence[str], templates: Sequence[str]) -> list[str]:
    """All texts that `embed_words` needs."""
    return [t.format(spoken(w)) for w in words for t in templates]


class Texts:
    """Texts embedded once, all together and in sorted order, so that no embedding depends on what was asked first."""

    def __init__(self, texts: Sequence[str], encode_text: EncodeText) -> None:
        ordered = sorted(set(texts))
        rows = np.asarray(encode_text(ordered), dtype=np.float64)
        if rows.ndim != 2 or len(rows) != len(ordered) or not np.isfinite(rows).all():
            raise ValueError("the CLIP model gave no usable text embeddings; name another one with --clip")
        self._rows = dict(zip(ordered, unit(rows), strict=True))

    def words(self, words: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        """Unit rows (n, D): per word the mean over its templates."""
        groups = [[self._rows[t.format(spoken(w))] for t in templates] for w in words]
        return unit(np.array([np.mean(g, axis=0) for g in groups]))


def everyday_phrases() -> list[str]:
    """The texts of the everyday check."""
    return [f"a photo of a {w}" for group in EVERYDAY for w in group]


def everyday_knowledge(texts: Texts) -> float:
    """Share in [0, 1] of (pair of one group, pair of two groups) in which CLIP finds the first more alike (an AUROC):
    0.5 is chance."""
    words = [w for group in EVERYDAY for w in group]
    group = np.array([i for i, g in enumerate(EVERYDAY) for _ in g])
    x = texts.words(words, ["a photo of a {}"])
    upper = np.triu_indices(len(words), 1)
    cosine, same = (x @ x.T)[upper], (group[:, None] == group)[upper]
    gaps = cosine[same][:, None] - cosine[~same][None, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


def doubts(labels: Sequence[str], embeddings: np.ndarray, knowledge: float | None) -> list[str]:
    """Sentences about what CLIP cannot tell apart; empty where nothing speaks against its texts.

    Args:
        labels: L names.
        embeddings: their unit rows (L, D).
        knowledge: `everyday_knowledge`, or None where the labels are known to be words that the CLIP was taught.
    """
    out = []
    a, b = np.triu_indices(len(labels), 1)
    cosine = (embeddings @ embeddings.T)[a, b]
    if len(cosine) > 1 and cosine.std() < NARROW:
        out.append(
            f"CLIP cannot tell these labels apart: all cosines between them are {cosine.mean():.2f} "
            f"(standard deviation {cosine.std():.3f}); its families and attributes are guesses, edit them"
        )
    else:
        pairs = [f"{labels[a[i]]} and {labels[b[i]]}" for i in np.flatnonzero(cosine > SAME)]
        if pairs:
            more = f" and {len(pairs) - 5} more pairs" if len(pairs) > 5 else ""
            out.append(f"CLIP cannot tell apart {'; '.join(pairs[:5])}{more}; check where they stand")
    if knowledge is not None and knowledge < KNOWS:
        out.append(
            f"this CLIP does not know everyday words: it finds words of one kind closer than words of two kinds in "
            f"{knowledge:.0%} of cases, chance is 50 %; families and attributes are guesses, so name another --clip, "
            f"use --llm-url, or write the file by hand"
        )
    return out


def _plain(name: str) -> str:
    return spoken(name).casefold()
