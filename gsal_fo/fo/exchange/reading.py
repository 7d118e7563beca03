"""Label files read: which sample each image of a file is, and its objects as FiftyOne's detections, checked."""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.boxes import xywh_px_to_xywh_rel
from gsal_fo.fo.dataset import pool
from gsal_fo.fo.exchange import exporting
from gsal_fo.fo.exchange.formats import Labeled, Shape, opened, read
from gsal_fo.fo.exchange.matching import match


@dataclass
class Answer:
    """What a label file says of one image, understood as a whole.

    ``detections``: its objects, with attributes, polygons and masks as attributes of each detection; none: the file
    lists the image without any. ``answered``: the file itself holds a sign that somebody finished the image (see
    `Labeled`); where it is False and ``detections`` is empty, silence and "nothing there" look the same. ``blank``: the
    image's own label file is empty, a YOLO background image: take it as an answer unless the image is of a hand-off
    (we, or the tool, may have written that file). ``name``: what the file calls the image.
    """

    detections: list[fo.Detection]
    answered: bool
    blank: bool
    name: str


@dataclass
class Reading:
    """What label files say of a dataset's images.

    ``answers`` by sample id: only images of which everything was understood. ``waiting``: ids that the file lists as
    not labeled yet. ``unread``: "NAME: reason" for each thing that was not understood; its image is in no other list
    and must stay unlabeled. ``unmatched``: names that fit no sample, or several. ``dropped``: what annotators wrote
    that a Detection cannot hold, with counts. ``notes``: sentences about what was decided in reading.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def from_files(
    dataset: fo.Dataset, path: Path, format: str, label_field: str, manifest: dict[str, Any] | None
) -> Reading:
    """Read a labeling tool's files, match their images to samples and check their objects.

    Args:
        dataset: where the samples are.
        path: a label file, a folder or a zip.
        format: a name of `FORMATS`, or "auto".
        label_field: which field of a FiftyOneDataset holds the labels.
        manifest: of the export that was labeled, None: there is none.

    Raises:
        ValueError: nothing can be read, or none of the images is one of the dataset's.
    """
    with opened(path) as place:
        images = read(place, format, label_field)
    out = Reading()
    matched = match(dataset, path if path.is_dir() else path.parent, images, manifest)
    out.unmatched = sorted(image.name for k, image in enumerate(images) if k not in matched)
    if images and not matched:
        raise ValueError(
            f'none of the {len(images)} images in {path} is one of dataset "{dataset.name}", the first is '
            f"{out.unmatched[0]}; check the dataset, or give the manifest.json of the export"
        )
    twice = [i for i, n in Counter(matched.values()).items() if n > 1]
    if twice:
        count = sum(1 for v in matched.values() if v == twice[0])
        raise ValueError(f"{path} lists {count} images for sample {twice[0]}; remove all but one and try again")
    files = pool.rows_of(dataset, list(matched.values()), ["filepath"])
    for k, sample in matched.items():
        _take(images[k], sample, Path(files[sample][0]), out)
    return out


def _take(image: Labeled, sample: str, file: Path, out: Reading) -> None:
    """Add one image to what was read."""
    unread = list(image.unread)
    out.dropped += image.dropped
    detections = []
    size = (1.0, 1.0) if image.relative else None
    for shape in image.boxes or []:
        size = size or _size(image, file)
        if reason := _unusable(shape.box, size):
            unread.append(reason)
        else:
            detections.append(_detection(shape, size))
    out.unread += [f"{image.name}: {reason}" for reason in unread]
    if unread:
        return
    if image.boxes is None:
        out.waiting.append(sample)
    else:
        out.answers[sample] = Answer(detections, image.answered, image.blank, image.name)


def _detection(shape: Shape, size: tuple[float, float]) -> fo.Detection:
    """The detection of a checked shape, cut at the image's edges."""
    x, y, w, h = (float(v) for v in xywh_px_to_xywh_rel(shape.box, *size)[0])  # type: ignore[arg-type]
    left, top = max(0.0, x), max(0.0, y)
    box = [left, top, min(1.0, x + w) - left, min(1.0, y + h) - top]
    return fo.Detection(label=shape.label, bounding_box=box)


def _size(image: Labeled, file: Path) -> tuple[float, float]:
    if image.size and all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in image.size):
        return image.size
    try:
        return exporting.image_size(file)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{image.name} has no width and height in the label file, and {file} cannot be read; add the two"
        ) from error


def _unusable(box: Any, size: tuple[float, float]) -> str | None:
    """Why a box cannot be taken, or None."""
    if not isinstance(box, list) or len(box) != 4 or any(isinstance(v, bool) for v in box):
        return f"bbox {box!r} is not [x, y, width, height]"[:200]
    if not all(isinstance(v, int | float) and abs(v) < 1e9 and math.isfinite(v) for v in box):
        return f"bbox {box!r} has values that are no finite numbers"[:200]
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return f"bbox {box!r} has no area"
    if x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0:
        return f"bbox {box!r} lies outside the image"
    return None
