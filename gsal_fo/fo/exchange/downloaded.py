"""What one of FiftyOne's annotation backends holds of a batch, as answers: boxes, outlines, turned boxes."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.fo.exchange import detections as made
from gsal_fo.fo.exchange.formats import Shape, geometry
from gsal_fo.fo.exchange.formats.texts import Odd, short
from gsal_fo.fo.exchange.frames import UNIT, Frame
from gsal_fo.fo.exchange.labeling import fresh
from gsal_fo.fo.exchange.reading import Answer, Reading, unusable
from gsal_fo.images import ImageError, upright_size


def reading(samples: Any, found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Reading:
    """What a backend gave of a dataset's or view's images: kind of label -> sample id -> label id -> label. No backend
    tells an opened image from an unopened one."""
    of_sample: dict[str, list[Any]] = defaultdict(list)
    for kind in found.values():
        for i, by_id in kind.items():
            of_sample[i] += by_id.values()
    files = dict(zip(*samples.values(["id", "filepath"]), strict=True))
    out = Reading()
    for i, labels in of_sample.items():
        if i not in files:
            out.unmatched.append(f"sample {i}")
            continue
        name, shapes, unread = Path(files[i]).name, [], []
        for label in labels:
            try:
                shapes.append(_detection(label, Path(files[i]), out))
            except Odd as error:
                unread.append(f"{name}: {error}")
        out.unread += unread
        if not unread:  # half an answer is none
            out.answers[i] = Answer(shapes, answered=False, blank=False, name=name)
    return out


def _detection(label: Any, file: Path, out: Reading) -> fo.Detection:
    """An upright box with all that the backend knows of it.

    Raises:
        Odd: nothing that has a box.
    """
    if isinstance(label, fo.Polyline) and sum(map(len, label.points or [])) >= 3:
        rings = [[[float(v) for v in point] for point in ring] for ring in label.points]
        shape = Shape(label.label or "", geometry.enclosing(rings), _attributes(label), rings)
        return made.detection(shape, Frame(UNIT), out.dropped)
    if not isinstance(label, fo.Detection):
        raise Odd(f"a {type(label).__name__.lower()}, which has no box")
    if reason := unusable(label.bounding_box, UNIT):
        raise Odd(reason)
    if not label.label:
        raise Odd("a box without a label")
    angle = getattr(label, "rotation", None)
    return fresh(label) if not angle else _turned(label, angle, file, out)


def _turned(label: fo.Detection, angle: Any, file: Path, out: Reading) -> fo.Detection:
    """The enclosing box of one that was turned in pixels; the angle stays beside it."""
    if isinstance(angle, bool) or not isinstance(angle, int | float):
        raise Odd(f'"{short(label.label)}" turned by {short(angle)}')
    try:
        size = upright_size(file)
    except ImageError as error:
        raise Odd(f"a turned box, and {error}") from error
    pixels = [v * side for v, side in zip(label.bounding_box, size * 2, strict=True)]
    ring = geometry.turned(pixels, angle)
    box = geometry.enclosing([ring])
    return made.detection(Shape(label.label, box, _attributes(label), [ring]), Frame(size, size), out.dropped)


def _attributes(label: Any) -> dict[str, Any]:
    """What the backend's label has beside the fields that every label of its kind has."""
    own = type(label)().field_names
    found = {name: label[name] for name in label.field_names if name not in own}
    return found | {name: label[name] for name in ("confidence", "index", "tags") if label[name]}
