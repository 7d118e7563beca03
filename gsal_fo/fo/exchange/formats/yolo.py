"""YOLO: one ``labels/*.txt`` per image, lines of class and center box in shares of the image, ``data.yaml``.

Here are the writer and the rows of the reader; which files of a folder hold rows, and which the class names, is found
out in `yolo_files`.
"""

from pathlib import Path

import yaml

from gsal_fo.fo.exchange.formats import geometry, yolo_files
from gsal_fo.fo.exchange.formats.model import Batch, Contents, Format, Labeled, Shape
from gsal_fo.fo.exchange.formats.texts import Odd, lines, number, read_text, refusal, short
from gsal_fo.fo.exchange.formats.tree import Tree

KIND = yolo_files.KIND


def write(batch: Batch) -> None:
    """Class names in both places where tools look for them, and for listed images the list that training takes."""
    for item in batch.items:
        lines = []
        for box in item.boxes:
            x, y, w, h = box.xywh_rel
            lines.append(f"{batch.classes.index(box.label)} {x + w / 2:.6f} {y + h / 2:.6f} {w:.6f} {h:.6f}\n")
        batch.target.write(_labels_of(item.name), "".join(lines))
    batch.target.write("classes.txt", "".join(f"{c}\n" for c in batch.classes))
    images = "images" if batch.copied else "images.txt"
    batch.target.write("data.yaml", data_yaml(batch.classes, images))


def data_yaml(classes: list[str], images: str) -> str:
    """The text of data.yaml; ``images`` is the folder or list that training takes."""
    facts = {"path": ".", "train": images, "val": images, "names": dict(enumerate(classes))}
    return yaml.safe_dump(facts, allow_unicode=True, sort_keys=False)


def _labels_of(name: str) -> str:
    return f"labels/{Path(name).stem}.txt"


def gather(tree: Tree, out: Contents) -> None:
    """Every image that has a label file; one without any is not labeled yet, an empty file says that there is nothing.

    Raises:
        ValueError: label files without class names, or class names that disagree.
    """
    found = yolo_files.find(tree)
    if tree.only is not None and not found.labels:
        raise refusal(tree.only, KIND, "no label file (labels/*.txt) lies near it")
    for path in found.labels:
        name = tree.name(path)
        image = Labeled(found.image_of(path), relative=True, source=name)
        out.images.append(image)
        try:
            classes = found.classes_of(path)
            rows = lines(read_text(path, KIND))
        except yolo_files.NoClasses:
            raise
        except ValueError as error:
            image.unread.append(str(error))
            continue
        _rows(image, rows, classes)
    out.notes += found.notes


def _rows(image: Labeled, rows: list[str], classes: yolo_files.Classes) -> None:
    for place, line in enumerate(rows, 1):
        if not (parts := line.split()):
            continue
        try:
            shape = _row(parts, classes, image)
        except Odd as error:
            image.unread.append(f"line {place}: {error}")
            continue
        assert image.boxes is not None
        image.boxes.append(shape)
    image.blank = not image.boxes and not image.unread


def _row(parts: list[str], classes: yolo_files.Classes, image: Labeled) -> Shape:
    """A box (5 numbers), with a score (6), with keypoints (as many as the data set's kpt_shape says), or an outline:
    three or more points, four of which are a turned box."""
    label = classes.label(parts[0])
    values = [number(v) for v in parts[1:]]
    if len(values) in (4, 5) or (classes.keypoints and len(values) == 4 + classes.keypoints):
        x, y, w, h = values[:4]
        if len(values) > 5:
            image.dropped["keypoints"] += 1
        return Shape(label, [x - w / 2, y - h / 2, w, h], {"score": values[4]} if len(values) == 5 else {})
    if len(values) >= 6 and len(values) % 2 == 0:
        ring = geometry.pairs(values)
        return Shape(label, geometry.enclosing([ring]), polygons=[ring])
    raise Odd(f"{len(parts)} values are neither a box nor an outline ({short(' '.join(parts))})")


FORMAT = Format("YOLO", "images", write, "txt", gather=gather)
