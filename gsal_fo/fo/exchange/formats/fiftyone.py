"""FiftyOneDataset: ``samples.json`` and ``metadata.json``, written by FiftyOne's own exporter."""

from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.utils.data as foud

from gsal_fo.fo.exchange.formats.model import Batch, Format, Labeled, Shape, read_json, refusal

KIND, NAME = "FiftyOneDataset", "samples.json"
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
            path = batch.target.folder / FORMAT.media / i.name if batch.copied else Path(i.ref)
            facts = {f"gsal_{n}": kind(i.row[n]) for n, kind in FACTS.items() if i.row.get(n) is not None}
            samples.append(fo.Sample(str(path), gsal_id=i.id, **facts))
            if boxes:
                samples[-1][batch.label_field] = fo.Detections(detections=boxes)
        passing.add_samples(samples, progress=False)
        passing.default_classes = batch.classes
        root = str(batch.target.folder)
        rel_dir = root if batch.copied else None
        writer = foud.FiftyOneDatasetExporter(root, export_media=False, rel_dir=rel_dir)
        passing.export(dataset_exporter=writer, progress=False)
    finally:
        passing.delete()


def read(path: Path, label_field: str) -> list[Labeled]:
    """Every sample; one without a value in the label field is not labeled yet."""
    kept = read_json(path, KIND)
    samples = kept.get("samples") if isinstance(kept, dict) else None
    if not isinstance(samples, list):
        raise refusal(path, KIND, "it has no list of samples")
    others = {k for s in samples if isinstance(s, dict) for k, v in s.items() if _detections(v)}
    if others and label_field not in others:
        raise refusal(path, KIND, f'it has no "{label_field}"; its fields of boxes are {", ".join(sorted(others))}')
    try:
        return [_read(s, label_field) for s in samples]
    except (KeyError, TypeError, AttributeError) as error:
        raise refusal(path, KIND, f"a sample lacks or misuses {error}") from error


def _detections(value: Any) -> bool:
    return isinstance(value, dict) and value.get("_cls") == "Detections"


def _read(sample: dict[str, Any], label_field: str) -> Labeled:
    own = sample.get("_id")
    known = sample.get("gsal_id") or (own.get("$oid") if isinstance(own, dict) else own)
    out = Labeled(str(sample["filepath"]), relative=True, id=known)
    value = sample.get(label_field)
    out.boxes = None
    if value is not None:
        if not _detections(value):
            raise KeyError(f"{label_field}, which holds no Detections")
        out.boxes = [Shape(str(d["label"]), d["bounding_box"]) for d in value.get("detections") or []]
        out.answered = not out.boxes  # our export leaves such a field out: somebody wrote that there is nothing
    return out


def found(folder: Path) -> Path | None:
    """FiftyOne's own names."""
    return folder / NAME if all((folder / n).is_file() for n in (NAME, "metadata.json")) else None


FORMAT = Format("FiftyOneDataset", "data", lambda batch: [NAME, "metadata.json"], write, read, found)
