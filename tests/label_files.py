"""Small pools and label files for the tests of readers."""

import json
from collections.abc import Iterable
from pathlib import Path

import fiftyone as fo
import numpy as np
from PIL import Image

from gsal_fo.fo.exchange import reading

SIZE = (128, 96)
NOTES = [{"bbox": [10, 20, 20, 20]}, {"image_id": 2, "category_id": 2, "bbox": [10, 20, 20, 20]}]
WANTED = {"a.jpg": [("void", 10, 20, 20, 20)], "b.jpg": [("scratch", 10, 20, 20, 20)]}
ROW = "{} 0.15625 0.3125 0.15625 0.208333333\n"  # the same box in shares: its center (20, 30), its sides 20
BOX = '<box label="{}" xtl="10" ytl="20" xbr="30" ybr="40"/>'
TASK = {"original_width": 128, "original_height": 96, "image_rotation": 0, "type": "rectanglelabels", "id": "r"}
RF = ".rf.0123456789abcdef0123456789abcdef"


def pool(folder: Path, names: Iterable[str] = ("a.jpg", "b.jpg"), size: tuple[int, int] = SIZE) -> fo.Dataset:
    """A dataset of unlabeled images in ``folder``; it goes with the session's database."""
    dataset = fo.Dataset()
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 90, 90)).save(path)
    dataset.add_samples([fo.Sample(str(path)) for path in paths], progress=False)
    return dataset


def read(dataset: fo.Dataset, path: Path, format: str = "auto") -> reading.Reading:
    """What a path says, as ingest sees it."""
    return reading.from_files(dataset, path, format, "ground_truth", None)


def answers(dataset: fo.Dataset, out: reading.Reading) -> dict[str, list[fo.Detection]]:
    """File name -> detections of the images that have an answer."""
    names = dict(zip(*dataset.values(["id", "filepath"]), strict=True))
    return {Path(names[i]).name: a.detections for i, a in out.answers.items()}


def boxes(dataset: fo.Dataset, out: reading.Reading, size: tuple[int, int] = SIZE) -> dict[str, list[tuple]]:
    """File name -> (label, x, y, w, h in pixels, to a thousandth)."""
    scale = np.array(size * 2)
    return {
        name: [(d.label, *np.round(d.bounding_box * scale, 3).tolist()) for d in detections]
        for name, detections in answers(dataset, out).items()
    }


def coco(
    annotations: list[dict], names: Iterable[str] = ("a.jpg", "b.jpg"), size: tuple[int | None, int | None] = SIZE
) -> dict:
    """A COCO file: images 1, 2, ... and the categories 1 void, 2 scratch; each annotation is of image 1 and a void
    unless it says otherwise."""
    images = [
        {"id": k, "file_name": n, **({"width": size[0], "height": size[1]} if size[0] else {})}
        for k, n in enumerate(names, 1)
    ]
    notes = [{"id": k, "image_id": 1, "category_id": 1, **a} for k, a in enumerate(annotations, 1)]
    return {
        "images": images,
        "annotations": notes,
        "categories": [{"id": 1, "name": "void"}, {"id": 2, "name": "scratch"}],
    }


def cvat(*images: str, meta: str = "") -> str:
    """A CVAT file of images a.jpg, b.jpg, ... with the given shapes."""
    inner = "".join(
        f'<image id="{k}" name="{chr(97 + k)}.jpg" width="128" height="96">{shapes}</image>'
        for k, shapes in enumerate(images)
    )
    return f"<annotations><version>1.1</version><meta>{meta}</meta>{inner}</annotations>"


def voc(objects: str, name: str = "a.jpg", size: tuple[int, int] = SIZE, attributes: str = "") -> str:
    """A VOC file."""
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation{attributes}><filename>{name}</filename>{sides}{objects}</annotation>"


def voc_object(label: str = "void", corners: tuple[float, ...] = (10, 20, 30, 40), more: str = "") -> str:
    """An object of a VOC file."""
    left, top, right, bottom = corners
    place = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>{label}</name><bndbox>{place}</bndbox>{more}</object>"


def write(path: Path, content: str | bytes | dict | list) -> Path:
    """Write a file as UTF-8; JSON for a list or dict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tasks() -> list[dict]:
    """Label Studio's tasks with the boxes of WANTED."""
    value = {"x": 100 * 10 / 128, "y": 100 * 20 / 96, "width": 100 * 20 / 128, "height": 100 * 20 / 96, "rotation": 0}
    return [
        {
            "id": k,
            "data": {"image": f"s3://b/{n}"},
            "annotations": [{"result": [{**TASK, "value": {**value, "rectanglelabels": [label]}}]}],
        }
        for k, (n, label) in enumerate((("a.jpg", "void"), ("b.jpg", "scratch")))
    ]


def yolo_folder(folder: Path, rows: str | bytes, lists: dict) -> Path:
    """A YOLO folder with the rows of labels/a.txt, and other files by name."""
    write(folder / "labels" / "a.txt", rows)
    for name, content in lists.items():
        write(folder / name, content)
    return folder
