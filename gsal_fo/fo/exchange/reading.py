"""Label files read: which sample each image of a file is, and its objects as FiftyOne's detections, checked."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.fo.dataset import pool, slices
from gsal_fo.fo.exchange import detections as made
from gsal_fo.fo.exchange.formats import Contents, Labeled, opened, read
from gsal_fo.fo.exchange.formats.texts import Odd, short
from gsal_fo.fo.exchange.frames import Frame, frames
from gsal_fo.fo.exchange.matching import match

LONGEST = 120  # characters of an image's name in a message
MANY = 3  # reasons that are given for one image


@dataclass
class Answer:
    """What a label file says of one image, understood as a whole.

    ``detections``: its objects, with attributes, polygons and masks as attributes of each detection; none: the file
    lists the image without any. ``answered``: the file itself holds a sign that somebody finished the image (see
    `Labeled`); where it is False and ``detections`` is empty, silence and "nothing there" look the same. ``blank``: the
    image's own label file is empty, a YOLO background image: take it as an answer unless the image is of a hand-off
    (we, or the tool, may have written that file). ``name``: what the file calls the image; ``source``: the file, below
    the folder or zip that was given.
    """

    detections: list[fo.Detection]
    answered: bool
    blank: bool
    name: str
    source: str = ""


@dataclass
class Reading:
    """What label files say of a dataset's images.

    ``answers`` by sample id: only images of which everything was understood. ``waiting``: ids that the file lists as
    not labeled yet. ``unread``: "NAME: reason" for each thing that was not understood; its image is in no other list
    and must stay unlabeled. ``unmatched``: names that fit no sample, or several (which ``unread`` says).
    ``dropped``: what annotators wrote that a Detection cannot hold, with counts. ``notes``: sentences about what was
    decided in reading. ``cut``: boxes that reached over their image's edge.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    cut: int = 0


def from_files(samples: Any, path: Path, format: str, label_field: str, manifest: dict[str, Any] | None) -> Reading:
    """Read a labeling tool's files, match their images to samples and check their objects.

    Args:
        samples: dataset or flat view whose images can be meant.
        path: a label file, a folder or a zip.
        format: a name of `FORMATS`, or "auto".
        label_field: which field of a FiftyOneDataset holds the labels.
        manifest: of the export that was labeled, None: there is none.

    Raises:
        ValueError: nothing can be read, or none of the images is one of these.
    """
    dataset = samples._root_dataset
    contents = _contents(path, format, label_field)
    images = contents.images
    out = Reading(unread=list(contents.unread), notes=list(contents.notes))
    found = match(samples, path if path.is_dir() else path.parent, images, manifest)
    out.unmatched = sorted(_name(image) for k, image in enumerate(images) if k not in found.samples)
    out.unread += [f"{_name(images[k])}: {reason}; it was left out" for k, reason in found.ambiguous.items()]
    if images and not found.samples:
        raise ValueError(_stranger(samples, path, images, out))
    mine = {k: images[k] for k in found.samples}
    files = pool.rows_of(dataset, list(dict.fromkeys(found.samples.values())), ["filepath"])
    measured, notes = frames(mine, {k: Path(files[sample][0]) for k, sample in found.samples.items()})
    out.notes += notes
    of_sample: dict[str, list[int]] = defaultdict(list)
    for k, sample in found.samples.items():
        of_sample[sample].append(k)
    for sample, places in of_sample.items():
        _take(sample, [(images[k], measured[k]) for k in places], out)
    if out.cut:
        out.notes.append(f"boxes that reached over the image's edge, and were cut there: {out.cut}")
    return out


def _contents(path: Path, format: str, label_field: str) -> Contents:
    """What is read from a path; messages about an unpacked zip name the zip."""
    with opened(path) as place:
        try:
            out = read(place, format, label_field)
        except ValueError as error:
            if place == path:
                raise
            raise ValueError(str(error).replace(str(place), str(path))) from error
        for texts in (out.unread, out.notes, *(image.unread for image in out.images)):
            texts[:] = [text.replace(str(place), str(path)) for text in texts]
        return out


