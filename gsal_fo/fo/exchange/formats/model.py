"""What every format writes and reads: a batch on its way out, an image with its boxes on its way back."""

import json
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, ParseError, indent

import defusedxml.ElementTree as safe
import numpy as np
from defusedxml import DefusedXmlException

from gsal_fo.fo.exchange.formats.target import Target

MOST = 1 << 30  # bytes of a label file, or of all label files of an archive: what memory takes in one piece


@dataclass(frozen=True)
class Box:
    """One pre-label: ``xywh_rel`` as FiftyOne has it, ``confidence`` in [0, 1]."""

    label: str
    xywh_rel: list[float]
    confidence: float

    def corners(self, size: tuple[int, int]) -> list[float]:
        """``xyxy_px`` in an image of ``size`` (width, height), to a thousandth of a pixel, never outside."""
        (x, y, w, h), (width, height) = self.xywh_rel, size
        corners = zip((x, y, x + w, y + h), (width, height) * 2, strict=True)
        return [round(min(max(v, 0.0), 1.0) * side, 3) for v, side in corners]


@dataclass
class Item:
    """One exported image. ``name``: its file name in the export; ``ref``: how label files name it; ``size``: upright
    width and height in pixels; ``row``: rank, score and the other facts of scores.csv."""

    id: str
    source: Path
    name: str
    ref: str
    size: tuple[int, int]
    boxes: list[Box]
    row: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """What a writer gets. ``classes``: all fine nodes of the graph, in its order; ``copied``: whether images lie in the
    export or are only named by their paths."""

    items: list[Item]
    classes: list[str]
    target: Target
    label_field: str
    run_key: str
    copied: bool


@dataclass
class Shape:
    """One annotated object as a label file has it, in the frame of its `Labeled`.

    ``box``: [x, y, width, height] from the top left; of anything but an upright box the enclosing one. ``polygons``:
    rings of [x, y] points, where an outline was drawn (of a turned box its four corners). ``mask``: True where the
    object is, two-dimensional, stretched over the box. ``attributes``: whatever else the tool wrote of it, by the
    tool's own names (``iscrowd``, ``occluded``, ``difficult``, ``rotation`` in degrees clockwise, custom ones).
    """

    label: str
    box: list[float]
    attributes: dict[str, Any] = field(default_factory=dict)
    polygons: list[list[list[float]]] | None = None
    mask: np.ndarray | None = None


@dataclass
class Labeled:
    """One image as a label file has it.

    ``boxes``: its objects as found, not yet checked; None where the labeler has not got to it. ``size``: width and
    height in pixels that they are measured in, None: ask the image; ``relative``: they are shares of the image's
    sides. ``id``: the sample that the export put beside it. ``stem``: ``name`` lacks its suffix. ``answered``: the file
    holds a sign that somebody finished this image, so that even no object is an answer; a format without such a sign
    leaves it False. ``blank``: the image has a label file of its own and it is empty, which is how YOLO writes a
    background image; an answer only where the image was not handed out with an empty file. ``unread``: what could not
    be understood, a reason each: such an image stays unlabeled and is named. ``dropped``: what annotators wrote that a
    Detection cannot hold, with counts.
    """

    name: str
    boxes: list[Shape] | None = field(default_factory=list)
    size: tuple[Any, Any] | None = None
    relative: bool = False
    id: Any = None
    stem: bool = False
    answered: bool = False
    blank: bool = False
    unread: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Format:
    """One format: ``media`` names the folder of its images, ``files`` what `write` will leave beside them, ``found``
    the path in a folder by which an export of this format is known."""

    title: str
    media: str
    files: Callable[[Batch], list[str]]
    write: Callable[[Batch], None]
    read: Callable[[Path, str], list[Labeled]]
    found: Callable[[Path], Path | None]


def refusal(path: Path, kind: str, what: str) -> ValueError:
    """The one sentence about a file that cannot be taken."""
    return ValueError(f"{path} is no {kind}: {what}; export it from the labeling tool again and try once more")


def read_json(path: Path, kind: str) -> Any:
    """The content of a JSON file; raises ValueError with one sentence where it is broken or too large."""
    check_size(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise refusal(path, kind, f"it is not readable JSON ({error})") from error


def read_xml(path: Path, kind: str) -> Element:
    """The root of an XML file, read without entities and without anything from outside."""
    check_size(path)
    try:
        root: Element | None = safe.parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise refusal(path, kind, "it declares a DTD or entities, which are never read") from error
    except (OSError, ValueError, ParseError, RecursionError) as error:
        raise refusal(path, kind, f"it is not readable XML ({error})") from error
    return root if root is not None else Element("")


def write_xml(root: Element, path: Path, *, declaration: bool = True) -> None:
    """Write a document, indented for a person."""
    indent(root)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=declaration)


def check_size(path: Path) -> None:
    """Raise ValueError for a file that is too large to be read in one piece."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > MOST:
        raise ValueError(f"{path} has {size / 1e9:.1f} GB; label files may have {MOST / 1e9:.1f}: export in parts")


def unpack(archive: Path, place: Path) -> None:
    """Unpack the label files of a zip into ``place``; pictures, and whatever is named outside of it, are left out.

    Raises:
        ValueError: it is no zip, is broken, or would unpack to too much.
    """
    kinds = (".json", ".xml", ".txt", ".yaml", ".names")
    try:
        with zipfile.ZipFile(archive) as bundle:
            wanted = [m for m in bundle.infolist() if m.filename.lower().endswith(kinds) and _inside(m.filename)]
            if sum(m.file_size for m in wanted) > MOST:
                raise ValueError(f"{archive} unpacks to more than {MOST / 1e9:.1f} GB of labels: export in parts")
            bundle.extractall(place, wanted)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"{archive} is no readable zip ({error}); export it again") from error


def _inside(name: str) -> bool:
    parts = Path(name.replace("\\", "/")).parts
    return ".." not in parts and not Path(name).is_absolute()
