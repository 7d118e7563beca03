"""What every format writes and reads: a batch on its way out, an image with its boxes on its way back."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.fo.exchange.formats import geometry
from gsal_fo.fo.exchange.formats.target import Target
from gsal_fo.fo.exchange.formats.texts import Odd, number
from gsal_fo.fo.exchange.formats.tree import Tree

CLOSE = 1.0  # pixels between a box and its outline that rounding explains


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


def straighten(shape: Shape) -> None:
    """Make the box of a turned shape the enclosing one.

    Formats that lack turned boxes (CVAT's COCO and VOC exports) have it as it lies before it is turned, and the angle
    as an attribute called rotation.
    """
    try:
        angle = number(shape.attributes.get("rotation", 0)) % 360
    except Odd:
        return  # an attribute of that name which is no angle
    if not angle or shape.mask is not None:
        return
    if shape.polygons is None:
        shape.polygons = [geometry.turned(shape.box, angle)]
    around = geometry.enclosing(shape.polygons)
    if max(abs(u - v) for u, v in zip(around, shape.box, strict=True)) > CLOSE:
        shape.box = around


@dataclass
class Labeled:
    """One image as a label file has it.

    ``name``: what the file calls it, with or without suffix; ``also``: other names that it may have. ``boxes``: its
    objects as found, not yet checked; None where the labeler has not got to it. ``size``: width and height in pixels as
    the file states them, not yet checked, None: it states none; ``relative``: the objects are in shares of the image's
    sides, not in pixels. ``id``: the sample that the export put beside it. ``source``: the file; ``group``: names what
    one tool wrote in one way, the file or, of a file per image, its folder.

    ``answered``: the file holds a sign that somebody finished this image, so that even no object is an answer; a format
    without such a sign leaves it False. ``blank``: the image has a label file of its own and it is empty, which is how
    YOLO writes a background image; an answer only where the image was not handed out with an empty file.

    ``unread``: what could not be understood, a reason each: such an image stays unlabeled and is named. ``dropped``:
    what annotators wrote that a Detection cannot hold, with counts. ``stretched``: the file's makers say that they
    stretched the image to ``size``.
    """

    name: str
    boxes: list[Shape] | None = field(default_factory=list)
    size: tuple[Any, Any] | None = None
    relative: bool = False
    id: Any = None
    also: list[str] = field(default_factory=list)
    source: str = ""
    group: str = ""
    answered: bool = False
    blank: bool = False
    stretched: bool = False
    unread: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.group = self.group or self.source


@dataclass
class Contents:
    """What was read: ``images``; ``unread``: sentences about files, and about entries that belong to no image;
    ``notes``: what was decided in reading."""

    images: list[Labeled] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    """One JSON or XML file: ``value`` is its content, ``name`` its path for messages, below the folder that was
    given."""

    path: Path
    name: str
    value: Any
    label_field: str


@dataclass(frozen=True)
class Format:
    """One format.

    ``media`` names the folder of its images. A reader of documents says which it ``claims`` by their content, and adds
    what it reads to the contents; it raises ValueError for a document that it does not claim. A reader of a folder of
    texts has ``gather`` instead; ``kind`` is "json", "xml" or "txt".
    """

    title: str
    media: str
    write: Callable[[Batch], None]
    kind: str
    claims: Callable[[Any], bool] = lambda value: False
    read: Callable[[Document, Contents], None] | None = None
    gather: Callable[[Tree, Contents], None] | None = None