def _name(image: Labeled) -> str:
    return short(image.name, LONGEST)


def _stranger(samples: Any, path: Path, images: list[Labeled], out: Reading) -> str:
    """The sentence about a file none of whose images is known."""
    first = out.unmatched[0]
    problem = next((f"{_name(i)}: {i.unread[0]}" for i in images if i.unread), next(iter(out.unread), None))
    return (
        f"none of the {len(images)} images in {path} is one of {_where(samples)}, the first is {first}; check "
        "the dataset, or give the manifest.json of the export" + (f" ({problem})" if problem else "")
    )


def _where(samples: Any) -> str:
    names = slices.of(samples)
    inside = "" if isinstance(samples, fo.Dataset) or not names else f" (slice {', '.join(names)})"
    return f'dataset "{samples._root_dataset.name}"{inside}'


def _take(sample: str, twins: list[tuple[Labeled, Frame]], out: Reading) -> None:
    """Add what files say of one sample. Where several entries are of it (two splits, two files), they must agree: one
    that is not labeled yet, or lists nothing without a sign that somebody looked, does not speak against another."""
    readings = [_read(image, frame) for image, frame in twins]
    unread = [f"{_name(image)}: {what}" for (image, _), r in zip(twins, readings, strict=True) for what in r.unread]
    if unread:
        out.unread += unread
        return
    answers = [(r, r.answer) for r in readings if r.answer is not None]
    if not answers:
        out.waiting.append(sample)
        return
    answers = [(r, a) for r, a in answers if a.detections or a.answered] or answers
    entry, first = answers[0]
    if any(_facts(a) != _facts(first) for _, a in answers[1:]):
        files = " and ".join(dict.fromkeys(short(image.source or image.name, 60) for image, _ in twins))
        out.unread.append(f"{_name(twins[0][0])}: it is listed {len(answers)} times with different labels ({files})")
        return
    first.answered, first.blank = any(a.answered for _, a in answers), all(a.blank for _, a in answers)
    out.answers[sample] = first
    out.dropped += entry.dropped
    out.cut += entry.cut


@dataclass
class _Entry:
    """One entry: its answer, None where it is not labeled yet or was not understood; ``cut``: boxes that reached over
    the image's edge."""

    answer: Answer | None
    unread: list[str]
    dropped: Counter[str] = field(default_factory=Counter)
    cut: int = 0


def _read(image: Labeled, frame: Frame) -> _Entry:
    unread = list(dict.fromkeys(image.unread))
    if not unread and image.boxes and frame.odd is not None:
        unread = [frame.odd]
    if image.boxes is None or unread:
        return _Entry(None, _first(unread))
    entry = _Entry(Answer([], image.answered, image.blank, _name(image), image.source), [], image.dropped.copy())
    assert entry.answer is not None
    for shape in image.boxes:
        try:
            entry.answer.detections.append(made.detection(shape, frame, entry.dropped))
            entry.cut += made.reaches_out(shape, frame)
        except Odd as error:
            unread.append(str(error))
    if unread:
        return _Entry(None, _first(unread))
    made.fit(entry.answer.detections, entry.dropped)
    return entry


def _first(reasons: list[str]) -> list[str]:
    """What a report can say of one image."""
    return reasons if len(reasons) <= MANY else [*reasons[:MANY], f"and {len(reasons) - MANY} more things"]


def _facts(answer: Answer) -> list[tuple[str, list[float]]]:
    return sorted((d.label, [round(v, 5) for v in d.bounding_box]) for d in answer.detections)


def unusable(box: Any, size: tuple[float, float]) -> str | None:
    """Why a box of an image of ``size`` cannot be a label, or None; a field's boxes have the size (1, 1)."""
    shares = [v / side for v, side in zip(box, size * 2, strict=True)] if _numbers(box) else box
    reason = made.unusable(shares, None if size == (1.0, 1.0) else size)
    return reason and f"box {short(box)} {reason}"


def _numbers(box: Any) -> bool:
    return isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
