"""The one reader of image files: what the models see, what pages and panels show, and how large an image is.

Upright by its EXIF orientation, eight bits a channel, the first frame. Whatever is wrong with a file, and whatever a
decoder raises for it, is an ``ImageError``. Broken metadata is no fault of the pixels: such an image is read, unturned.
"""

import hashlib
import io
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil
from PIL import Image, ImageFile, UnidentifiedImageError

MAX_PIXELS = 2**29  # of one image: a square of 23,170. Above, it is taken for a decompression bomb
MAX_BYTES = 2**32  # of one file
USUAL_PIXELS = 2**26  # an image of up to this many is read without asking how much memory is free
BYTES_PER_PIXEL = 32  # of memory, about, while an image is decoded and cut

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
DEEP_RANGE = (0.1, 99.9)  # percentiles mapped to 0 and 255: one hot pixel must not darken a 16-bit scan
CLEAR_MODES = ("RGBA", "LA", "PA", "La", "RGBa")

ORIENTATION = 0x0112  # EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
FOREIGN = ("EPS",)  # Pillow hands these to another program, which a file that calls itself an image must not start
PNG = b"\x89PNG\r\n\x1a\n"
LONGEST = 160  # characters of a decoder's own words


class ImageError(ValueError):
    """An image file that cannot be used. ``reason`` is what a record beside the file's path needs; the message names
    the file as well."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"the image {self.path} cannot be used: {self.reason}"


def read_image(path: str | Path) -> tuple[np.ndarray, str]:
    """Decode one image file.

    Returns:
        ``(H, W, 3)`` uint8 RGB, upright by its EXIF orientation as browsers show it, and the file's BLAKE2b digest
        (32 hex). Gray is repeated, transparency lies on black, deeper than 8 bit is mapped from its own 0.1 to 99.9
        percentile.

    Raises:
        ImageError: the file is missing, empty, truncated, too large, or no image.
    """
    with _file(path) as file, _reasons(path):
        data = file.read()
        with _opened(io.BytesIO(data)) as image:
            _check_room(path, image)
            turned = image.format == "TIFF"  # Pillow turns these itself
            turn = None if turned else TURNS.get(_orientation(image))
            image.load()
            pixels = _to_rgb(image.transpose(turn) if turn is not None else image)
    return pixels, hashlib.blake2b(data, digest_size=16).hexdigest()


def file_digest(path: str | Path) -> str:
    """The digest that ``read_image`` gives, of a file that need not be decoded; raises ImageError where it cannot be
    read."""
    digest = hashlib.blake2b(digest_size=16)
    with _file(path) as file, _reasons(path):
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def open_upright(path: str | Path) -> Image.Image:
    """The image as the models see it, RGB; raises ImageError."""
    return Image.fromarray(read_image(path)[0])


def upright_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels as ``open_upright`` gives the image, from its header; raises ImageError."""
    return _header(path)[0]


def raw_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels as the file stores them, before it is turned upright; raises ImageError."""
    (width, height), turn = _header(path)
    return (height, width) if turn in SIDEWAYS else (width, height)


def orientation(path: str | Path) -> int:
    """The EXIF orientation, 1 to 8; 1, upright, where the file gives none or none that can be read. Raises
    ImageError."""
    return _header(path)[1]


def note(path: str | Path, name: str) -> str | None:
    """What the file says under a name beside its pixels, such as a PNG's text; raises ImageError."""
    with _file(path) as file, _reasons(path), _opened(file) as image:
        found = image.info.get(name)
    return found if isinstance(found, str) else None


def _header(path: str | Path) -> tuple[tuple[int, int], int]:
    """Upright size and orientation."""
    with _file(path) as file, _reasons(path), _opened(file) as image:
        turn = _orientation(image)
        width, height = image.size  # of a TIFF upright already
        return ((height, width) if turn in SIDEWAYS and image.format != "TIFF" else (width, height)), turn


