"""Handing a batch to a labeling tool: images, pre-labels, reasons, and a manifest to come back by."""

import csv
import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
from PIL import Image

import gsal_fo
from gsal_fo import shards
from gsal_fo.fo import pool, rounds, runs

FORMATS = ("coco", "yolo")
KIND = "gsal-export"
FLOOR = 0.3  # detection score from which a proposal is worth a labeler's correction
CSV_COLUMNS = ("file", "id", "rank", "score", "difficulty", "rarity", "round", "path", "rationale")
SOURCES = ("detector", "field")  # windows and whole images are no guesses at a box
ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112


@dataclass
class Item:
    """One exported image: ``boxes`` are (label, xywh_rel) pre-labels, ``size`` its upright width and height, pixels."""

    id: str
    source: Path
    name: str
    size: tuple[int, int]
    boxes: list[tuple[str, list[float]]]
    row: dict[str, Any]


def export(
    view: Any, out: str | Path, format: str = "coco", *, floor: float = FLOOR, run_key: str | None = None
) -> Path:
    """Write a batch for a labeling tool.

    ``out`` receives ``images/`` (copies, named so that none collide), ``scores.csv``, ``manifest.json`` and, by format,
    ``annotations.json`` (COCO) or ``labels/*.txt`` with ``classes.txt`` and ``data.yaml`` (YOLO). Classes are all fine
    nodes of the scoring's graph; a proposal without a concept is no pre-label.

    Args:
        view: the images, usually what `select` returned.
        out: a folder that is new, empty, or an earlier export, which is replaced.
        format: "coco" or "yolo".
        floor: lowest detection score of a pre-label, in [0, 1].
        run_key: the scoring whose graph and digests are recorded; None is the latest.

    Returns:
        The folder.

    Raises:
        ValueError: a setting, an empty view, no scoring, a folder with other files, or one that cannot be written.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor <= 1:
        raise ValueError(f"floor must be a number in [0, 1]; got {floor!r}")
    dataset = pool.check_samples(view)
    info = runs.load(dataset, run_key)
    graph = rounds.graph_of(info.config)
    folder = Path(out).expanduser().absolute()
    old = claimed(folder)
    items, missing = _items(dataset, view.values("id"), floor, set(graph.fine))
    if not items:
        raise ValueError(
            f"none of the {len(missing)} images can be read, the first: {missing[0]['reason']}; nothing to export"
        )
    head = {
        "kind": KIND,
        "version": 1,
        "gsal_fo": gsal_fo.__version__,
        "dataset": dataset.name,
        "run_key": info.key,
        "digests": info.config.digests,
        "params_digest": info.config.params_digest,
        "rounds": sorted({i.row["round"] for i in items if i.row["round"] is not None}),
        "format": format,
        "floor": floor,
        "missing": missing,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove(folder, old)
        files = ["manifest.json", "scores.csv", *(f"images/{i.name}" for i in items), *_label_files(items, format)]
        shards.write_json({**head, "complete": False, "files": files}, folder / "manifest.json")
        digests = [_copy(i, folder / "images") for i in items]
        _write_csv(items, folder / "scores.csv")
        (_write_coco if format == "coco" else _write_yolo)(items, graph.fine, folder)
    except OSError as error:
        raise ValueError(
            f"cannot write {folder}: {error.strerror or error}; free space or choose another folder"
        ) from error
    images = [
        {
            "id": i.id,
            "file": i.name,
            "source": str(i.source),
            "sha256": digest,
            "width": i.size[0],
            "height": i.size[1],
            "prelabels": len(i.boxes),
        }
        for i, digest in zip(items, digests, strict=True)
    ]
    shards.write_json({**head, "complete": True, "files": files, "images": images}, folder / "manifest.json")
    return folder


def read_manifest(path: Path) -> dict[str, Any]:
    """An export's manifest; raises ValueError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is no readable manifest ({error}); give the manifest.json of a GSAL export"
        ) from error
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise ValueError(f"{path} is no manifest of a GSAL export; give the manifest.json that gsal export wrote")
    return value


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as a viewer shows the image, from its header; raises OSError or ValueError."""
    with Image.open(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ORIENTATION) in ROTATED else (width, height)


def claimed(folder: Path) -> list[str]:
    """The files of an earlier export; raises ValueError where the folder holds anything else."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the export")
    if not any(folder.iterdir()):
        return []
    if not (folder / "manifest.json").is_file():
        raise ValueError(f"{folder} holds files that gsal export did not write; give a new or empty folder")
    try:
        return [str(f) for f in read_manifest(folder / "manifest.json")["files"]]
    except (ValueError, KeyError):
        raise ValueError(f"{folder} holds files that gsal export did not write; give a new or empty folder") from None


