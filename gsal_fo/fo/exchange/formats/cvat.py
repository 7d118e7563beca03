"""CVAT for images 1.1: ``annotations.xml``, boxes by corner pixels, polygons, ellipses, masks, turned boxes."""

from typing import Any
from xml.etree.ElementTree import Element, SubElement

from gsal_fo.fo.exchange.formats import geometry
from gsal_fo.fo.exchange.formats.model import Batch, Contents, Document, Format, Labeled, Shape
from gsal_fo.fo.exchange.formats.texts import Odd, label_name, number, plain, refusal, short, write_xml

KIND, NAME = "CVAT for images 1.1 file", "annotations.xml"
CORNERS = ("xtl", "ytl", "xbr", "ybr")
# What says where a shape is; everything else of it is an attribute.
PLACE = (*CORNERS, "label", "points", "rle", "left", "top", "width", "height", "cx", "cy", "rx", "ry")
FLAGS = ("occluded", "outside", "keyframe")
DONE = ("completed",)


def write(batch: Batch) -> None:
    """The file that CVAT's "Upload annotations" takes, for a task made of the images."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "name").text = batch.run_key
    SubElement(task, "size").text = str(len(batch.items))
    SubElement(task, "mode").text = "annotation"
    labels = SubElement(task, "labels")
    for name in batch.classes:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "attributes")
    for place, item in enumerate(batch.items):
        width, height = item.size
        image = SubElement(root, "image", id=str(place), name=item.ref, width=str(width), height=str(height))
        for box in item.boxes:
            corners = dict(zip(CORNERS, (str(v) for v in box.corners(item.size)), strict=True))
            SubElement(image, "box", {"label": box.label, "source": "auto", "occluded": "0", **corners, "z_order": "0"})
    write_xml(root, batch.target.place(NAME))


def claims(root: Any) -> bool:
    """By its root."""
    return isinstance(root, Element) and root.tag == "annotations"


def read(document: Document, out: Contents) -> None:
    """Every image that the file lists. CVAT lists all of a task, opened or not; only a job or task that it states as
    completed says that somebody finished them."""
    root = document.value
    if not claims(root):
        raise refusal(document.path, KIND, f"its root is <{short(root.tag)}>, not <annotations>")
    if root.find("track") is not None:
        raise refusal(document.path, KIND, 'it has tracks, so it is of a video; choose "CVAT for images 1.1"')
    done = _completed(root)
    for place, element in enumerate(root.iter("image")):
        name = element.get("name")
        if not name:
            out.unread.append(f"{document.name}: image {place} has no name")
            continue
        size = (element.get("width"), element.get("height"))
        image = Labeled(name, size=size, source=document.name)
        image.answered = done.get(element.get("task_id"), done.get(None, False))
        for child in element:
            try:
                _add(image, child)
            except Odd as error:
                image.unread.append(f"{short(child.tag)} {short(child.get('label') or '')}: {error}")
        out.images.append(image)


def _completed(root: Element) -> dict[str | None, bool]:
    """Whether the task (None: the file's only one) or its job is completed, by the id of the task."""
    out: dict[str | None, bool] = {}
    for meta in (e for tag in ("task", "job") for e in root.iterfind(f"meta//{tag}")):
        states = [e.text.strip().lower() for tag in ("state", "status") for e in meta.iter(tag) if e.text]
        out[meta.findtext("id")] = bool(states) and all(s in DONE for s in states)
    return {**out, None: bool(out) and all(out.values())}


def _add(image: Labeled, element: Element) -> None:
    """Add a shape to its image."""
    if element.tag == "tag":
        image.dropped["image tags"] += 1
        return
    take = SHAPES.get(element.tag)
    if take is None:
        raise Odd("it has no extent that a box could take")
    shape = take(element, label_name(element.get("label")))
    shape.attributes = _attributes(element)
    assert image.boxes is not None
    image.boxes.append(shape)


def _attributes(element: Element) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in element.attrib.items():
        if key not in PLACE:
            out[key] = value == "1" if key in FLAGS and value in ("0", "1") else plain(value)
    for child in element.iterfind("attribute"):
        out[child.get("name") or "attribute"] = plain(child.text or "")
    return out


def _angle(element: Element) -> float:
    return number(element.get("rotation", "0"), "rotation") % 360


def _box(element: Element, label: str) -> Shape:
    left, top, right, bottom = (number(element.get(n, ""), n) for n in CORNERS)
    box = [left, top, right - left, bottom - top]
    if not (angle := _angle(element)):
        return Shape(label, box)
    ring = geometry.turned(box, angle)
    return Shape(label, geometry.enclosing([ring]), polygons=[ring])


def _polygon(element: Element, label: str) -> Shape:
    ring = geometry.pairs([v for point in element.get("points", "").split(";") for v in point.split(",")])
    return Shape(label, geometry.enclosing([ring]), polygons=[ring])


def _ellipse(element: Element, label: str) -> Shape:
    cx, cy, rx, ry = (number(element.get(n, ""), n) for n in ("cx", "cy", "rx", "ry"))
    box, ring = geometry.ellipse(cx, cy, rx, ry, _angle(element))
    return Shape(label, box, polygons=[ring])


def _mask(element: Element, label: str) -> Shape:
    """Run lengths by row inside a box of whole pixels."""
    left, top, width, height = (int(number(element.get(n, ""), n)) for n in ("left", "top", "width", "height"))
    mask = geometry.from_runs(element.get("rle", "").split(","), width, height)
    (x, y, w, h), part = geometry.cut_out(mask)
    return Shape(label, [left + x, top + y, w, h], mask=part)


SHAPES = {"box": _box, "polygon": _polygon, "ellipse": _ellipse, "mask": _mask}

FORMAT = Format("CVAT for images 1.1", "images", write, "xml", claims, read)
