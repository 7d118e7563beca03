"""Pascal VOC: one ``Annotations/*.xml`` per image, boxes by corner pixels; the layout of a VOCdevkit year."""

import math
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from gsal_fo.fo.exchange.formats import geometry
from gsal_fo.fo.exchange.formats.model import Batch, Contents, Document, Format, Item, Labeled, Shape, straighten
from gsal_fo.fo.exchange.formats.texts import Odd, label_name, number, plain, refusal, short, write_xml

KIND = "Pascal VOC annotation"
SET, MAP = "ImageSets/Main/default.txt", "labelmap.txt"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = ("truncated", "difficult", "occluded")
NESTED = {"part": "parts", "point": "points", "actions": "actions"}  # what a Detection cannot hold
PLACE = ("name", "bndbox", "robndbox", "polygon", "attributes", "segmented")


def write(batch: Batch) -> None:
    """Corners are 0-based, as every tool of today writes and reads them (the original of 2007 counted from 1)."""
    for item in batch.items:
        write_xml(_document(item, batch), batch.target.place(_labels_of(item.name)))
    batch.target.write(SET, "".join(f"{Path(i.name).stem}\n" for i in batch.items))
    # The original has 20 fixed classes; CVAT and datumaro read others from this list.
    batch.target.write(MAP, "# label:color_rgb:parts:actions\n" + "".join(f"{c}:::\n" for c in batch.classes))


def _document(item: Item, batch: Batch) -> Element:
    root = Element("annotation")
    _put(root, "folder", FORMAT.media)
    _put(root, "filename", item.name)
    if not batch.copied:
        _put(root, "path", item.ref)
    size = SubElement(root, "size")
    for side, pixels in (("width", item.size[0]), ("height", item.size[1]), ("depth", 3)):
        _put(size, side, pixels)
    _put(root, "segmented", 0)
    for box in item.boxes:
        thing = SubElement(root, "object")
        _put(thing, "name", box.label)
        _put(thing, "pose", "Unspecified")
        _put(thing, "truncated", 0)
        _put(thing, "difficult", 0)
        place = SubElement(thing, "bndbox")
        for corner, pixel in zip(CORNERS, box.corners(item.size), strict=True):
            _put(place, corner, pixel)
    return root


def _put(parent: Element, name: str, value: object) -> None:
    SubElement(parent, name).text = str(value)


def _labels_of(name: str) -> str:
    return f"Annotations/{Path(name).stem}.xml"


def claims(root: Any) -> bool:
    """By its root."""
    return isinstance(root, Element) and root.tag == "annotation"


def read(document: Document, out: Contents) -> None:
    """The image of a file. Its <filename> may lack the suffix or have another one; the file's own name is the image's
    as a rule. labelImg marks an image that somebody verified."""
    root = document.value
    if not claims(root):
        raise refusal(document.path, KIND, f"its root is <{short(root.tag)}>, not <annotation>")
    full, name = _text(root, "path"), _text(root, "filename")
    # The path is of the labeler's machine: its folders tell images of one name apart, a stale one tells nothing.
    if not name or full.replace("\\", "/").endswith(f"/{name}"):
        name = full or name
    names = [n for n in (name, document.path.stem) if n]
    size = (root.findtext("size/width"), root.findtext("size/height"))
    folder = f"{PurePosixPath(document.name).parent}/"
    image = Labeled(names[0], also=names[1:], size=size, source=document.name, group=folder)
    image.answered = (root.get("verified") or "").strip().lower() in ("yes", "true", "1")
    assert image.boxes is not None
    for thing in root.iterfind("object"):
        if _text(thing, "deleted") == "1":
            continue  # LabelMe keeps what was deleted
        try:
            image.boxes.append(_shape(thing, image))
        except Odd as error:
            image.unread.append(f'object "{short(_text(thing, "name"))}": {error}')
    out.images.append(image)


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _shape(thing: Element, image: Labeled) -> Shape:
    label = label_name(_text(thing, "name"))
    ring = _ring(thing.find("polygon"))
    place, turned = thing.find("bndbox"), thing.find("robndbox")
    angle = 0.0
    if turned is not None:  # roLabelImg: center, sides, radians
        cx, cy, w, h, radians = (number(turned.findtext(n), n) for n in ("cx", "cy", "w", "h", "angle"))
        angle = math.degrees(radians)
        ring = geometry.turned([cx - w / 2, cy - h / 2, w, h], angle)
    if place is not None:
        left, top, right, bottom = (number(place.findtext(n), n) for n in CORNERS)
        box = [left, top, right - left, bottom - top]
    elif ring:
        box = geometry.enclosing([ring])
    else:
        raise Odd("it has no bndbox")
    attributes = _attributes(thing, image) | ({"rotation": angle} if angle else {})
    shape = Shape(label, box, attributes, [ring] if ring else None)
    straighten(shape)
    return shape


def _ring(polygon: Element | None) -> geometry.Ring | None:
    """Roboflow writes x1, y1, x2, y2, ...; LabelMe pt elements with x and y."""
    if polygon is None:
        return None
    points = [(p.findtext("x"), p.findtext("y")) for p in polygon.iterfind("pt")]
    count = 1
    while polygon.find(f"x{count}") is not None:
        points.append((polygon.findtext(f"x{count}"), polygon.findtext(f"y{count}")))
        count += 1
    return geometry.pairs([v for point in points for v in point])


def _attributes(thing: Element, image: Labeled) -> dict[str, Any]:
    """What else is said of an object; CVAT nests its attributes as pairs of name and value."""
    out: dict[str, Any] = {}
    for child in thing:
        if child.tag in NESTED:
            image.dropped[NESTED[child.tag]] += 1
        elif child.tag not in PLACE and not len(child) and (text := (child.text or "").strip()):
            out[child.tag] = text == "1" if child.tag in FLAGS and text in ("0", "1") else plain(text)
    for pair in thing.iterfind("attributes/attribute"):
        out[_text(pair, "name") or "attribute"] = plain(_text(pair, "value"))
    return out


FORMAT = Format("Pascal VOC", "JPEGImages", write, "xml", claims, read)
