"""FiftyOneDataset: ``samples.json`` and ``metadata.json``, written by FiftyOne's own exporter."""

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.utils.data as foud
import numpy as np

from gsal_fo.fo.exchange.formats import geometry
from gsal_fo.fo.exchange.formats.model import Batch, Contents, Document, Format, Labeled, Shape
from gsal_fo.fo.exchange.formats.texts import Odd, label_name, number, refusal, short

KIND, NAME = "FiftyOneDataset", "samples.json"
# Fields of labels that are taken, and where their objects are; None: the field is one object.
TAKEN = {"Detections": "detections", "Detection": None, "Polylines": "polylines", "Polyline": None}
READ = ("_id", "_cls", "label", "bounding_box", "mask", "attributes", "points", "closed", "filled")
FACTS = {"score": float, "rank": int, "rationale": str}


def write(batch: Batch) -> None:
    """Pre-labels go into the label field, each sample's id into ``gsal_id``, the reasons into ``gsal_`` fields."""
    for name in (NAME, "metadata.json"):
        batch.target.place(name)
    passing = fo.Dataset()
    try:
        passing.add_sample_field(batch.label_field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        samples = []
        for i in batch.items:
            boxes = [fo.Detection(label=b.label, bounding_box=b.xywh_rel, confidence=b.confidence) for b in i.boxes]
            path = batch.target.stage / FORMAT.media / i.name if batch.copied else Path(i.ref)
            facts = {f"gsal_{n}": kind(i.row[n]) for n, kind in FACTS.items() if i.row.get(n) is not None}
            samples.append(fo.Sample(str(path), gsal_id=i.id, **facts))
            if boxes:
                samples[-1][batch.label_field] = fo.Detections(detections=boxes)
        passing.add_samples(samples, progress=False)
        passing.default_classes = batch.classes
        root = str(batch.target.stage)
        rel_dir = root if batch.copied else None
        writer = foud.FiftyOneDatasetExporter(root, export_media=False, rel_dir=rel_dir)
        passing.export(dataset_exporter=writer, progress=False)
    finally:
        passing.delete()


def claims(value: Any) -> bool:
    """FiftyOneDataset has samples; FiftyOne's image detection data set has classes and labels by file name."""
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("samples"), list) or ("classes" in value and isinstance(value.get("labels"), dict))


def read(document: Document, out: Contents) -> None:
    """Every sample; one without a value in the label field is not labeled yet."""
    kept, name = document.value, document.label_field
    if not claims(kept):
        raise refusal(document.path, KIND, "it has no list of samples")
    if "samples" not in kept:
        _read_by_name(document, out)
        return
    samples = kept["samples"]
    others = {k for s in samples if isinstance(s, dict) for k, v in s.items() if str(_kind(v)) in TAKEN}
    if others and name not in others:
        fields = ", ".join(sorted(others))
        raise refusal(document.path, KIND, f'it has no "{name}"; its fields of boxes are {fields}')
    for place, sample in enumerate(samples):
        if not isinstance(sample, dict) or not isinstance(sample.get("filepath"), str):
            out.unread.append(f"{document.name}: sample {place} lacks or misuses its filepath")
            continue
        own = sample.get("_id")
        known = sample.get("gsal_id") or (own.get("$oid") if isinstance(own, dict) else own)
        image = Labeled(sample["filepath"], boxes=None, relative=True, id=known, source=document.name)
        _add(image, sample.get(name), name)
        out.images.append(image)


def _read_by_name(document: Document, out: Contents) -> None:
    """FiftyOne's image detection data set: lists of objects by the name of the file without suffix."""
    classes = document.value["classes"]
    for stem, objects in document.value["labels"].items():
        image = Labeled(stem, boxes=None, relative=True, source=document.name)
        if objects is not None:
            if isinstance(objects, list):
                objects = [
                    {**d, "label": _class(d.get("label"), classes)} if isinstance(d, dict) else d for d in objects
                ]
            _add(image, {"_cls": "Detections", "detections": objects}, "labels")
        out.images.append(image)


def _class(label: Any, classes: Any) -> Any:
    """Labels are numbers there where a list of classes is."""
    known = isinstance(classes, list) and isinstance(label, int) and not isinstance(label, bool)
    return classes[label] if known and 0 <= label < len(classes) else label


def _kind(value: Any) -> Any:
    return value.get("_cls") if isinstance(value, dict) else None


def _add(image: Labeled, value: Any, name: str) -> None:
    """Add what a sample's label field holds."""
    if value is None:
        return
    kind = _kind(value)
    if not isinstance(kind, str) or kind not in TAKEN:
        image.unread.append(f"{name} holds {short(kind)}, not Detections")
        return
    objects = value.get(TAKEN[kind]) if TAKEN[kind] else [value]
    if not isinstance(objects, list):
        image.unread.append(f"{name} holds no list of objects ({short(objects)})")
        return
    image.boxes = []
    for d in objects:
        try:
            image.boxes.append(_shape(d, image))
        except Odd as error:
            image.unread.append(str(error))
    # Our export leaves the field out where it sent nothing: somebody wrote that there is nothing.
    image.answered = not objects


def _shape(d: Any, image: Labeled) -> Shape:
    if not isinstance(d, dict):
        raise Odd(f"{short(d)} is no object")
    label = label_name(d.get("label"))
    attributes = {k: v for k, v in d.items() if k not in READ and v is not None and v != []}
    for key, legacy in (d.get("attributes") or {}).items() if isinstance(d.get("attributes"), dict) else ():
        attributes[key] = legacy.get("value") if isinstance(legacy, dict) else legacy
    for key in ("instance", "mask_path"):
        if attributes.pop(key, None):
            image.dropped[f"{key} of a detection"] += 1
    if "points" in d:
        if not (d.get("closed") or d.get("filled")):
            raise Odd(f'"{short(label)}" is an open line, which has no extent that a box could take')
        rings = [geometry.pairs([v for p in ring for v in p]) for ring in _rings(d["points"])]
        return Shape(label, geometry.enclosing(rings), attributes, rings)
    box = d.get("bounding_box")
    if not isinstance(box, list) or len(box) != 4:
        raise Odd(f"bounding_box {short(box)} is not [x, y, width, height]")
    return Shape(label, [number(v, "bounding_box") for v in box], attributes, mask=_mask(d.get("mask")))


def _rings(points: Any) -> list[Any]:
    if not isinstance(points, list) or not points or not all(isinstance(r, list) for r in points):
        raise Odd(f"points {short(points)}")
    if not all(isinstance(p, list) and len(p) == 2 for ring in points for p in ring):
        raise Odd(f"points {short(points)}")
    return points


def _mask(value: Any) -> np.ndarray | None:
    """A mask as FiftyOne writes it: an array, compressed, as text."""
    packed = value.get("$binary") if isinstance(value, dict) else value
    packed = packed.get("base64") if isinstance(packed, dict) else packed
    if packed is None:
        return None
    try:
        raw = base64.b64decode(packed, validate=True)
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(raw, geometry.PIXELS)
        if unpacker.unconsumed_tail:
            raise Odd("a mask that is too large")
        mask = np.load(io.BytesIO(content), allow_pickle=False)
    except (TypeError, ValueError, zlib.error, EOFError, MemoryError, OverflowError) as error:
        raise Odd(f"a mask that cannot be read ({short(str(error))})") from error
    if mask.ndim != 2 or not mask.size or mask.dtype.kind not in "biuf":
        raise Odd(f"a mask of shape {mask.shape}")
    return mask.astype(bool)


FORMAT = Format("FiftyOneDataset", "data", write, "json", claims, read)
