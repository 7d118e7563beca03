"""Which boxes of a Detections field can be used: an odd one is named with its image and left out, the rest goes on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAR = 1.0  # image sizes that a box may reach beyond the border: objects are cut off there; pixels are no fractions
ROUNDING = 1e-6  # of a confidence: float32 arithmetic ends a little above 1
NAMED = 20  # images in one note


@dataclass
class Given:
    """The boxes of one image: ``xywh_rel``, labels and confidences side by side, as they are stored."""

    boxes: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    confidences: list[Any] = field(default_factory=list)


def split(given: Mapping[str, Given], *, proposals: bool) -> tuple[dict[str, Given], dict[str, list[str]]]:
    """What can be used of each image's boxes, cut at the border of the image; and id -> what is wrong with the rest.

    A label needs a name, a proposal does not; a proposal without a confidence counts fully (1): a person or a rule drew
    it. ``proposals`` says which of the two they are.
    """
    kept: dict[str, Given] = {}
    odd: dict[str, list[str]] = {}
    for i, image in given.items():
        mine = kept[i] = Given()
        rows = zip(image.boxes, image.labels, image.confidences, strict=True)
        for number, (box, label, confidence) in enumerate(rows, 1):
            wrong = of_box(box) or (of_confidence(confidence) if proposals else of_label(label))
            if wrong:
                odd.setdefault(i, []).append(f"box {number} {wrong}")
                continue
            mine.boxes.append(inside(box))
            mine.labels.append(label)
            mine.confidences.append(
                1.0 if confidence is None else min(1.0, max(0.0, confidence)) if proposals else None
            )
    return kept, odd


def of_box(box: Any) -> str | None:
    """What is wrong with a stored box, or None."""
    if not box:
        return "has no bounding box"
    if not isinstance(box, list | tuple) or len(box) != 4:
        return f"has no bounding box of four numbers: {str(box)[:80]}"
    if not all(_is_number(v) for v in box):
        return f"has a bounding box of values that are no finite numbers: {str(list(box))[:80]}"
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return f"has no area: its width is {w:g} and its height {h:g}"
    if x >= 1 or y >= 1 or x + w <= 0 or y + h <= 0 or min(x, y) < -FAR or max(x + w, y + h) > 1 + FAR:
        return f"lies outside the image, of which boxes are fractions: {str([round(v, 4) for v in box])[:80]}"
    return None


def of_confidence(value: Any) -> str | None:
    """What is wrong with a proposal's confidence, or None."""
    if value is None:
        return None
    if not _is_number(value):
        return f"has a confidence that is no finite number: {str(value)[:80]}"
    if not -ROUNDING <= value <= 1 + ROUNDING:
        return f"has a confidence of {value:g}, outside [0, 1]"
    return None


def of_label(value: Any) -> str | None:
    """What is wrong with a label's name, or None."""
    return None if isinstance(value, str) and value.strip() else "has no label"


def inside(box: Any) -> list[float]:
    """The part of a usable box that lies in the image; one that does as a whole is unchanged."""
    x, y, w, h = (float(v) for v in box)
    if x >= 0 and y >= 0 and x + w <= 1 and y + h <= 1:
        return [x, y, w, h]
    left, top = max(0.0, x), max(0.0, y)
    return [left, top, min(1.0, x + w) - left, min(1.0, y + h) - top]


def note(odd: Mapping[str, list[str]], file_of: Mapping[str, str], where: str) -> str | None:
    """One sentence that names each image with an odd box; None where there is none."""
    if not odd:
        return None
    boxes = sum(map(len, odd.values()))
    named = [f"{Path(file_of[i]).name} ({i}): {', '.join(reasons)}" for i, reasons in list(odd.items())[:NAMED]]
    more = [f"and {len(odd) - NAMED} images more"] if len(odd) > NAMED else []
    count = f"{boxes} box{'es' if boxes > 1 else ''} of {len(odd)} image{'s' if len(odd) > 1 else ''}"
    return f"{count} in the {where} cannot be used and {'are' if boxes > 1 else 'is'} left out: " + "; ".join(
        [*named, *more]
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
