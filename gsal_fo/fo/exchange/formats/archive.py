"""Zips of label files: unpacked into a folder that goes afterwards, never beyond what memory and disk take."""

import lzma
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from gsal_fo.fo.exchange.formats.texts import MOST, check_size, short

KINDS = (".json", ".xml", ".txt", ".yaml", ".yml", ".names", ".labels", ".data")
ENTRIES = 2_000_000
RATIO, FREE = 200, 64 << 20  # label text shrinks to a fiftieth at best; small archives may shrink as they like
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    NotImplementedError,  # a compression that Python lacks
    RuntimeError,  # encrypted
    ValueError,
    OverflowError,
)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """A label file or folder as it is; a zip (by its content or name) unpacked into a folder that goes afterwards."""
    if path.is_dir() or not (path.suffix.lower() == ".zip" or _starts_as_zip(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="gsal-labels-") as place:
        unpack(path, Path(place))
        yield Path(place)


def _starts_as_zip(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"PK\x03\x04"
    except OSError:
        return False  # the reader says what is wrong


def unpack(archive: Path, place: Path) -> None:
    """Unpack the label files of a zip into ``place``; pictures, and whatever is named outside of it, are left out.

    Raises:
        ValueError: it is no zip, is broken or encrypted, or would unpack to too much.
    """
    check_size(archive)
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = bundle.infolist()
            wanted = [m for m in members if m.filename.lower().endswith(KINDS) and _inside(m.filename)]
            _check(archive, members, wanted)
            for member in wanted:
                bundle.extract(member, place)
    except BROKEN as error:
        if isinstance(error, Bomb):
            raise ValueError(str(error)) from None
        raise ValueError(f"{archive} is no readable zip ({short(str(error), 100)}); export it again") from error


class Bomb(ValueError):
    """An archive that would unpack to too much."""


def _check(archive: Path, members: list[zipfile.ZipInfo], wanted: list[zipfile.ZipInfo]) -> None:
    """A member is never read beyond the size that it states, so the stated sizes can be trusted."""
    if len(members) > ENTRIES:
        raise Bomb(f"{archive} has {len(members):,} entries; {ENTRIES:,} at most: export in parts")
    size, packed = (sum(getattr(m, a) for m in wanted) for a in ("file_size", "compress_size"))
    if size > MOST:
        raise Bomb(f"{archive} unpacks to more than {MOST / 1e9:.1f} GB of labels: export in parts")
    if size > FREE and size > RATIO * packed:
        raise Bomb(
            f"{archive} unpacks to {size / max(packed, 1):.0f} times its size, which no label file does; unpack it by "
            "hand and give the folder"
        )


def _inside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return ".." not in path.parts and not path.is_absolute() and "\x00" not in name and ":" not in path.parts[0]
