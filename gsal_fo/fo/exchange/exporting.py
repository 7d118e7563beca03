"""Handing a batch to a labeling tool: images, pre-labels, reasons, and a manifest to come back by."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fiftyone as fo

import gsal_fo
from gsal_fo.fo import journal, rounds, runs, steps
from gsal_fo.fo.dataset import filtered, pool
from gsal_fo.fo.exchange import handoffs, manifests, replacing, scores_csv
from gsal_fo.fo.exchange.formats import FORMATS, MEDIA, Batch, Box, Item, Target, file_digest
from gsal_fo.images import ImageError, upright_size

read_manifest = manifests.read
FLOOR = 0.3  # detection score from which a proposal is worth a labeler's correction
SOURCES = ("detector", "field")  # windows and whole images are no guesses at a box
LIST = "images.txt"


def export(
    view: Any,
    out: str | Path,
    format: str = "coco",
    *,
    media: str = "copy",
    prelabels: bool = True,
    floor: float = FLOOR,
    run_key: str | None = None,
    force: bool = False,
) -> Path:
    """Write a batch for a labeling tool; its images of a round count as sent from then on.

    ``out`` receives the images (named so that none collide), ``scores.csv``, ``manifest.json`` and, by format:

    - "coco": ``annotations.json``
    - "yolo": ``labels/*.txt``, ``classes.txt``, ``data.yaml``
    - "voc": ``Annotations/*.xml``, ``ImageSets/Main/default.txt``, ``labelmap.txt``
    - "cvat": ``annotations.xml`` (CVAT for images 1.1)
    - "labelstudio": ``tasks.json`` (pre-labels as predictions), ``label_config.xml``
    - "fiftyone": ``samples.json``, ``metadata.json`` (FiftyOneDataset)

    Classes are all fine nodes of the scoring's graph; a proposal without a concept is no pre-label. An image that
    cannot be read is listed as missing in the manifest, with the reason.

    An earlier export in the folder is replaced once the new one is written whole; a kill leaves one of the two, or one
    that the same call completes. What was sent is also kept in the dataset, as a run: `ingest` tells pre-labels apart
    by it where no manifest lies beside the labels.

    Args:
        view: the images, usually what `select` returned; where it filters the proposals, those that it shows go along.
        out: a folder that is new, empty, or an earlier export, which is replaced. Files in it that are of none stay.
        format: one of the above.
        media: "copy" the images, "link" to them, or "list" their paths in ``images.txt`` and leave them where they are.
        prelabels: whether proposals go along for the labeler to correct.
        floor: lowest detection score of a pre-label, in [0, 1].
        run_key: the scoring whose graph and digests are recorded; None is the latest of these images.
        force: files of the earlier export that were changed since are replaced, too.

    Returns:
        The folder.

    Raises:
        ValueError: a setting, an empty view, no scoring, a folder with other files, or one that cannot be written; a
            file of the earlier export was changed since, or is the image of a sample of any dataset.
    """
    check_settings(format, media, floor)
    dataset, view = pool.check_images(view)
    info = runs.scoring_of(view, run_key)
    graph = rounds.graph_of(info.config)
    folder = Path(out).expanduser().absolute()
    asked = {"out": str(folder), "format": format, "media": media, "prelabels": prelabels, "floor": floor}
    asked |= {"run_key": run_key, "force": force, "view": rounds.view_of(view)}
    request = journal.request_of(command="export", **asked)
    with journal.hold(dataset, "export") as held:
        if held.result_of(request) is not None:  # the files were whole when it was cut short
            return folder
    old = replacing.written(folder, replacing.earlier(folder))
    items, missing = _items(view, floor, set(graph.fine) if prelabels else set())
    _name(items, media)
    with _writing(folder), Target(folder) as target:
        images = _images(items, target, f"{FORMATS[format].media}/", media, missing)
        if not images:
            first = f", the first: {missing[0]['reason']}" if missing else ""
            raise ValueError(f"none of the {len(missing)} images can be read{first}; nothing to export")
        kept = {e["id"] for e in images}
        items = [i for i in items if i.id in kept]
        _write(Batch(items, graph.fine, target, info.config.label_field, info.key, media != "list"), format)
        head = {
            "kind": manifests.KIND,
            "version": manifests.VERSION,
            "gsal_fo": gsal_fo.__version__,
            "dataset": dataset.name,
            "run_key": info.key,
            "digests": info.config.digests,
            "params_digest": info.config.params_digest,
            "rounds": sorted({i.row["round"] for i in items if i.row["round"] is not None}),
            "format": format,
            "media": media,
            "floor": floor if prelabels else None,
            "files": [manifests.NAME, *target.seal()],
            "images": images,
            "missing": missing,
        }
        goes = replacing.check(folder, old, target.digests, force=force)
        replacing.check_sources(dataset, folder, goes)
        target.publish(manifests.NAME, head, old)
    ids = [e["id"] for e in images]
    with journal.hold(dataset, "export") as held:
        sent = {i: s for i, (s,) in manifests.sent(head).items()}
        todo = [
            steps.record(handoffs.new(dataset, handoffs.EXPORT, str(folder), sent)),
            steps.sent(ids),
            steps.sent_in_ledger(ids, held.token, {"to": str(folder), "format": format}),
        ]
        held.apply(request, todo, {"folder": str(folder)})
    return folder


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot write {folder}: {error.strerror or error}; free space or choose another folder"
        ) from error


def check_settings(format: str, media: str, floor: float) -> None:
    """Raise ValueError for a setting that `export` cannot use."""
    for name, value, known in (("format", format, tuple(FORMATS)), ("media", media, MEDIA)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor <= 1:
        raise ValueError(f"floor must be a number in [0, 1]; got {floor!r}")


def _images(
    items: list[Item], target: Target, place: str, media: str, missing: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """The images into the folder, and the manifest's entries of them; one that cannot be read is added to
    ``missing``."""
    out = []
    for i in items:
        try:
            digest = file_digest(i.source)
        except OSError as error:  # its header could be read, a moment ago
            reason = f"the file cannot be read ({error.strerror or error})"
            missing.append({"id": i.id, "source": str(i.source), "reason": reason})
            continue
        if media != "list":
            target.take(i.source, digest, f"{place}{i.name}", link=media == "link")
        width, height = i.size
        boxes = [[b.label, *_inside(b.xywh_rel)] for b in i.boxes]
        entry = {"id": i.id, "file": i.name, "source": str(i.source), "sha256": digest}
        out.append({**entry, "width": width, "height": height, "prelabels": len(boxes), "boxes": boxes})
    return out


def _write(batch: Batch, format: str) -> None:
    """All that the folder receives beside the images and the manifest."""
    if not batch.copied:
        batch.target.write(LIST, "".join(f"{i.ref}\n" for i in batch.items))
    scores_csv.write(batch.items, batch.target.place(scores_csv.NAME))
    FORMATS[format].write(batch)


def _inside(box: list[float]) -> list[float]:
    """``xywh_rel`` cut at the image's edges, as the formats write it."""
    left, top, right, bottom = (min(max(v, 0.0), 1.0) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return [round(v, 6) for v in (left, top, right - left, bottom - top)]


def prelabels_of(detections: list[fo.Detection] | None, floor: float, classes: set[str]) -> list[Box]:
    """The proposals that are worth a labeler's correction."""
    return [
        Box(d.label, [float(v) for v in d.bounding_box], float(d.confidence or 0))
        for d in detections or []
        if d.label in classes and getattr(d, "source", None) in SOURCES and (d.confidence or 0) >= floor
    ]


def _items(view: Any, floor: float, classes: set[str]) -> tuple[list[Item], list[dict[str, str]]]:
    """The images that can be exported, and the others with a reason, in the order of the view."""
    dataset, ids = view._root_dataset, filtered.ids_of(view)
    names = ("rank", "score", "difficulty", "rarity", "round", "path", "rationale")
    paths = ["filepath", "gsal_proposals.detections", *(f"gsal_{n}" for n in names)]
    have = [p for p in paths if dataset.has_sample_field(p.split(".")[0])]
    rows = pool.rows_of(filtered.source_of(view, "gsal_proposals"), ids, have)
    picked = {p["id"]: p for key in runs.select_keys(dataset) for p in runs.picks(dataset, key)}
    items, missing = [], []
    for i in ids:
        row = dict(zip(have, rows[i], strict=True))
        source = Path(row["filepath"])
        try:
            size = upright_size(source)
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
