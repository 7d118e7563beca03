"""Which sample an image of a label file is: by the export's manifest, by the digest of the file, or by its path."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.fo.exchange.formats import FORMATS, Labeled, file_digest

UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio's name of an uploaded file


def match(dataset: fo.Dataset, folder: Path, images: list[Labeled], manifest: dict[str, Any] | None) -> dict[int, str]:
    """Place in ``images`` -> sample id; an image that fits none, or several, is left out: a guess would label the wrong
    one.

    Args:
        dataset: where the samples are.
        folder: where the label file lies; the tool may have left the images near it.
        images: what was read.
        manifest: of the export that was labeled; with one, only its images can be meant.
    """
    ids, paths = dataset.values(["id", "filepath"])
    here = set(ids)
    entries = [e for e in (manifest or {}).get("images", []) if e["id"] in here]
    if manifest:
        known = [(e["id"], e["file"]) for e in entries]
        allowed = {e["id"] for e in entries}
    else:
        known, allowed = list(zip(ids, paths, strict=True)), here
    by_digest = {e["sha256"]: e["id"] for e in entries}
    by_path = {e["source"]: e["id"] for e in entries}
    by_base: dict[str, list[tuple[str, str]]] = defaultdict(list)
    by_stem: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for i, path in known:
        by_base[Path(path).name].append((i, path))
        by_stem[Path(path).stem].append((i, path))
    out = {}
    for k, image in enumerate(images):
        name = image.name.replace("\\", "/")
        if image.id in allowed:  # the export put it there
            out[k] = str(image.id)
        elif name in by_path:
            out[k] = by_path[name]
        else:
            names = by_stem if image.stem else by_base
            sample = _by_path(names, name, alone=image.stem or manifest is not None)
            if sample is None and by_digest:
                digests = (file_digest(file) for file in _beside(folder, name))
                sample = next((by_digest[d] for d in digests if d in by_digest), None)
            if sample is not None:
                out[k] = sample
    return out


def _by_path(names: dict[str, list[tuple[str, str]]], name: str, *, alone: bool) -> str | None:
    """The one sample whose path ends with the name; ``alone``: its last part is enough where only one has it."""
    wanted = Path(name).parts
    if not wanted:
        return None
    candidates = names.get(wanted[-1], [])
    if not candidates and (plain := UPLOADED.fullmatch(wanted[-1])):
        wanted, candidates = (plain[1],), names.get(plain[1], [])
    if len(candidates) == 1 and (alone or len(wanted) == 1):
        return candidates[0][0]
    fits = [i for i, path in candidates if Path(path).parts[-len(wanted) :] == wanted]
    return fits[0] if len(fits) == 1 else None


def _beside(folder: Path, name: str) -> Iterator[Path]:
    """Image files that an entry may mean, where the tool left them near its labels."""
    media = dict.fromkeys(kind.media for kind in FORMATS.values())
    parts = Path(name).parts
    for place in (*(folder / m for m in media), folder, *(folder.parent / m for m in media)):
        for candidate in {place / name, place / Path(name).name} if ".." not in parts else {place / Path(name).name}:
            if candidate.is_file():
                yield candidate
