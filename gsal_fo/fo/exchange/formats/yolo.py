"""YOLO: one ``labels/*.txt`` per image, lines of class and center box in shares of the image, ``data.yaml``."""

import json
from pathlib import Path
from typing import Any

import yaml

from gsal_fo.fo.exchange.formats.model import Batch, Format, Labeled, Shape, check_size, refusal

KIND = "YOLO data set"
LISTS = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml")  # where tools put the class names
NO_LABELS = (*LISTS, "train.txt", "val.txt", "test.txt", "images.txt", "notes.txt", "README.txt")


def write(batch: Batch) -> None:
    """Class names in both places where tools look for them, and for listed images the list that training takes."""
    for item in batch.items:
        lines = []
        for box in item.boxes:
            x, y, w, h = box.xywh_rel
            lines.append(f"{batch.classes.index(box.label)} {x + w / 2:.6f} {y + h / 2:.6f} {w:.6f} {h:.6f}\n")
        batch.target.write(_labels_of(item.name), "".join(lines))
    batch.target.write("classes.txt", "".join(f"{c}\n" for c in batch.classes))
    names = "".join(f"  {n}: {json.dumps(c)}\n" for n, c in enumerate(batch.classes))  # JSON text is YAML text
    images = "images" if batch.copied else "images.txt"
    batch.target.write("data.yaml", f"path: .\ntrain: {images}\nval: {images}\nnames:\n{names}")


def files(batch: Batch) -> list[str]:
    """What `write` leaves."""
    return ["classes.txt", "data.yaml", *(_labels_of(i.name) for i in batch.items)]


def _labels_of(name: str) -> str:
    return f"labels/{Path(name).stem}.txt"


def read(path: Path, label_field: str) -> list[Labeled]:
    """Every image that has a label file; one without any is not labeled yet, an empty file says that there is nothing.

    ``path`` is the folder, or its data.yaml or classes.txt.
    """
    folder = path if path.is_dir() else path.parent
    classes = _classes(folder, path)
    out = []
    texts = [p for p in sorted(folder.rglob("*.txt")) if p.name not in NO_LABELS]
    inner = [p for p in texts if "labels" in p.relative_to(folder).parts[:-1]]
    for text in inner or texts:
        image = Labeled(text.stem, relative=True, stem=True)
        check_size(text)
        try:
            lines = text.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise refusal(path, KIND, f"{text.name} is not readable text ({error})") from error
        for number, line in enumerate(lines, 1):
            if parts := line.split():
                _line(image, parts, f"{text.name}, line {number}", classes, path)
        image.blank = not image.boxes and not image.unread
        out.append(image)
    if not out:
        raise refusal(path, KIND, "it holds no label file (labels/*.txt)")
    return out


def _line(image: Labeled, parts: list[str], where: str, classes: list[str], path: Path) -> None:
    if not parts[0].isdigit() or int(parts[0]) >= len(classes):
        raise refusal(path, KIND, f"{where} has class {parts[0][:40]!r}, and {len(classes)} are listed, from 0")
    if len(parts) > 6:
        image.unread.append(f"{where}: an outline, and only boxes are taken")
        return
    try:
        x, y, w, h = (float(v) for v in parts[1:5])
    except ValueError:
        raise refusal(path, KIND, f"{where} is not `class x y width height`: {' '.join(parts)[:60]!r}") from None
    assert image.boxes is not None
    image.boxes.append(Shape(classes[int(parts[0])], [x - w / 2, y - h / 2, w, h]))


def _classes(folder: Path, path: Path) -> list[str]:
    for name in LISTS:
        source = folder / name
        if not source.is_file():
            continue
        check_size(source)
        try:
            text = source.read_text(encoding="utf-8")
            if source.suffix != ".yaml":
                return [line.strip() for line in text.splitlines() if line.strip()]
            value: Any = yaml.safe_load(text)
            names = value["names"]
            if isinstance(names, dict):
                names = [names[n] for n in range(len(names))]
            return [str(n) for n in names]
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise refusal(path, KIND, f"{name} lists no class names ({' '.join(str(error).split())})") from error
    raise refusal(path, KIND, f"its class names are missing ({', '.join(LISTS)})")


def found(folder: Path) -> Path | None:
    """Known by its list of classes, with label files below it."""
    known = any((folder / n).is_file() for n in LISTS)
    return folder if known and any(p.name not in NO_LABELS for p in folder.rglob("*.txt")) else None


FORMAT = Format("YOLO", "images", files, write, read, found)