@contextmanager
def _file(path: str | Path) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        try:
            found = Path(path).stat()
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):  # a pipe or a device may never end
                raise OSError("it is no ordinary file")
            file = stack.enter_context(Path(path).open("rb"))
        except FileNotFoundError:
            raise ImageError(path, "the file is missing") from None
        except (OSError, ValueError) as error:
            raise ImageError(path, f"the file cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if not found.st_size:
            raise ImageError(path, "the file is empty")
        if found.st_size > MAX_BYTES:
            raise ImageError(path, f"the file has {found.st_size:,} bytes, and at most {MAX_BYTES:,} are read")
        yield file


@contextmanager
def _reasons(path: str | Path) -> Iterator[None]:
    """Makes every fault in here an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(path, "the file is not an image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise ImageError(path, f"the image is too large ({_short(error)})") from None
    # Not only OSError and ValueError: what Pillow's decoders raise for a damaged file is whatever their code ran into
    # (SyntaxError, struct.error, zlib.error, AttributeError, OverflowError, MemoryError and others were seen).
    except Exception as error:
        raise ImageError(path, f"the file is truncated or damaged ({_short(error)})") from error


def _short(error: Exception) -> str:
    """A decoder's words on one line."""
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())[:LONGEST] or type(error).__name__


def _opened(file: BinaryIO) -> ImageFile.ImageFile:
    """The image in a file, its header read."""
    try:
        return _identified(file)
    except Exception:
        file.seek(0)
        if file.read(len(PNG)) != PNG:
            raise
        return _identified(io.BytesIO(PNG + _without_metadata(file.read())))


def _identified(file: BinaryIO) -> ImageFile.ImageFile:
    """As Pillow opens it, without its limit on pixels: that is one for the whole process, which others may rely on."""
    tried: set[str] = set()
    for load in (Image.preinit, Image.init):
        load()
        for name in [n for n in Image.ID if n not in tried]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            file.seek(0)
            answer = accept(file.read(16)) if accept else True
            if name in FOREIGN or not answer or isinstance(answer, str):  # a string says what is not installed
                continue
            file.seek(0)
            with suppress(SyntaxError, IndexError, TypeError, struct.error):  # how a decoder says: no file of mine
                return factory(file, "")
    raise UnidentifiedImageError


def _without_metadata(png: bytes) -> bytes:
    """Of a PNG file's chunks those that pixels need, and EXIF where it is whole: viewers skip others when damaged."""
    kept, at = [], 0
    while at + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        chunk = png[at : at + length + 12]
        whole = chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind[:1].isupper() or kind == b"tRNS" or (kind == b"eXIf" and whole):
            kept.append(chunk)
        at += length + 12
    return b"".join(kept)


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # EXIF is a file in a file: whatever is wrong with it, the pixels are there
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def _check_room(path: str | Path, image: ImageFile.ImageFile) -> None:
    """Refuses an image that would not fit, before a byte of it is decoded."""
    count = image.width * image.height
    size = f"the image has {image.width:,} x {image.height:,} pixels"
    if count < 1:
        raise ImageError(path, f"{size}: nothing to see")
    if count > MAX_PIXELS:
        raise ImageError(path, f"{size}, and at most {MAX_PIXELS:,} are read; cut it into tiles")
    need, free = count * BYTES_PER_PIXEL, psutil.virtual_memory().available
    if count > USUAL_PIXELS and need > free:
        raise ImageError(
            path, f"{size}, which takes about {need / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free"
        )


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in DEEP_MODES:
        return np.repeat(_to_gray(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in CLEAR_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _to_gray(deep: np.ndarray) -> np.ndarray:
    """Values of any depth (H, W) as uint8."""
    if deep.dtype.itemsize == 2:  # a table of all values takes a tenth of the memory
        low, high = np.percentile(deep, DEEP_RANGE)
        return _mapped(np.arange(2**16), low, high)[deep]
    values = deep.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, DEEP_RANGE) if finite.size else (0.0, 0.0)
    return _mapped(values, low, high)


def _mapped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = 255 / (high - low) if high > low else 0.0
    return (
        np.clip((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * scale, 0, 255)
        .round()
        .astype(np.uint8)
    )
