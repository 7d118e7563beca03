"""The manifest of an export: which images were handed over, with which boxes, and what every file held."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from gsal_fo.fo.exchange.handoffs import Sent

KIND, VERSION, NAME = "gsal-export", 2, "manifest.json"
ENTRY = ("file", "id", "sha256", "source")  # what finding an image again needs


def read(path: Path) -> dict[str, Any]:
    """An export's manifest, checked; raises ValueError, with one sentence, for anything else."""
    try:
        raw = path.read_bytes()
        value = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no readable manifest ({error}); give the {NAME} of a GSAL export") from error
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise ValueError(f"{path} is no manifest of a GSAL export; give the {NAME} that gsal export wrote")
    if problem := _problem(value):
        raise ValueError(f"{path} was altered: {problem}; give the {NAME} as gsal export wrote it"[:400])
    return value


def beside(folder: Path) -> dict[str, Any] | None:
    """The manifest in a folder of labels or in the one above it; another tool's file of that name is passed over."""
    for path in (folder / NAME, folder.parent / NAME):
        if path.is_file() and is_ours(path):
            return read(path)
    return None


def check_complete(manifest: dict[str, Any], path: Path) -> None:
    """Raise ValueError for the manifest of an export that was cut short: nobody can have been sent it."""
    if manifest.get("complete") is not True:
        raise ValueError(f"{path} is of an export that was cut short; give the same gsal export again to complete it")


def sent(manifest: dict[str, Any]) -> dict[str, list[Sent]]:
    """Sample id -> what the export sent with it; manifests of before that was kept lack the boxes."""
    return {
        e["id"]: [Sent([(label, box) for label, *box in e.get("boxes", [])], _size(e))]
        for e in manifest.get("images", [])
    }


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    sides = entry.get("width"), entry.get("height")
    known = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in sides)
    return sides if known else None  # type: ignore[return-value]


def is_ours(path: Path) -> bool:
    """Also of a manifest that is broken: passing over it would take pre-labels for labels."""
    try:
        raw = path.read_bytes()
        return KIND.encode() in raw or b'"gsal_fo"' in raw  # the first stands near the end
    except OSError:
        return False


def _problem(manifest: dict[str, Any]) -> str | None:
    """What is wrong with the manifest, or None."""
    images, files = (manifest.get(name, []) for name in ("images", "files"))
    written = manifest.get("written", {})
    if not isinstance(images, list):
        return "images is no list"
    for k, entry in enumerate(images):
        if problem := _entry_problem(entry):
            return f"images[{k}] {problem}"
    for name in ("id", "file"):
        twice = [v for v, n in Counter(e[name] for e in images).items() if n > 1]
        if twice:
            return f"two images have the {name} {twice[0]!r}"
    if not isinstance(files, list) or not all(isinstance(f, str) and "\0" not in f for f in files):
        return "files is no list of names"
    if not isinstance(written, dict) or not all("\0" not in k and _is_digest(v) for k, v in written.items()):
        return "written does not hold a digest for each file"
    return None


def _is_digest(value: Any) -> bool:
    """One, or those that a file may have whose export was cut short."""
    return all(isinstance(v, str) for v in (value if isinstance(value, list) else [value]))


def _entry_problem(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "is no object"
    for name in ENTRY:
        if not isinstance(entry.get(name), str) or not entry[name]:
            return f"has no text named {name}"
    boxes = entry.get("boxes", [])
    if not isinstance(boxes, list) or not all(_is_box(b) for b in boxes):
        return "has a box that is not [label, x, y, width, height]"
    return None


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 5
        and isinstance(box[0], str)
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in box[1:])
    )
