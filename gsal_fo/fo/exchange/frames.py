"""In which frame the objects of a label file are measured: of the upright image, of the raw pixels, or of a resized
copy. Nothing is turned on a guess."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gsal_fo.fo.exchange.formats import Labeled
from gsal_fo.fo.exchange.formats.texts import Odd, number, short
from gsal_fo.images import SIDEWAYS, ImageError, orientation, upright_size

Size = tuple[float, float]
SLACK = 1.0  # pixels that a tool's rounding may put a box outside
ALIKE = 0.01  # by which the two scales of a resized copy may differ: sides are whole pixels
UPRIGHT = 1
UNIT = (1.0, 1.0)


@dataclass
class Frame:
    """How an image's objects become shares of the upright image: divided by ``size``, then turned by ``turn`` (an EXIF
    orientation). ``pixels``: width and height of the frame that is divided, None where nothing depended on them.
    ``odd``: why all that cannot be known, None: it is."""

    size: Size
    pixels: Size | None = None
    turn: int = UPRIGHT
    odd: str | None = None


@dataclass(frozen=True)
class _Image:
    """What is known of one image: the size that the file states, and the real one; None for none."""

    file: Path
    stated: Size | None
    real: Size | None

    @cached_property
    def orientation(self) -> int:
        """How EXIF turns it; asked only where something depends on it, since it is read from the file."""
        return orientation(self.file) if self.real is not None else UPRIGHT

    @property
    def raw(self) -> Size | None:
        """Width and height before the image is turned upright."""
        return self.real and (self.real[::-1] if self.orientation in SIDEWAYS else self.real)

    @property
    def swaps(self) -> bool:
        """Whether width and height differ before and after the image is turned upright."""
        return self.real is not None and self.real != self.raw


def frames(images: dict[int, Labeled], files: dict[int, Path]) -> tuple[dict[int, Frame], list[str]]:
    """The frame of each image, with notes about what was decided.

    A tool measures all images of a label file in one way. So where an image of the file shows which (its boxes fit only
    the upright image, or only the raw one), the other images of that file follow it.

    Args:
        images: what was read, by place.
        files: the image files.
    """
    out: dict[int, Frame] = {}
    known: dict[int, _Image] = {}
    notes: Counter[str] = Counter()
    for k, image in images.items():
        try:
            known[k] = _look(image, files[k])
        except Odd as error:
            out[k] = Frame(UNIT, odd=str(error))
    signs: dict[str, set[str]] = defaultdict(set)
    for k, facts in known.items():
        if facts.stated != facts.real and (sign := _evidence(images[k], facts)) is not None:
            signs[images[k].group].add(sign)
    raw = {group for group, found in signs.items() if found == {"raw"}}
    for k, facts in known.items():
        if images[k].group in raw and facts.stated == facts.real and facts.swaps:
            signs[images[k].group].add("upright size")  # then its half turned photos are upright, too
    for k, facts in known.items():
        out[k] = _frame(images[k], facts, signs[images[k].group], notes)
    return out, [f"{count} {'image' if count == 1 else 'images'}: {what}" for what, count in notes.items()]


def _look(image: Labeled, file: Path) -> _Image:
    stated = _stated(image)
    if stated is None and image.relative:
        return _Image(file, None, None)  # shares need no size
    try:
        width, height = upright_size(file)
        return _Image(file, stated, (float(width), float(height)))
    except ImageError as error:
        if stated is None:
            raise Odd(f"the label file has no width and height, and {error}") from error
        return _Image(file, stated, None)


def _stated(image: Labeled) -> Size | None:
    """The size that the file states; None for none, or zeros, which tools write that could not open the image."""
    if image.size is None or all(v is None or v == "" for v in image.size):
        return None
    width, height = number(image.size[0], "width"), number(image.size[1], "height")
    if width == height == 0:
        return None
    if min(width, height) <= 0:
        raise Odd(f"the label file says {short(image.size[0])} x {short(image.size[1])} pixels")
    return width, height


def _evidence(image: Labeled, facts: _Image) -> str | None:
    """What the boxes of this image show: "raw" or "upright", where they fit only one of the two."""
    if not facts.swaps or image.relative or facts.stated not in (None, facts.raw):
        return None
    fits = {name: _inside(image, size) for name, size in (("upright", facts.real), ("raw", facts.raw)) if size}
    return next(n for n in fits if fits[n]) if sum(fits.values()) == 1 else None


def _inside(image: Labeled, size: Size) -> bool:
    """Whether all boxes lie in an image of this size."""
    boxes = [s.box for s in image.boxes or []]
    return all(min(x, y) >= -SLACK and x + w <= size[0] + SLACK and y + h <= size[1] + SLACK for x, y, w, h in boxes)


def _frame(image: Labeled, facts: _Image, signs: set[str], notes: Counter[str]) -> Frame:
    """The frame of an image; ``signs``: what the images of its file show."""
    if facts.real is None:
        if facts.stated is None:
            return Frame(UNIT)
        notes["the image cannot be opened here, so its size is what the label file states"] += 1
        return Frame(UNIT if image.relative else facts.stated, facts.stated)
    plain = Frame(UNIT if image.relative else facts.real, facts.real)
    if facts.stated == facts.real:
        # Half turned, mirrored or square: neither size nor boxes show anything, other photos of the file do.
        hidden = signs == {"raw"} and facts.orientation != UPRIGHT and not facts.swaps
        return _raw(image, facts, notes) if hidden else plain
    if facts.swaps and facts.stated in (None, facts.raw):
        shown = signs & {"raw", "upright"}
        frame = _evidence(image, facts) or (next(iter(shown)) if len(shown) == 1 else None)
        if frame == "raw":
            return _raw(image, facts, notes)
        if frame is None and facts.stated is not None:
            return Frame(facts.real, odd=_swapped(facts))
        if facts.stated is not None:
            notes["the label file has width and height of the raw photo; its boxes fit the upright one"] += 1
        return plain
    if facts.stated is None:
        return plain
    return _resized(image, facts.stated, facts.real, notes)


def _raw(image: Labeled, facts: _Image, notes: Counter[str]) -> Frame:
    notes["boxes were measured in the raw pixels of a photo that EXIF turns, and were turned with it"] += 1
    assert facts.raw is not None
    return Frame(UNIT if image.relative else facts.raw, facts.raw, facts.orientation)


def _swapped(facts: _Image) -> str:
    assert facts.raw is not None and facts.real is not None
    return (
        f"the label file says {_text(facts.raw)} pixels, which is the photo before EXIF turns it; upright it has "
        f"{_text(facts.real)}, and its boxes fit both; export it from a tool that shows photos upright, or save them "
        "turned"
    )


def _resized(image: Labeled, stated: Size, real: Size, notes: Counter[str]) -> Frame:
    """A label file of a copy in another size."""
    frame = Frame(UNIT if image.relative else stated, real)
    across, down = stated[0] / real[0], stated[1] / real[1]
    # Half a pixel of rounding in the smaller copy is more than a percent of a thumbnail.
    if not image.relative and not _inside(image, stated) and _inside(image, real):
        return Frame(
            real,
            odd=f"the label file says {_text(stated)} pixels, its boxes reach beyond, and they fit the image of "
            f"{_text(real)} pixels; correct the size in the file",
        )
    if abs(across / down - 1) <= ALIKE + 1 / min(stated):
        notes["the label file is of a resized copy; boxes were scaled with it"] += 1
        return frame
    if image.stretched:
        notes["Roboflow had stretched the image, says its README; boxes were stretched back"] += 1
        return frame
    return Frame(
        real,
        odd=f"the label file says {_text(stated)} pixels, the image has {_text(real)}: whether it was stretched, "
        "padded or cut is not known; export labels for the original size",
    )


def _text(size: Size) -> str:
    return f"{size[0]:g} x {size[1]:g}"
