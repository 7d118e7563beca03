"""Labels coming back: from a labeling tool's file or a labels field into the label field, never over what is there."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo import config as cfg
from gsal_fo.fo import journal, runs, states, steps
from gsal_fo.fo.dataset import bulk, filtered, pool
from gsal_fo.fo.dataset.fields import PREFIX
from gsal_fo.fo.exchange import annotating, handoffs, judging, labeling, manifests, reading
from gsal_fo.fo.exchange.comparing import same
from gsal_fo.fo.exchange.formats import FORMATS
from gsal_fo.fo.exchange.handoffs import Sent
from gsal_fo.fo.exchange.labeling import Source
from gsal_fo.fo.exchange.reading import Answer, Reading
from gsal_fo.fo.exchange.report import IngestReport
from gsal_fo.fo.rounds import graph_of, view_of
from gsal_fo.images import ImageError, upright_size


def ingest(
    dataset: Any,
    labels: str | Path,
    *,
    format: str = "auto",
    label_field: str = "ground_truth",
    manifest: str | Path | None = None,
    accept_prelabels: bool = False,
    empty_means_done: bool = False,
) -> IngestReport:
    """Take labels into the dataset's label field.

    Running it twice changes nothing, and an image that has labels already keeps them: identical ones count as
    unchanged, others as conflicts. Only an image that an earlier ingest has taken as empty gets labels that come later.

    Silence is no answer. An image that comes back without a box is labeled as empty only where the labels hold a sign
    that somebody finished it (an annotation that was submitted in Label Studio, a value in a field), or with
    ``empty_means_done``. One that comes back as its own hand-off sent it, up to whole pixels, is taken only with such a
    sign or with ``accept_prelabels``. One of which anything could not be read stays as it is, and is named.

    Each value written says where it is from, in ``gsal_source`` (``fields.SOURCE_FIELDS``).

    Args:
        dataset: the dataset; of a view, or a slice of a grouped dataset, only the images that it shows are labeled.
        labels: a label file, a folder or a zip of one of `export`'s formats, as the labeling tool exports it; or the
            name of a Detections field of the dataset, or of an annotation run of `annotate`.
        format: "coco", "yolo", "voc", "cvat", "labelstudio" or "fiftyone"; "auto" finds out.
        label_field: the Detections field that receives them; made where it is missing.
        manifest: ``manifest.json`` of the export that was labeled; None looks beside the labels and one folder up.
            Without one, images are matched by their path or file name, and pre-labels of any hand-off are told apart.
        accept_prelabels: somebody has looked at each image, so unchanged pre-labels are labels.
        empty_means_done: somebody has finished each image, so one without a box holds nothing.

    Raises:
        ValueError: the labels cannot be read, or are of another dataset; nothing was written.
    """
    root, samples = pool.check_images(dataset)
    _check(root, format, label_field)
    path = Path(labels).expanduser()
    if isinstance(labels, str) and root.has_sample_field(labels) and not path.exists():
        source, read = Source(f"field {labels}", None), _from_field(samples, labels, label_field, accept_prelabels)
        sent = handoffs.ever(root, read.answers)
    elif isinstance(labels, str) and labels in root.list_annotation_runs() and not path.exists():
        source, read = Source(f"annotation run {labels}", None), annotating.load(samples, labels)
        sent = annotating.sent(root, labels, list(read.answers))
    elif path.exists():
        about = _manifest(path, manifest)
        read = reading.from_files(samples, path, format, label_field, about)
        source = Source(path.resolve().name, labeling.digest_of(path))
        sent = _sent(root, list(read.answers), about)
    else:
        raise ValueError(f'labels "{labels}" is neither a file nor a field of dataset "{root.name}"')
    rules = judging.Rules(empty_means_done, accept_prelabels)
    report = IngestReport(
        unread=read.unread, unmatched=read.unmatched, dropped=dict(read.dropped), notes=list(read.notes)
    )
    asked: dict[str, Any] = {
        "labels": str(labels),
        "digest": source.digest,
        "format": format,
        "label_field": label_field,
    }
    asked |= {"manifest": str(manifest), "rules": dataclasses.asdict(rules), "view": view_of(samples)}
    request = journal.request_of(command="ingest", **asked)
    with journal.hold(root, "ingest") as held:
        done = held.result_of(request) or _take(held, label_field, read.answers, sent, rules, source, report, request)
        report = IngestReport(**done["report"])
        _settle(root, label_field, read.answers, done, report)
        report.waiting = [i for i, (_, state) in states.refresh(root).items() if state == states.SENT]
    counts = pool.label_counts([[d.label for d in read.answers[i].detections] for i in report.labeled])
    if runs.score_keys(root):
        report.unknown_labels = pool.outside(counts, graph_of(runs.load(root).config))
    return report


def _check(dataset: fo.Dataset, format: str, label_field: str) -> None:
    if format not in ("auto", *FORMATS):
        raise ValueError(f"format must be one of auto, {', '.join(FORMATS)}; got {format!r}")
    if label_field.startswith(PREFIX):
        raise ValueError(
            f'"{label_field}" is a field that scoring rewrites; keep labels in another, such as ground_truth'
        )
    if pool.check_detections(dataset, label_field, what="label field") and dataset.get_field(label_field).read_only:
        raise ValueError(f'field "{label_field}" of dataset "{dataset.name}" is read-only; name another label field')


def _take(
    held: journal.Hold,
    label_field: str,
    answers: dict[str, Answer],
    sent: dict[str, list[Sent]],
    rules: judging.Rules,
    source: Source,
    report: IngestReport,
    request: str,
) -> dict[str, Any]:
    """Judge each answer, write those that count, and say in the report what becomes of each.

    Returns:
        ``report``; ``ingest``, the name of this one; ``new``: boxes by image that was to be written; ``replaced``:
        those of them that had been taken as empty.
    """
    dataset = held.dataset
    there = labeling.present(dataset, label_field, list(answers))
    new: dict[str, list[fo.Detection]] = {}
    for i, answer in answers.items():
        verdict = judging.judge(answer, sent.get(i, []), rules, _size_of(dataset, i))
        if i in there and (verdict != judging.ANSWER or _is_there(there[i], answer)):
            report.unchanged.append(i)
        elif verdict == judging.UNANSWERED:
            report.unanswered.append(i)
        elif verdict == judging.UNTOUCHED:
            report.untouched.append(i)
        elif i in there and not (there[i].replaceable and answer.detections):
            report.conflicts.append(i)
        else:
            new[i] = answer.detections
    ingest = cfg.digest(request, {i: [[d.label, *d.bounding_box] for d in some] for i, some in new.items()})
    done = {
        "report": report.to_dict(),
        "ingest": ingest,
        "new": {i: len(some) for i, some in new.items()},
        "replaced": [i for i in new if i in there],
    }
    if new:
        values = held.prepare(labeling.changes(label_field, new, source, ingest))
        about = {"source": source.name, "digest": source.digest, "label_field": label_field}
        todo = [
            steps.have_labels(label_field),
            steps.merge(values, fill=(label_field,)),
            steps.follow_status(),
            steps.labels_in_ledger(label_field, list(new), ingest, held.token, about),
        ]
        done = {**done, **held.apply(request, todo, done, values=values)}
    return done


def _settle(
    dataset: fo.Dataset, label_field: str, answers: dict[str, Answer], done: dict[str, Any], report: IngestReport
) -> None:
    """What became of the images that were to be written."""
    new: dict[str, int] = done["new"]
    written = labeling.written(dataset, label_field, new, done["ingest"])
    lost = [i for i in new if i not in written]
    now = labeling.present(dataset, label_field, lost) if lost else {}
    for i in lost:
        if i in now and i in answers and _is_there(now[i], answers[i]):
            report.unchanged.append(i)
        elif i in now:
            report.conflicts.append(i)
            report.raced.append(i)
        else:
            name = answers[i].name if i in answers else f"sample {i}"
            report.unmatched.append(f"{name}, whose sample was deleted meanwhile")
    report.labeled = [i for i in new if i in written]
    report.empty = [i for i in report.labeled if not new[i]]
    report.replaced = [i for i in report.labeled if i in done["replaced"]]
    report.boxes = sum(new[i] for i in report.labeled)
    report.notes += done.get("notes", [])


def _is_there(present: labeling.Present, answer: Answer) -> bool:
    return same(present.boxes, [(d.label, d.bounding_box) for d in answer.detections])


def _size_of(dataset: fo.Dataset, sample: str) -> Callable[[], tuple[int, int] | None]:
    """Asks for an image's pixels where a hand-off has not kept them; None where it cannot be read."""

    def size() -> tuple[int, int] | None:
        try:
            return upright_size(pool.rows_of(dataset, [sample], ["filepath"])[sample][0])
        except ImageError:
            return None

    return size


