"""Finding out what a path holds, by content alone, and reading all of it: each split, each file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from gsal_fo.fo.exchange.formats.model import Contents, Document, Format
from gsal_fo.fo.exchange.formats.registry import FORMATS, ORDER
from gsal_fo.fo.exchange.formats.texts import read_bytes, read_json, read_xml, short
from gsal_fo.fo.exchange.formats.tree import Tree, preparation

NAMED = 3  # files that a note names
FOREIGN = {  # formats that are not read, by keys that only they have
    "LabelMe or X-AnyLabeling": {"shapes", "imagePath"},
    "Datumaro": {"items", "categories"},
    "the VGG Image Annotator": {"_via_img_metadata"},
    "Supervisely": {"objects", "size"},
}


def read(path: Path, format: str, label_field: str) -> Contents:
    """Everything that a label file, or a folder (an unpacked archive), says of images; "auto" finds out the format.

    A file or entry that cannot be read is listed in the contents, and the rest is read.

    Raises:
        ValueError: nothing can be read, or a folder holds labels in several formats.
    """
    wanted = ORDER if format == "auto" else (format,)
    if not path.is_dir():
        return _read_file(path, format, label_field)
    tree = Tree(path)
    found = {name: Contents() for name in wanted}
    other, foreign = Contents(), ""
    for document in _documents(tree, label_field, {FORMATS[n].kind for n in wanted}, other):
        name = next((n for n in wanted if FORMATS[n].claims(document.value)), None)
        if name is not None:
            _add(FORMATS[name], document, tree, found[name])
        elif not _known(document.value):
            other.notes.append(document.name)
            foreign = foreign or _foreign(document.value)
    for name in wanted:
        if (gather := FORMATS[name].gather) is not None:
            _gather(gather, tree, found[name])
    full = [name for name in wanted if found[name].images]
    if len(full) > 1:
        what = ", ".join(f"{FORMATS[n].title} ({len(found[n].images)} images)" for n in full)
        raise ValueError(f"{path} holds labels in several formats: {what}; choose one as format ({', '.join(full)})")
    if not full:
        problems = [p for c in (*found.values(), other) for p in c.unread]
        if problems:
            raise ValueError(problems[0])
        known = ", ".join(FORMATS[name].title for name in wanted)
        strange = f" ({_some(other.notes)}: content that is not known{foreign})" if other.notes else ""
        raise ValueError(
            f"{path} holds no labels in a format that is known here ({known}); name the label file itself{strange}"
        )
    out = found[full[0]]
    for rest in (other, *(found[n] for n in wanted if n != full[0])):
        out.unread += rest.unread
    if other.notes:
        out.notes.append(f"passed over, since they hold no labels: {_some(other.notes)}")
    return out


def _read_file(path: Path, format: str, label_field: str) -> Contents:
    out = Contents()
    tree = Tree(path.parent, path)
    kind = FORMATS[format].kind if format != "auto" else _kind(path)
    if kind == "txt":
        _gather(FORMATS["yolo"].gather, tree, out, strict=True)
        return out
    name = format if format != "auto" else None
    title = FORMATS[name].title if name else ("XML label file" if kind == "xml" else "JSON label file")
    value = read_xml(path, f"{title} file") if kind == "xml" else read_json(path, f"{title} file")
    if name is None:
        name = next((n for n in ORDER if FORMATS[n].kind == kind and FORMATS[n].claims(value)), None)
    if name is None:  # whose reader says what is wrong
        name = "cvat" if kind == "xml" else "labelstudio" if isinstance(value, list) and value else "coco"
    if foreign := _foreign(value):
        raise ValueError(f"{path} holds no labels in a format that is known here{foreign}")
    reader = FORMATS[name].read
    assert reader is not None
    reader(Document(path, path.name, value, label_field), out)
    _prepare(out.images, tree, path.parent)
    if not out.images and out.unread:
        raise ValueError(f"{path} holds no image that can be read: {out.unread[0]}")
    return out


def _documents(tree: Tree, label_field: str, kinds: set[str], out: Contents) -> Iterator[Document]:
    """The JSON and XML files of a folder, one at a time; broken ones are listed."""
    readers = {".json": ("json", read_json), ".xml": ("xml", read_xml)}
    for path in tree.of(*readers):
        kind, parse = readers[path.suffix.lower()]
        if kind not in kinds:
            continue
        try:
            value = parse(path, f"{kind.upper()} label file")
        except ValueError as error:
            out.unread.append(str(error))
            continue
        yield Document(path, tree.name(path), value, label_field)


def _add(format: Format, document: Document, tree: Tree, out: Contents) -> None:
    """Read one document; where its reader refuses it, what it had added before goes again."""
    assert format.read is not None
    here = Contents()
    try:
        format.read(document, here)
    except ValueError as error:
        out.unread.append(str(error))
        return
    _prepare(here.images, tree, document.path.parent)
    out.images += here.images
    out.unread += here.unread
    out.notes += here.notes


def _gather(gather: Any, tree: Tree, out: Contents, *, strict: bool = False) -> None:
    here = Contents()
    try:
        gather(tree, here)
    except ValueError as error:
        if strict:
            raise
        out.unread.append(str(error))
        return
    for image in here.images:
        _prepare([image], tree, (tree.root / image.source).parent)
    out.images += here.images
    out.notes += here.notes


def _prepare(images: list[Any], tree: Tree, folder: Path) -> None:
    """What Roboflow's README says of the images of one folder."""
    if not images:
        return
    facts = preparation(tree, folder)
    for image in images:
        image.stretched = facts.stretched
        if facts.odd:
            image.unread.append(facts.odd)
        if facts.augmented and "train" in Path(image.source).parts:
            image.unread.append("Roboflow augmented the training images, says its README; export without augmentation")


def _kind(path: Path) -> str:
    """What a single file is written in."""
    head = read_bytes(path)[:1024].lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n").replace(b"\x00", b"")
    if path.suffix.lower() in (".yaml", ".yml", ".names", ".labels", ".data"):
        return "txt"
    if head.startswith(b"<"):
        return "xml"
    return "txt" if path.suffix.lower() == ".txt" and not head.startswith((b"{", b"[")) else "json"


def _known(value: Any) -> bool:
    """Files that lie beside labels as a rule, and are none: our manifest, FiftyOne's metadata, configurations and notes
    of Label Studio, LVIS's and datumaro's lists of classes."""
    if isinstance(value, Element):
        return value.tag == "View"
    if not isinstance(value, dict):
        return False
    few = set(value) <= {"categories", "info", "label_colors", "labels"}
    return value.get("kind") == "gsal-export" or "sample_fields" in value or few


def _foreign(value: Any) -> str:
    """Which other tool wrote a document, and what to do; empty: not known."""
    keys = set(value) if isinstance(value, dict) else set()
    tool = next((tool for tool, own in FOREIGN.items() if own <= keys), None)
    return f", it looks like {tool}: export COCO, YOLO or Pascal VOC from there" if tool else ""


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(short(n) for n in names[:NAMED]) + more
