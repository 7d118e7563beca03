"""Handing a batch to a labeling tool: images, pre-labels, reasons, and a manifest to come back by."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import fiftyone as fo

import gsal_fo
from gsal_fo.fo import rounds, runs, states
from gsal_fo.fo.dataset import folders, pool
from gsal_fo.fo.exchange.formats import FORMATS, MEDIA, Batch, Box, Item, Target
from gsal_fo.images import ImageError, upright_size
from gsal_fo.run_folder import shards

KIND = "gsal-export"
FLOOR = 0.3  # detection score from which a proposal is worth a labeler's correction
CSV_COLUMNS = ("file", "id", "rank", "score", "difficulty", "rarity", "round", "path", "rationale")
SOURCES = ("detector", "field")  # windows and whole images are no guesses at a box
LIST = "images.txt"
ENTRY = {"id", "file", "source", "sha256"}  # what finding an image again needs


def export(
    view: Any,
    out: str | Path,
    format: str = "coco",
    *,
    media: str = "copy",
    prelabels: bool = True,
    floor: float = FLOOR,
    run_key: str | None = None,
) -> Path:
    """Write a batch for a labeling tool; its images of a round count as sent from then on.

    ``out`` receives the images (named so that none collide), ``scores.csv``, ``manifest.json`` and, by format:

    - "coco": ``annotations.json``
    - "yolo": ``labels/*.txt``, ``classes.txt``, ``data.yaml``
    - "voc": ``Annotations/*.xml``, ``ImageSets/Main/default.txt``, ``labelmap.txt``
    - "cvat": ``annotations.xml`` (CVAT for images 1.1)
    - "labelstudio": ``tasks.json`` (pre-labels as predictions), ``label_config.xml``
    - "fiftyone": ``samples.json``, ``metadata.json`` (FiftyOneDataset)

    Classes are all fine nodes of the scoring's graph; a proposal without a concept is no pre-label.

    Args:
        view: the images, usually what `select` returned.
        out: a folder that is new, empty, or an earlier export, which is replaced.
        format: one of the above.
        media: "copy" the images, "link" to them, or "list" their paths in ``images.txt`` and leave them where they are.
        prelabels: whether proposals go along for the labeler to correct.
        floor: lowest detection score of a pre-label, in [0, 1].
        run_key: the scoring whose graph and digests are recorded; None is the latest.

    Returns:
        The folder.

    Raises:
        ValueError: a setting, an empty view, no scoring, a folder with other files, or one that cannot be written.
    """
    check_settings(format, media, floor)
    dataset = pool.check_samples(view)
    info = runs.load(dataset, run_key)
    graph = rounds.graph_of(info.config)
    folder = Path(out).expanduser().absolute()
    old = claimed(folder)
    ids = view.values("id")
    items, missing = _items(dataset, ids, floor, set(graph.fine) if prelabels else set())
    if not items:
        first = f", the first: {missing[0]['reason']}" if missing else ""
        raise ValueError(f"none of the {len(missing)} images can be read{first}; nothing to export")
    _name(items, media)
    batch = Batch(items, graph.fine, Target(folder), info.config.label_field, info.key, media != "list")
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
        "media": media,
        "floor": floor if prelabels else None,
        "missing": missing,
    }
    try:
        images = _write(batch, format, media, head, old)
    except OSError as error:
        raise ValueError(
            f"cannot write {folder}: {error.strerror or error}; free space or choose another folder"
        ) from error
    with folders.lock(folders.runs_of(dataset.slug), wait=True):
        states.sent(dataset, [e["id"] for e in images])
    return folder


def check_settings(format: str, media: str, floor: float) -> None:
    """Raise ValueError for a setting that `export` cannot use."""
    for name, value, known in (("format", format, tuple(FORMATS)), ("media", media, MEDIA)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor <= 1:
        raise ValueError(f"floor must be a number in [0, 1]; got {floor!r}")


def _write(batch: Batch, format: str, media: str, head: dict[str, Any], old: list[str]) -> list[dict[str, Any]]:
    """Everything that the folder receives; the manifest's entries of the images."""
    target, kind = batch.target, FORMATS[format]
    target.folder.mkdir(parents=True, exist_ok=True)
    target.remove(old)
    places = [f"{kind.media}/{i.name}" for i in batch.items] if batch.copied else [LIST]
    files = ["manifest.json", "scores.csv", *places, *kind.files(batch)]
    # Claimed before anything else is written: an export that was cut short can be replaced.
    manifest = target.place("manifest.json")
    shards.write_json({**head, "complete": False, "files": files}, manifest)
    digests = [target.take(i.source, f"{kind.media}/{i.name}", media) for i in batch.items]
    if not batch.copied:
        target.write(LIST, "".join(f"{i.ref}\n" for i in batch.items))
    _write_csv(batch.items, target.place("scores.csv"))
    kind.write(batch)
    images = [
        {
            "id": i.id,
            "file": i.name,
            "source": str(i.source),
            "sha256": digest,
            "width": i.size[0],
            "height": i.size[1],
            "prelabels": len(i.boxes),
            "boxes": [[b.label, *_inside(b.xywh_rel)] for b in i.boxes],
        }
        for i, digest in zip(batch.items, digests, strict=True)
    ]
    shards.write_json({**head, "complete": True, "files": files, "images": images}, manifest)
    return images


def _inside(box: list[float]) -> list[float]:
    """``xywh_rel`` cut at the image's edges, as the formats write it."""
    left, top, right, bottom = (min(max(v, 0.0), 1.0) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return [round(v, 6) for v in (left, top, right - left, bottom - top)]


def read_manifest(path: Path) -> dict[str, Any]:
    """An export's manifest; raises ValueError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no readable manifest ({error}); give the manifest.json of a GSAL export"
        ) from error
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise ValueError(f"{path} is no manifest of a GSAL export; give the manifest.json that gsal export wrote")
    entries = value.get("images", [])
    if not isinstance(entries, list) or not all(isinstance(e, dict) and set(e) >= ENTRY for e in entries):
        raise ValueError(f"{path} was altered: an image lacks one of {', '.join(sorted(ENTRY))}; export again")
    return value


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as a viewer shows the image, from its header; raises ImageError."""
    return upright_size(path)


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
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder} holds files that gsal export did not write; give a new or empty folder") from None


def prelabels_of(detections: list[fo.Detection] | None, floor: float, classes: set[str]) -> list[Box]:
    """The proposals that are worth a labeler's correction."""
    return [
        Box(d.label, [float(v) for v in d.bounding_box], float(d.confidence or 0))
        for d in detections or []
        if d.label in classes and getattr(d, "source", None) in SOURCES and (d.confidence or 0) >= floor
    ]


def _items(
    dataset: fo.Dataset, ids: list[str], floor: float, classes: set[str]
) -> tuple[list[Item], list[dict[str, str]]]:
    """The images that can be exported, and the others with a reason, in the order of ``ids``."""
    names = ("rank", "score", "difficulty", "rarity", "round", "path", "rationale")
    paths = ["filepath", "gsal_proposals.detections", *(f"gsal_{n}" for n in names)]
    have = [p for p in paths if dataset.has_sample_field(p.split(".")[0])]
    rows = pool.rows_of(dataset, ids, have)
    picked = {p["id"]: p for key in runs.select_keys(dataset) for p in runs.picks(dataset, key)}
    items, missing = [], []
    for i in ids:
        row = dict(zip(have, rows[i], strict=True))
        source = Path(row["filepath"])
        try:
            size = image_size(source)
        except ImageError as error:
            missing.append({"id": i, "source": str(source), "reason": error.reason})
            continue
        facts = {n: row.get(f"gsal_{n}") for n in names}
        for n in ("rank", "score", "rationale"):  # a later ranking has emptied them: what counted is why it was picked
            facts[n] = facts[n] if facts[n] is not None else picked.get(i, {}).get(n)
        boxes = prelabels_of(row.get("gsal_proposals.detections"), floor, classes)
        items.append(Item(i, source, "", "", size, boxes, facts))
    return items, missing


def _name(items: list[Item], media: str) -> None:
    """File names that differ even where case is ignored, and in their stems, which YOLO's label files share."""
    stems = Counter(i.source.stem.casefold() for i in items)
    for i in items:
        i.name = i.source.name if stems[i.source.stem.casefold()] == 1 else f"{i.source.stem}-{i.id}{i.source.suffix}"
        i.ref = str(i.source.absolute()) if media == "list" else i.name


def _write_csv(items: list[Item], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, CSV_COLUMNS)
        writer.writeheader()
        for i in items:
            writer.writerow({**i.row, "file": i.name, "id": i.id, "path": " > ".join(i.row["path"] or [])})
