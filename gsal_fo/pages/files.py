"""Writing pages and pictures to where a person says: over nothing but what was written here before, and is unedited.

A page ends with a digest of what stands above it, a picture carries one of its pixels. A file whose digest fits is ours
as we left it: writing it again needs no ``force``.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gsal_fo import images

SIGNED = "gsal-fo sha256"


FORCE = "choose another file, or overwrite it with --force"


def check_new(*paths: Path, force: bool = False, otherwise: str = FORCE) -> None:
    """Refuse files that cannot be written to; called before the work that they are for. ``otherwise``: what to do.

    Raises:
        ValueError: the folder does not exist, the path is no file, or it holds something that is not ours.
    """
    for path in paths:
        if not path.parent.is_dir():
            raise ValueError(f"the folder {path.parent} does not exist; create it or choose another file")
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is no file; choose another name")
        if path.exists() and not force and not _is_ours(path):
            raise ValueError(f"{path} exists, and holds something else or your edits; {otherwise}")


def write_new(path: Path, text: str | Iterable[str], *, force: bool = False) -> Path:
    """Write an HTML page, whole or not at all; ``text`` in parts is written part by part.

    Raises:
        ValueError: as `check_new`, or the disk is full.
    """

    def write(temporary: Path) -> None:
        digest = hashlib.sha256()
        with temporary.open("wb") as stream:
            for part in [text] if isinstance(text, str) else text:
                digest.update(part.encode())
                stream.write(part.encode())
            stream.write(f"<!-- {SIGNED} {digest.hexdigest()} -->\n".encode())

    return _place(path, write, force=force)


def save_new(image: Image.Image, path: Path, *, force: bool = False) -> Path:
    """Write a picture as PNG, whole or not at all; raises as `write_new`."""
    about = PngInfo()
    about.add_text(SIGNED, _pixels(image))
    return _place(path, lambda temporary: image.save(temporary, "PNG", pnginfo=about), force=force)


def _place(path: Path, write: Callable[[Path], None], *, force: bool) -> Path:
    check_new(path, force=force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}; choose another file") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _is_ours(path: Path) -> bool:
    """Whether the file is as it was written here."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x89PNG"):
            return images.note(path, SIGNED) == _pixels(images.open_upright(path))
    except (OSError, images.ImageError):
        return False
    page, mark, sign = content.rpartition(f"<!-- {SIGNED} ".encode())
    return bool(mark) and sign == f"{hashlib.sha256(page).hexdigest()} -->\n".encode()


def _pixels(image: Image.Image) -> str:
    shown = image.convert("RGB")
    return hashlib.sha256(f"{shown.mode} {shown.size} ".encode() + shown.tobytes()).hexdigest()
