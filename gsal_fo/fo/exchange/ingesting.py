"""Labels coming back: from a labeling tool's file or a labels field into the label field, never over what is there."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.fo import runs, states
from gsal_fo.fo.dataset import folders, pool
from gsal_fo.fo.exchange import annotating, exporting, reading
from gsal_fo.fo.exchange.formats import FORMATS
from gsal_fo.fo.rounds import graph_of

Labels = dict[str, list[tuple[str, list[float]]]]  # sample id -> (label, xywh_rel) boxes
TOLERANCE = 1e-4  # of the image's side: a tenth of a pixel in a thousand, which tools round away


@dataclass
class IngestReport:
    """What came back.

    Ids of samples newly ``labeled`` (``empty``: those without a box), ``unchanged`` (the same labels were there), in
    ``conflicts`` (other labels were there and stay), ``untouched`` (what came back is what was sent, and was not
    taken), ``waiting`` (images of a round that are still with the labelers); names of ``unmatched`` images; ``boxes``
    written; ``skipped`` annotations with a reason; ``unknown_labels`` that the scoring's graph lacks, with counts.
    """

    labeled: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
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
            (
                len(self.untouched),
                "came back exactly as they were sent and were not taken (accept_prelabels does)",
            ),
            (len(self.waiting), "are still with the labelers"),
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
    dataset: Any,
    labels: str | Path,
    *,
    format: str = "auto",
    label_field: str = "ground_truth",
    manifest: str | Path | None = None,
    accept_prelabels: bool = False,
) -> IngestReport:
    """Take labels into the dataset's label field.

    Running it twice changes nothing, and an image that has labels already keeps them: identical ones count as
    unchanged, others as conflicts. An image that the labels name without any box becomes labeled as empty; one that
    they do not name, or that the tool has as not yet labeled, stays as it is.

    Most formats do not tell a pre-label from a label. So an image that comes back with exactly the pre-labels that it
    was sent with is not taken, nor is any image where nothing at all was changed: nobody may have opened it.

    Args:
        dataset: the dataset (of a view, its dataset).
        labels: a label file, a folder or a zip of one of `export`'s formats, as the labeling tool exports it; or the
            name of a Detections field of the dataset, or of an annotation run of `annotate`.
        format: "coco", "yolo", "voc", "cvat", "labelstudio" or "fiftyone"; "auto" finds out.
        label_field: the Detections field that receives them; made where it is missing.
        manifest: ``manifest.json`` of the export that was labeled; None looks beside the labels and one folder up.
            Without one, images are matched by their path or file name, and pre-labels cannot be told from labels.
        accept_prelabels: somebody has looked at each image, so unchanged pre-labels are labels.

    Raises:
        ValueError: the labels cannot be read, or are of another dataset; nothing was written.
    """
    root = pool.check_samples(dataset)
    if format not in ("auto", *FORMATS):
        raise ValueError(f"format must be one of auto, {', '.join(FORMATS)}; got {format!r}")
    if label_field.startswith("gsal_"):
        raise ValueError(
            f'"{label_field}" is a field that scoring rewrites; keep labels in another, such as ground_truth'
        )
    exists = pool.check_detections(root, label_field, what="label field")
    report, sent = IngestReport(), Labels()
    made: dict[str, list[fo.Detection]] = {}
    path = Path(labels).expanduser()
    if isinstance(labels, str) and root.has_sample_field(labels) and not path.exists():
        pool.check_detections(root, labels, what="labels field")
        if labels == label_field:
            raise ValueError(f'"{labels}" is the label field itself; name another field or a label file')
        found = _from_field(root, labels)
    elif isinstance(labels, str) and labels in root.list_annotation_runs() and not path.exists():
        found = annotating.load(root, labels, lambda name: _from_field(root, name))
        sent = _from_field(root, annotating.PRELABELS, list(found))
    elif path.exists():
        about = _manifest(path if path.is_dir() else path.parent, manifest)
        read = reading.from_files(root, path, format, label_field, about)
        made = {i: a.detections for i, a in read.answers.items()}
        found = {i: [(d.label, d.bounding_box) for d in detections] for i, detections in made.items()}
        report.unmatched, report.skipped = read.unmatched, read.unread
        sent = _sent(about)
    else:
        raise ValueError(f'labels "{labels}" is neither a file nor a field of dataset "{root.name}"')
    with folders.lock(folders.runs_of(root.slug), wait=True):
        untouched = set() if accept_prelabels else _untouched(found, sent)
        _write(root, found, made, label_field, exists, untouched, report)
        report.waiting = [i for i, (_, state) in states.refresh(root).items() if state == states.SENT]
    counts = pool.label_counts([[label for label, _ in found[i]] for i in report.labeled])
    if runs.score_keys(root):
        report.unknown_labels = pool.outside(counts, graph_of(runs.load(root).config))
    return report


def _write(
    dataset: fo.Dataset,
    found: Labels,
    made: dict[str, list[fo.Detection]],
    name: str,
    exists: bool,
    untouched: set[str],
    report: IngestReport,
) -> None:
    """Write what is new, in one bulk call; ``made``: the detections of labels that came from a file."""
    present: Labels = _from_field(dataset, name, list(found)) if exists else {}
    new: dict[str, fo.Detections] = {}
    for i, boxes in found.items():
        if i in present:
            (report.unchanged if _same(present[i], boxes) else report.conflicts).append(i)
            continue
        if i in untouched:
            report.untouched.append(i)
            continue
        detections = made.get(i) or [fo.Detection(label=label, bounding_box=box) for label, box in boxes]
        new[i] = fo.Detections(detections=detections)
        report.labeled.append(i)
        report.boxes += len(boxes)
        report.empty += [] if boxes else [i]
    if new:
        if not exists:
            dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        dataset.set_values(name, new, key_field="id")


def _sent(manifest: dict[str, Any] | None) -> Labels:
    """The pre-labels of an export's images. Label Studio keeps them apart from labels; older manifests lack them."""
    if manifest is None or manifest.get("format") == "labelstudio":
        return {}
    entries = [e for e in manifest.get("images", []) if isinstance(e.get("boxes"), list)]
    return {e["id"]: [(str(label), box) for label, *box in e["boxes"]] for e in entries}


def _untouched(found: Labels, sent: Labels) -> set[str]:
    """The images that nobody may have looked at. One without a box, before and after, is taken as looked at once any
    other image has changed: that is how an empty image is labeled."""
    same = {i for i in found if i in sent and _same(found[i], sent[i])}
    return same if same == set(found) else {i for i in same if sent[i]}


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


def _manifest(folder: Path, given: str | Path | None) -> dict[str, Any] | None:
    if given is not None:
        return exporting.read_manifest(Path(given).expanduser())
    for place in (folder, folder.parent):
        try:
            return exporting.read_manifest(place / "manifest.json")
        except ValueError:
            continue
    return None
