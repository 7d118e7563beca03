"""Which sample an image of a label file is: by the export's manifest, by the digest of the file, or by its name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsal_fo.fo.exchange import names
from gsal_fo.fo.exchange.formats import FORMATS, Labeled, file_digest

# How a base name is compared, the surest first. A looser one counts only where no surer one finds anything.
KEYS: tuple[Callable[[str], str], ...] = (
    lambda base: base,
    str.casefold,
    lambda base: names.stem(base),
    lambda base: names.stem(base).casefold(),
    lambda base: names.loose(names.stem(base)),
)
CERTAIN = -1  # the rank of what the export put there


@dataclass
class Match:
    """``samples``: place in the images -> sample id; ``ambiguous``: place -> why no sample was chosen."""

    samples: dict[int, str] = field(default_factory=dict)
    ambiguous: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    """A sample, and how surely: rank of the comparison (lower is surer), then how many parts of the paths agree."""

    sample: str
    rank: int
    common: int

    @property
    def order(self) -> tuple[int, int]:
        return self.rank, -self.common


class _Index:
    """Samples by their base names, in each way of comparing them; only those that one of ``images`` may mean."""

    def __init__(self, known: list[tuple[str, str]], images: list[Labeled]) -> None:
        asked = {parts[-1] for i in images for name in (i.name, *i.also) for parts, _ in names.spellings(name)}
        self.by: list[dict[str, list[tuple[str, names.Parts]]]] = [{key(base): [] for base in asked} for key in KEYS]
        for sample, path in known:
            parts = names.clean(path)
            for key, table in zip(KEYS, self.by, strict=True):
                if parts and (rows := table.get(key(parts[-1]))) is not None:
                    rows.append((sample, parts))

    def find(self, wanted: names.Parts) -> _Found | list[str] | None:
        """The one sample with this name; several where the paths tell none of them apart; None."""
        for rank, (key, table) in enumerate(zip(KEYS, self.by, strict=True)):
            if rows := table.get(key(wanted[-1])):
                common: dict[str, int] = {}
                for sample, parts in rows:
                    common[sample] = max(common.get(sample, 0), _common(wanted, parts))
                best = [s for s, n in common.items() if n == max(common.values())]
                return _Found(best[0], rank, common[best[0]]) if len(best) == 1 else sorted(common)
        return None


def match(samples: Any, folder: Path, images: list[Labeled], manifest: dict[str, Any] | None) -> Match:
    """Find the sample of each image. One that fits several samples is left out and said to: a guess would label the
    wrong one. Where several images mean one sample, those whose name fits it less well are left out.

    Args:
        samples: dataset or flat view whose images can be meant.
        folder: where the label file lies; the tool may have left the images near it.
        images: what was read.
        manifest: of the export that was labeled; with one, only its images can be meant.
    """
    ids, paths = samples.values(["id", "filepath"])
    here = set(ids)
    entries = [e for e in (manifest or {}).get("images", []) if e["id"] in here]
    if manifest is None:
        known = list(zip(ids, paths, strict=True))
    else:
        known = [(e["id"], e[k]) for e in entries for k in ("file", "source")]
    allowed = {sample for sample, _ in known}
    index = _Index(known, images)
    by_digest = {e["sha256"]: e["id"] for e in entries}
    out, found = Match(), dict[int, _Found]()
    for k, image in enumerate(images):
        if isinstance(image.id, str) and image.id in allowed:  # the export put it there
            found[k] = _Found(image.id, CERTAIN, 0)
            continue
        hits = _by_names(image, index)
        if isinstance(hits, str):
            out.ambiguous[k] = hits
        elif hits is not None:
            found[k] = hits
        elif sample := _by_content(folder, image, by_digest):
            found[k] = _Found(sample, 0, 0)
    surest: dict[str, tuple[int, int]] = {}
    for hit in found.values():
        surest[hit.sample] = min(surest.get(hit.sample, hit.order), hit.order)
    out.samples = {k: hit.sample for k, hit in found.items() if hit.order == surest[hit.sample]}
    return out


def _by_names(image: Labeled, index: _Index) -> _Found | str | None:
    """The sample that the image's names mean, why that is in doubt, or None.

    Of one name the plain reading counts before those without what tools put in front; different names (an XML's own and
    its <filename>) must not mean different samples.
    """
    best: dict[str, _Found] = {}
    doubt = None
    for name in (image.name, *image.also):
        for place, (wanted, changed) in enumerate(names.spellings(name)):
            hit = index.find(wanted)
            if isinstance(hit, list):
                doubt = doubt or f"its name fits {len(hit)} samples"
            if isinstance(hit, _Found):
                rank = hit.rank + len(KEYS) * (place if changed else 0)
                hit = _Found(hit.sample, rank, hit.common)
                best[hit.sample] = min(best.get(hit.sample, hit), hit, key=lambda h: h.order)
            if hit is not None:
                break
    if len(best) > 1:
        return f"its names fit {len(best)} samples"
    return next(iter(best.values()), doubt)


def _common(a: names.Parts, b: names.Parts) -> int:
    """How many parts of two paths agree before the base name, from the end."""
    count = 0
    for x, y in zip(reversed(a[:-1]), reversed(b[:-1]), strict=False):
        if x.casefold() != y.casefold():
            break
        count += 1
    return count


def _by_content(folder: Path, image: Labeled, by_digest: dict[str, str]) -> str | None:
    """The sample whose file lies near the labels under the image's name, by its digest."""
    if not by_digest:
        return None
    digests = (file_digest(file) for file in _beside(folder, image.name))
    return next((by_digest[d] for d in digests if d in by_digest), None)


def _beside(folder: Path, name: str) -> Iterator[Path]:
    """Image files that an entry may mean, where the tool left them near its labels."""
    parts = names.clean(name)
    media = dict.fromkeys(kind.media for kind in FORMATS.values())
    for place in (*(folder / m for m in media), folder, *(folder.parent / m for m in media)):
        for below in {parts, parts[-1:]}:
            candidate = place.joinpath(*below)
            try:
                if parts and candidate.is_file():
                    yield candidate
            except (OSError, ValueError):  # a name too long, or with a zero in it, is no file
                continue
