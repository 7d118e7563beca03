"""Labels coming back: from a COCO file or a labels field into the label field, never over what is there already."""

import json
import math
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.boxes import xywh_px_to_xywh_rel
from gsal_fo.fo import exporting, pool, runs
from gsal_fo.fo.rounds import graph_of

Labels = dict[str, list[tuple[str, list[float]]]]  # sample id -> (label, xywh_rel) boxes
TOLERANCE = 1e-4  # of the image's side: a tenth of a pixel in a thousand, which tools round away


@dataclass
class IngestReport:
    """What came back. Ids of samples newly ``labeled`` (``empty``: those without a box), ``unchanged`` (the same labels
    were there), in ``conflicts`` (other labels were there and stay); names of ``unmatched`` images; ``boxes`` written;
    ``skipped`` annotations with a reason; ``unknown_labels`` that the scoring's graph lacks, with counts."""

    labeled: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    boxes: int = 0
    unknown_labels: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """One sentence."""
        parts = [f"{len(self.labeled)} images labeled with {self.boxes} boxes, {len(self.empty)} of them empty"]
        for count, what in (
            (len(self.unchanged), "already had these labels"),
            (len(self.conflicts), "have other labels and were left as they are"),
            (len(self.unmatched), "matched no sample"),
        ):
            parts += [f"{count} {what}"] if count else []
        parts += [f"{len(self.skipped)} annotations were left out"] if self.skipped else []
        if self.unknown_labels:
            parts.append(f"labels outside the concept graph: {', '.join(sorted(self.unknown_labels))}")
        return "; ".join(parts) + "."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def ingest(
    dataset: Any, labels: str | Path, *, label_field: str = "ground_truth", manifest: str | Path | None = None
) -> IngestReport:
    """Take labels into the dataset's label field.

    Running it twice changes nothing, and an image that has labels already keeps them: identical ones count as
    unchanged, others as conflicts. An image that the labels name without any box becomes labeled as empty.

    Args:
        dataset: the dataset (of a view, its dataset).
        labels: a COCO detection file, or the name of a Detections field of the dataset.
        label_field: the Detections field that receives them; made where it is missing.
        manifest: ``manifest.json`` of the export that was labeled; None looks beside the file and one folder up.
            Without one, images are matched by their path or file name.

    Raises:
        ValueError: the labels cannot be read; nothing was written.
    """
    root = pool.check_samples(dataset)
    if label_field.startswith("gsal_"):
        raise ValueError(
            f'"{label_field}" is a field that scoring rewrites; keep labels in another, such as ground_truth'
        )
    exists = pool.check_detections(root, label_field, what="label field")
    report = IngestReport()
    if isinstance(labels, str) and root.has_sample_field(labels) and not Path(labels).is_file():
        pool.check_detections(root, labels, what="labels field")
        if labels == label_field:
            raise ValueError(f'"{labels}" is the label field itself; name another field or a COCO file')
        found = _from_field(root, labels)
    else:
        path = Path(labels).expanduser()
        if not path.is_file():
            what = "a folder; name the COCO JSON file in it" if path.is_dir() else "neither a file nor a field"
            raise ValueError(f'labels "{labels}" is {what} of dataset "{root.name}"')
        found = _from_coco(root, path, _manifest(path, manifest), report)
    _write(root, found, label_field, exists, report)
    counts = pool.label_counts([[label for label, _ in found[i]] for i in report.labeled])
    if runs.score_keys(root):
        report.unknown_labels = pool.outside(counts, graph_of(runs.load(root).config))
    return report


def _write(dataset: fo.Dataset, found: Labels, name: str, exists: bool, report: IngestReport) -> None:
    """Write what is new, in one bulk call."""
    present: Labels = _from_field(dataset, name, list(found)) if exists else {}
    new: dict[str, fo.Detections] = {}
    for i, boxes in found.items():
        if i in present:
            (report.unchanged if _same(present[i], boxes) else report.conflicts).append(i)
            continue
        new[i] = fo.Detections(detections=[fo.Detection(label=label, bounding_box=box) for label, box in boxes])
        report.labeled.append(i)
        report.boxes += len(boxes)
        report.empty += [] if boxes else [i]
    if new:
        if not exists:
            dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        dataset.set_values(name, new, key_field="id")


def _same(a: list[tuple[str, list[float]]], b: list[tuple[str, list[float]]]) -> bool:
    left = list(b)
    for label, box in a:
        fits = (k for k, (name, other) in enumerate(left) if name == label and _close(box, other))
        if (k := next(fits, None)) is None:
            return False
        del left[k]
    return not left


def _close(a: list[float], b: list[float]) -> bool:
    return all(abs(x - y) <= TOLERANCE for x, y in zip(a, b, strict=True))


def _from_field(dataset: fo.Dataset, name: str, ids: list[str] | None = None) -> Labels:
    """The labels of a Detections field, of the images that have a value in it."""
    columns = [f"{name}.detections", f"{name}.detections.label", f"{name}.detections.bounding_box"]
    rows = pool.rows_of(dataset, dataset.values("id") if ids is None else ids, columns[1:])
    return {i: list(zip(r[0], r[1], strict=True)) for i, r in rows.items() if r[0] is not None}


def _manifest(path: Path, given: str | Path | None) -> tuple[Path, dict[str, Any]] | None:
    if given is not None:
        return Path(given).expanduser(), exporting.read_manifest(Path(given).expanduser())
    for folder in (path.parent, path.parent.parent):
        try:
            return folder / "manifest.json", exporting.read_manifest(folder / "manifest.json")
        except ValueError:
            continue
    return None


