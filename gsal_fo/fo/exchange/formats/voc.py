"""Pascal VOC: one ``Annotations/*.xml`` per image, boxes by corner pixels; the layout of a VOCdevkit year."""

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from gsal_fo.fo.exchange.formats.model import Batch, Format, Item, Labeled, Shape, read_xml, refusal, write_xml

KIND = "Pascal VOC annotation"
SET, MAP = "ImageSets/Main/default.txt", "labelmap.txt"


def write(batch: Batch) -> None:
    """Corners are 0-based, as every tool of today writes and reads them (the original of 2007 counted from 1)."""
    for item in batch.items:
        write_xml(_document(item, batch), batch.target.place(_labels_of(item.name)))
    batch.target.write(SET, "".join(f"{Path(i.name).stem}\n" for i in batch.items))
    # The original has 20 fixed classes; CVAT and datumaro read others from this list.
    batch.target.write(MAP, "# label:color_rgb:parts:actions\n" + "".join(f"{c}:::\n" for c in batch.classes))


def _document(item: Item, batch: Batch) -> Element:
    root = Element("annotation")
    _add(root, "folder", FORMAT.media)
    _add(root, "filename", item.name)
    if not batch.copied:
        _add(root, "path", item.ref)
    size = SubElement(root, "size")
    for side, pixels in (("width", item.size[0]), ("height", item.size[1]), ("depth", 3)):
        _add(size, side, pixels)
    _add(root, "segmented", 0)
    for box in item.boxes:
        thing = SubElement(root, "object")
        _add(thing, "name", box.label)
        _add(thing, "pose", "Unspecified")
        _add(thing, "truncated", 0)
        _add(thing, "difficult", 0)
        place = SubElement(thing, "bndbox")
        for corner, pixel in zip(("xmin", "ymin", "xmax", "ymax"), box.corners(item.size), strict=True):
            _add(place, corner, pixel)
    return root


def _add(parent: Element, name: str, value: object) -> None:
    SubElement(parent, name).text = str(value)


def files(batch: Batch) -> list[str]:
    """What `write` leaves."""
    return [SET, MAP, *(_labels_of(i.name) for i in batch.items)]


def _labels_of(name: str) -> str:
    return f"Annotations/{Path(name).stem}.xml"


def read(path: Path, label_field: str) -> list[Labeled]:
    """Every image that has a file; ``path`` is one of them or their folder."""
    return [_read(p) for p in (sorted(path.rglob("*.xml")) if path.is_dir() else [path])]


def _read(path: Path) -> Labeled:
    root = read_xml(path, KIND)
    if root.tag != "annotation":
        raise refusal(path, KIND, f"its root is <{root.tag}>, not <annotation>")
    full, name = (root.findtext("path") or "").strip(), (root.findtext("filename") or "").strip()
    # Tools write paths of the labeler's machine; a bare name matches more.
    size = root.findtext("size/width"), root.findtext("size/height")
    numbers = tuple(int(float(v)) for v in size if v and v.replace(".", "", 1).isdigit())
    out = Labeled(full if full and Path(full).is_file() else name or path.stem, stem=not name)
    out.size = (numbers[0], numbers[1]) if len(numbers) == 2 else None
    for thing in root.iter("object"):
        label, place = (thing.findtext("name") or "").strip(), thing.find("bndbox")
        if not label or place is None:
            out.unread.append("an object without a name or a bndbox")
            continue
        try:
            left, top, right, bottom = (float(place.findtext(n) or "") for n in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            out.unread.append(f'"{label}": its bndbox has no four numbers')
            continue
        assert out.boxes is not None
        out.boxes.append(Shape(label, [left, top, right - left, bottom - top]))
    return out


def found(folder: Path) -> Path | None:
    """VOCdevkit's folder, or files that lie side by side."""
    if (folder / "Annotations").is_dir():
        return folder / "Annotations"
    first = next(iter(sorted(folder.glob("*.xml"))), None)
    return folder if first is not None and read_xml(first, KIND).tag == "annotation" else None


FORMAT = Format("Pascal VOC", "JPEGImages", files, write, read, found)
