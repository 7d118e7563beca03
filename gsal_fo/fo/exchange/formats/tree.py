"""The files of a folder of labels, found once; and what Roboflow says it did to the images."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gsal_fo.fo.exchange.formats.texts import decode, read_bytes

IMAGES = re.compile(
    r".+\.(jpe?g|jpe|jfif|png|bmp|dib|gif|tiff?|webp|jp2|j2k|avif|hei[cf]|p[gpbn]m|tga|mpo|dcm|exr)", re.IGNORECASE
)
ROBOFLOW = ("README.roboflow.txt", "README.dataset.txt")


@dataclass(frozen=True)
class Tree:
    """Files below ``root``, or ``only`` one of them."""

    root: Path
    only: Path | None = None

    @cached_property
    def files(self) -> list[Path]:
        """All files in order; hidden ones, what macOS adds to zips, and linked folders are left out."""
        if self.only is not None:
            return [self.only]
        out = []
        for folder, inner, names in os.walk(self.root, onerror=_closed):
            inner[:] = sorted(n for n in inner if not n.startswith(".") and n != "__MACOSX")
            out += [Path(folder, n) for n in sorted(names) if not n.startswith(".")]
        return out

    def of(self, *suffixes: str) -> list[Path]:
        """The files with one of these suffixes, whatever their case."""
        return [p for p in self.files if p.suffix.lower() in suffixes]

    def name(self, path: Path) -> str:
        """A path for messages: below the root where it lies there."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def upwards(self, folder: Path) -> list[Path]:
        """``folder`` and those above it, up to the root."""
        out = [folder, *folder.parents]
        return out[: out.index(self.root) + 1] if self.root in out else [folder]


def _closed(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be read: {error.strerror}; labels may lie in it")


def is_image(name: str) -> bool:
    """Whether a name ends as images do."""
    return IMAGES.fullmatch(name) is not None


@dataclass(frozen=True)
class Preparation:
    """What Roboflow did to the images of an export before it wrote boxes: ``stretched`` to one size; ``odd``: why its
    boxes do not fit the originals (padded, cropped, tiled), None: they do; ``augmented``: its training images are
    variants."""

    stretched: bool = False
    odd: str | None = None
    augmented: bool = False


def preparation(tree: Tree, folder: Path) -> Preparation:
    """What the README of Roboflow's exports says of the images in ``folder``; nothing where there is none."""
    for place in tree.upwards(folder):
        for name in ROBOFLOW:
            try:
                text = decode(read_bytes(place / name))
            except ValueError:
                continue
            if "roboflow" in text.lower():
                return _prepared(text)
    return Preparation()


def _prepared(text: str) -> Preparation:
    steps = [line.strip("* \t") for line in text.splitlines() if line.strip().startswith("*")]
    resized = [m[1] for s in steps if (m := re.fullmatch(r"Resize to \S+ \((.+)\)", s))]
    changed = [s for s in steps if re.match(r"Tile|Static crop|Isolate|Random crop", s)]
    changed += [f"Resize ({mode})" for mode in resized if mode not in ("Stretch", "Fit within")]
    odd = f'Roboflow changed the images ("{changed[0][:60]}"): its boxes do not fit the originals' if changed else None
    return Preparation("Stretch" in resized, odd, "augmentation was applied" in text)