def _from_coco(
    dataset: fo.Dataset, path: Path, manifest: tuple[Path, dict[str, Any]] | None, report: IngestReport
) -> Labels:
    """Read and check a COCO file, and match its images to samples."""

    def refuse(what: str) -> ValueError:
        return ValueError(f"{path} is no COCO detection file: {what}; export COCO from the labeling tool and try again")

    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refuse(f"it is not readable JSON ({error})") from error
    if not isinstance(coco, dict) or any(
        not isinstance(coco.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise refuse("it has no lists named images, annotations and categories")
    try:
        categories = {c["id"]: str(c["name"]) for c in coco["categories"]}
        images = {i["id"]: i for i in coco["images"]}
        names = {i: str(image["file_name"]) for i, image in images.items()}
        owners = [(a["image_id"], a["category_id"], a["bbox"]) for a in coco["annotations"]]
        strange_images = {i for i, _, _ in owners} - set(images)
        strange = {c for _, c, _ in owners} - set(categories)
    except (KeyError, TypeError) as error:
        raise refuse(f"an entry lacks or misuses {error}") from error
    if len(images) < len(coco["images"]):
        raise refuse("two images share an id")
    if strange:
        raise refuse(f"an annotation has category {sorted(map(str, strange))[0]}, which is not listed")
    if strange_images:
        raise refuse(f"an annotation is of image {sorted(map(str, strange_images))[0]}, which is not listed")

    matched = _match(dataset, path, names, manifest)
    report.unmatched = sorted(names[i] for i in images if i not in matched)
    if images and not matched:
        raise ValueError(
            f'none of the {len(images)} images in {path} is one of dataset "{dataset.name}", the first is '
            f"{report.unmatched[0]}; check the dataset, or give the manifest.json of the export"
        )
    twice = [i for i, n in Counter(matched.values()).items() if n > 1]
    if twice:
        raise refuse(f"it lists {sum(1 for v in matched.values() if v == twice[0])} images for sample {twice[0]}")
    files = pool.rows_of(dataset, list(matched.values()), ["filepath"])
    out: Labels = {sample: [] for sample in matched.values()}
    sizes: dict[Any, tuple[float, float]] = {}
    for image, category, box in owners:
        if image not in matched:
            continue
        if image not in sizes:
            sizes[image] = _size(images[image], Path(files[matched[image]][0]))
        if reason := _unusable(box, sizes[image]):
            report.skipped.append(f"{names[image]}: {reason}")
            continue
        x, y, w, h = (float(v) for v in xywh_px_to_xywh_rel(box, *sizes[image])[0])  # type: ignore[arg-type]
        left, top = max(0.0, x), max(0.0, y)
        out[matched[image]].append((categories[category], [left, top, min(1.0, x + w) - left, min(1.0, y + h) - top]))
    return out


def _match(
    dataset: fo.Dataset, path: Path, names: dict[Any, str], manifest: tuple[Path, dict[str, Any]] | None
) -> dict[Any, str]:
    """COCO image id -> sample id: by the export's manifest, by the digest of a file beside the labels, or by path."""
    ids, paths = dataset.values(["id", "filepath"])
    known = set(ids)
    entries = manifest[1].get("images", []) if manifest else []
    by_name = {e["file"]: e["id"] for e in entries if e["id"] in known}
    by_digest = {e["sha256"]: e["id"] for e in entries if e["id"] in known}
    by_base: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for i, p in zip(ids, paths, strict=True):
        by_base[Path(p).name].append((i, p))
    out = {}
    for image, name in names.items():
        base = Path(name.replace("\\", "/")).name
        if base in by_name:
            out[image] = by_name[base]
            continue
        if by_digest and (file := _beside(path, name)) and (sample := by_digest.get(exporting.file_digest(file))):
            out[image] = sample
            continue
        if not entries and (sample := _by_path(by_base[base], name)):
            out[image] = sample
    return out


def _beside(path: Path, name: str) -> Path | None:
    """The image file that a COCO entry means, where the tool left one near its labels."""
    for folder in (path.parent / "images", path.parent, path.parent.parent / "images"):
        for candidate in (folder / name, folder / Path(name).name):
            if candidate.is_file():
                return candidate
    return None


def _by_path(candidates: list[tuple[str, str]], name: str) -> str | None:
    """The one sample whose path ends with the name; where several do, none: a guess would label the wrong image."""
    wanted = Path(name.replace("\\", "/")).parts
    fits = [i for i, p in candidates if Path(p).parts[-len(wanted) :] == wanted]
    if not fits and len(candidates) == 1 and len(wanted) == 1:
        fits = [candidates[0][0]]
    return fits[0] if len(fits) == 1 else None


def _size(image: dict[str, Any], file: Path) -> tuple[float, float]:
    size = image.get("width"), image.get("height")
    if all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in size):
        return size  # type: ignore[return-value]
    try:
        return exporting.image_size(file)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{image['file_name']} has no width and height in the COCO file, and {file} cannot be read; add the two"
        ) from error


def _unusable(box: Any, size: tuple[float, float]) -> str | None:
    """Why a box cannot be taken, or None."""
    if not isinstance(box, list) or len(box) != 4 or any(isinstance(v, bool) for v in box):
        return f"bbox {box!r} is not [x, y, width, height]"
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
        return f"bbox {box!r} has values that are no finite numbers"
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return f"bbox {box!r} has no area"
    if x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0:
        return f"bbox {box!r} lies outside the image"
    return None
