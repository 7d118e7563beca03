"""Formats of labeling tools: one file each, with a writer and a reader; here is found out which a path holds."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gsal_fo.fo.exchange.formats import coco, cvat, fiftyone, labelstudio, voc, yolo
from gsal_fo.fo.exchange.formats.model import Batch, Box, Format, Item, Labeled, Shape, check_size, read_xml, unpack
from gsal_fo.fo.exchange.formats.target import MEDIA, Target, file_digest

FORMATS: dict[str, Format] = {
    "coco": coco.FORMAT,
    "yolo": yolo.FORMAT,
    "voc": voc.FORMAT,
    "cvat": cvat.FORMAT,
    "labelstudio": labelstudio.FORMAT,
    "fiftyone": fiftyone.FORMAT,
}
ORDER = ("fiftyone", "cvat", "voc", "labelstudio", "coco", "yolo")  # the surest sign first

__all__ = [
    "FORMATS",
    "MEDIA",
    "Batch",
    "Box",
    "Format",
    "Item",
    "Labeled",
    "Shape",
    "Target",
    "file_digest",
    "opened",
    "read",
]


def read(path: Path, format: str, label_field: str) -> list[Labeled]:
    """The images of a label file or of a folder (an unpacked archive), by format; "auto" finds out.

    Raises:
        ValueError: another format than it says, broken, or none that is known.
    """
    name, place = _of(path, format)
    return FORMATS[name].read(place, label_field)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """A label file as it is; a zip unpacked into a folder that goes afterwards."""
    if path.suffix.lower() != ".zip":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="gsal-labels-") as place:
        unpack(path, Path(place))
        yield Path(place)


def _of(path: Path, format: str) -> tuple[str, Path]:
    """Format and the file or folder to read."""
    wanted = ORDER if format == "auto" else (format,)
    if not path.is_dir():
        return (_kind(path) if format == "auto" else format), path
    # Tools wrap an export in one folder, and some put the annotations in one of their own.
    inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.is_symlink())
    for folder in (path, *inner):
        for name in wanted:
            if place := FORMATS[name].found(folder):
                return name, place
    known = ", ".join(FORMATS[name].title for name in wanted)
    raise ValueError(f"{path} holds no labels in a format that is known here ({known}); name the label file itself")


def _kind(path: Path) -> str:
    """The format of one file, from its content."""
    suffix = path.suffix.lower()
    check_size(path)
    if suffix == ".xml":
        return "voc" if read_xml(path, "XML label file").tag == "annotation" else "cvat"
    if suffix in (".yaml", ".names", ".txt"):
        return "yolo"
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return "coco"  # whose reader says what is wrong
    if isinstance(value, list) and value:
        return "labelstudio"
    return "fiftyone" if isinstance(value, dict) and "samples" in value else "coco"