def _remove(folder: Path, files: list[str]) -> None:
    """Remove an earlier export's files; a path that a changed manifest points outside the folder is left alone."""
    inside = folder.resolve()
    for name in files:
        path = folder / name
        if path.parent.resolve().is_relative_to(inside) and (path.is_file() or path.is_symlink()):
            path.unlink()


def _items(
    dataset: fo.Dataset, ids: list[str], floor: float, classes: set[str]
) -> tuple[list[Item], list[dict[str, str]]]:
    """The images that can be exported, and the others with a reason, in the order of ``ids``."""
    names = ("rank", "score", "difficulty", "rarity", "round", "path", "rationale")
    paths = ["filepath", "gsal_proposals.detections", *(f"gsal_{n}" for n in names)]
    have = [p for p in paths if dataset.has_sample_field(p.split(".")[0])]
    rows = pool.rows_of(dataset, ids, have)
    picked = _picked(dataset)
    items, missing = [], []
    for i in ids:
        row = dict(zip(have, rows[i], strict=True))
        source = Path(row["filepath"])
        try:
            size = image_size(source)
        except (OSError, ValueError) as error:
            reason = (
                "the file is missing" if isinstance(error, FileNotFoundError) else f"not a readable image ({error})"
            )
            missing.append({"id": i, "source": str(source), "reason": reason})
            continue
        boxes = [
            (d.label, list(d.bounding_box))
            for d in row.get("gsal_proposals.detections") or []
            if d.label in classes and getattr(d, "source", None) in SOURCES and (d.confidence or 0) >= floor
        ]
        facts = {n: row.get(f"gsal_{n}") for n in names}
        for n in ("rank", "score", "rationale"):  # a later ranking has emptied them: what counted is why it was picked
            facts[n] = facts[n] if facts[n] is not None else picked.get(i, {}).get(n)
        items.append(Item(i, source, "", size, boxes, facts))
    _name(items)
    return items, missing


def _picked(dataset: fo.Dataset) -> dict[str, dict[str, Any]]:
    return {p["id"]: p for key in runs.select_keys(dataset) for p in runs.picks(dataset, key)}


def _name(items: list[Item]) -> None:
    """File names that differ even where case is ignored, and in their stems, which YOLO's label files share."""
    stems = Counter(i.source.stem.casefold() for i in items)
    for i in items:
        i.name = i.source.name if stems[i.source.stem.casefold()] == 1 else f"{i.source.stem}-{i.id}{i.source.suffix}"


def _label_files(items: list[Item], format: str) -> list[str]:
    if format == "coco":
        return ["annotations.json"]
    return ["classes.txt", "data.yaml", *(f"labels/{Path(i.name).stem}.txt" for i in items)]


def _copy(item: Item, place: Path) -> str:
    """Copy an image and return the digest of the copy."""
    place.mkdir(exist_ok=True)
    target = place / item.name
    if not target.resolve().is_relative_to(place.parent.resolve()):
        raise ValueError(f"{place} is a link out of the export folder; give a new or empty folder")
    shutil.copyfile(item.source, target)
    return file_digest(target)


def _write_csv(items: list[Item], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, CSV_COLUMNS)
        writer.writeheader()
        for i in items:
            writer.writerow({**i.row, "file": i.name, "id": i.id, "path": " > ".join(i.row["path"] or [])})


def _write_coco(items: list[Item], classes: list[str], folder: Path) -> None:
    annotations: list[dict[str, Any]] = []
    for number, i in enumerate(items, 1):
        width, height = i.size
        for label, (x, y, w, h) in i.boxes:
            box = [x * width, y * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(label) + 1,
                    "bbox": [round(v, 3) for v in box],
                    "area": round(box[2] * box[3], 3),
                    "iscrowd": 0,
                }
            )
    images = [{"id": n, "file_name": i.name, "width": i.size[0], "height": i.size[1]} for n, i in enumerate(items, 1)]
    categories = [{"id": n, "name": name} for n, name in enumerate(classes, 1)]
    shards.write_json(
        {"images": images, "annotations": annotations, "categories": categories}, folder / "annotations.json"
    )


def _write_yolo(items: list[Item], classes: list[str], folder: Path) -> None:
    (folder / "labels").mkdir(exist_ok=True)
    for i in items:
        lines = [
            f"{classes.index(label)} {x + w / 2:.6f} {y + h / 2:.6f} {w:.6f} {h:.6f}" for label, (x, y, w, h) in i.boxes
        ]
        (folder / "labels" / f"{Path(i.name).stem}.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "classes.txt").write_text("".join(f"{c}\n" for c in classes), encoding="utf-8")
    names = "".join(f"  {n}: {json.dumps(c)}\n" for n, c in enumerate(classes))  # JSON text is YAML text
    (folder / "data.yaml").write_text(f"path: .\ntrain: images\nval: images\nnames:\n{names}", encoding="utf-8")
