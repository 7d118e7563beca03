"""CVAT for images 1.1: ``annotations.xml``, boxes by corner pixels."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from gsal_fo.fo.exchange.formats.model import Batch, Format, Labeled, Shape, read_xml, refusal, write_xml

KIND, NAME = "CVAT for images 1.1 file", "annotations.xml"
SHAPES = ("polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton")


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
    for number, item in enumerate(batch.items):
        width, height = item.size
        image = SubElement(root, "image", id=str(number), name=item.ref, width=str(width), height=str(height))
        for box in item.boxes:
            left, top, right, bottom = (str(v) for v in box.corners(item.size))
            place = {"xtl": left, "ytl": top, "xbr": right, "ybr": bottom}
            SubElement(image, "box", {"label": box.label, "source": "auto", "occluded": "0", **place, "z_order": "0"})
    write_xml(root, batch.target.place(NAME))


def read(path: Path, label_field: str) -> list[Labeled]:
    """Every image that the file lists."""
    root = read_xml(path, KIND)
    if root.tag != "annotations":
        raise refusal(path, KIND, f"its root is <{root.tag}>, not <annotations>")
    if root.find("track") is not None:
        raise refusal(path, KIND, 'it has tracks, so it is of a video; choose "CVAT for images 1.1"')
    return [_read(image, path) for image in root.iter("image")]


def _read(image: Element, path: Path) -> Labeled:
    name = image.get("name")
    if not name:
        raise refusal(path, KIND, "an <image> has no name")
    size = _number(image.get("width")), _number(image.get("height"))
    out = Labeled(name, size=size)
    assert out.boxes is not None
    for shape in image:
        if shape.tag in SHAPES:
            out.unread.append(f"a {shape.tag}, and only boxes are taken")
        if shape.tag != "box":
            continue
        label = shape.get("label") or ""
        corners = [_number(shape.get(n)) for n in ("xtl", "ytl", "xbr", "ybr")]
        left, top, right, bottom = corners
        if not label or left is None or top is None or right is None or bottom is None:
            out.unread.append("a box without a label or its four corners")
        elif _number(shape.get("rotation")):
            out.unread.append(f'"{label}": a turned box, and only upright ones are taken')
        else:
            out.boxes.append(Shape(label, [left, top, right - left, bottom - top]))
    return out


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def found(folder: Path) -> Path | None:
    """CVAT's own name for it."""
    return folder / NAME if (folder / NAME).is_file() else None


FORMAT = Format("CVAT for images 1.1", "images", lambda batch: [NAME], write, read, found)