def _from_field(samples: Any, name: str, label_field: str, accept_prelabels: bool) -> Reading:
    """The labels of a Detections field. An image without an answer has no value there: an empty one is somebody's."""
    pool.check_detections(samples._root_dataset, name, what="labels field")
    if name == label_field:
        raise ValueError(f'"{name}" is the label field itself; name another field or a label file')
    if name.startswith(PREFIX) and not accept_prelabels:
        raise ValueError(
            f'"{name}" holds proposals, not labels; --accept-prelabels takes them where somebody has looked at each'
        )
    filtered.refuse(samples, name, what="labels field", why="boxes that it hides would count as not there")
    ids, files, values = filtered.all_fields(samples).values(["id", "filepath", f"{name}.detections"])
    # Of the field, not of its detections: FiftyOne stores no list where somebody has deleted the last box.
    given = bulk.matching(samples._root_dataset, ids, {name: {"$ne": None}})
    out = Reading()
    for i, file, value in zip(ids, files, values, strict=True):
        if i not in given:
            continue
        detections = value or []
        reasons = [reason for d in detections if (reason := reading.unusable(d.bounding_box, (1.0, 1.0)))]
        out.unread += [f"{Path(file).name}: {reason}" for reason in reasons]
        if not reasons:
            kept = [labeling.fresh(d) for d in detections]
            out.answers[i] = Answer(kept, answered=not kept, blank=False, name=Path(file).name)
    return out


def _manifest(labels: Path, given: str | Path | None) -> dict[str, Any] | None:
    folder = labels if labels.is_dir() else labels.parent
    found = manifests.beside(folder) if given is None else manifests.read(Path(given).expanduser())
    if found is not None:
        manifests.check_complete(found, folder / manifests.NAME if given is None else Path(given))
    return found


def _sent(dataset: fo.Dataset, ids: list[str], about: dict[str, Any] | None) -> dict[str, list[Sent]]:
    """What the export sent, by its manifest; without one, what any hand-off has sent."""
    known = manifests.sent(about) if about is not None else {}
    rest = [i for i in ids if i not in known]
    return {**(handoffs.ever(dataset, rest) if rest else {}), **known}
