"""The folder of an export: nothing is written, replaced or removed outside of it, whatever links lie in it."""

import hashlib
import shutil
from pathlib import Path

MEDIA = ("copy", "link", "list")


class Target:
    """An export's folder. Every path that a writer uses comes from `place`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, name: str) -> Path:
        """The path of a file to write: its folder made, an old file or link of that name removed.

        Raises:
            ValueError: the way there leads through a link out of the folder.
        """
        path = self.folder / name
        inside = self.folder.resolve()
        # Before anything is made: a folder made through a link would already lie outside.
        if not path.parent.resolve().is_relative_to(inside):
            raise ValueError(f"{path.parent} is a link out of the export folder; give a new or empty folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_file():
            path.unlink()
        return path

    def write(self, name: str, text: str) -> None:
        """Write a text file."""
        self.place(name).write_text(text, encoding="utf-8", newline="\n")

    def take(self, source: Path, name: str, media: str) -> str:
        """Copy or link an image (``list``: neither) and return its digest."""
        if media == "list":
            return file_digest(source)
        path = self.place(name)
        if media == "link":
            path.symlink_to(source.absolute())
        else:
            shutil.copyfile(source, path)
        return file_digest(path)

    def remove(self, names: list[str]) -> None:
        """Remove an earlier export's files; a path that a changed manifest points outside the folder is left alone."""
        inside = self.folder.resolve()
        for name in names:
            path = self.folder / name
            if path.parent.resolve().is_relative_to(inside) and (path.is_file() or path.is_symlink()):
                path.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
