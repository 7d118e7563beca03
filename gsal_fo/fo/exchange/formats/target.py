"""The folder of an export: written beside what is there and moved in at the end, so that a kill leaves the old or the
new one whole, or one that the same command completes. Nothing is written, replaced or removed outside of it."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gsal_fo.run_folder import shards

MEDIA = ("copy", "link", "list")
STAGE = ".gsal-export"  # in the folder itself: moving a file within a file system is a rename


class Target:
    """An export's folder; every path that a writer uses comes from `place`. A context, held by one process at a time.

    ``folder``: where the files will lie; ``stage``: where they are written until `publish` moves them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.stage = folder, folder / STAGE
        self.digests: dict[str, str] = {}  # of every file of the new export, by name
        self._kept: set[str] = set()  # those of them that lie in the folder already
        self._made: list[Path] = []
        self._handle = -1

    def __enter__(self) -> Self:
        self._made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._clear()  # what a killed export left
            self.stage.mkdir()
        except BlockingIOError:
            self._leave()
            raise ValueError(f"{self.folder} is being written by another export; wait for it to end") from None
        except OSError:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._clear()
        self._leave()

    def _leave(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        for folder in self._made:  # a refused export leaves no empty folder behind
            with suppress(OSError):
                folder.rmdir()

    def place(self, name: str) -> Path:
        """The path at which a writer leaves the file ``name`` of the export.

        Raises:
            ValueError: the way to its place in the folder leads through a link out of it.
        """
        self._check_inside(name)
        path = self.stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, text: str) -> None:
        """Write a text file."""
        self.place(name).write_text(text, encoding="utf-8", newline="\n")

    def take(self, source: Path, digest: str, name: str, *, link: bool) -> None:
        """Copy an image of that digest, or link to it; one that lies there already stays."""
        self._check_inside(name)
        there, mark = self.folder / name, link_mark(source.absolute()) if link else digest
        if present(there) == mark or _is_image_itself(there, source):
            self._kept.add(name)
            self.digests[name] = present(there) or mark
        elif link:
            self.place(name).symlink_to(source.absolute())
        else:
            shutil.copyfile(source, self.place(name))

    def seal(self) -> list[str]:
        """The names of all files of the new export, of which `digests` holds the digests then."""
        for path in self.stage.rglob("*"):
            if path.is_symlink() or path.is_file():
                self.digests.setdefault(path.relative_to(self.stage).as_posix(), present(path) or "")
        return sorted(self.digests)

    def publish(self, manifest: str, head: Mapping[str, Any], written: Mapping[str, set[str]]) -> None:
        """Move the new files to their places and remove the earlier export's others.

        ``manifest`` names the file that says what the folder holds; ``head`` is what it says, ``written`` what the
        earlier one said: name -> digests. Until the last step it says that the export is not complete, and what each
        file may hold: so the same command can tell its own half-done work from a person's.
        """
        new = {name: {digest} for name, digest in self.digests.items()}
        held = {name: sorted(written.get(name, set()) | new.get(name, set())) for name in {*written, *new}}
        self._say(manifest, {**head, "complete": False, "written": held})
        for name in self.digests:
            if name not in self._kept:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.stage / name, self.folder / name)
        for name in written:
            if name not in self.digests:
                self._remove(name)
        self._say(manifest, {**head, "complete": True, "written": self.digests})

    def _say(self, manifest: str, what: Mapping[str, Any]) -> None:
        shards.write_json(what, self.stage / manifest)  # here, so that a kill leaves nothing half written in sight
        os.replace(self.stage / manifest, self.folder / manifest)

    def _remove(self, name: str) -> None:
        """Remove a file of the earlier export, and the folders that it leaves empty."""
        path = self.folder / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        for folder in path.parents:
            if folder == self.folder:
                return
            try:
                folder.rmdir()
            except OSError:  # it holds more
                return

    def _check_inside(self, name: str) -> None:
        parent = (self.folder / name).parent
        if not parent.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{parent} is a link out of the export folder; give a new or empty folder")

    def _clear(self) -> None:
        if self.stage.is_symlink():
            self.stage.unlink()
        elif self.stage.exists():
            shutil.rmtree(self.stage)


def present(path: Path) -> str | None:
    """What a file in the folder holds now: its digest, of a link where it points to; None: there is no file."""
    if path.is_symlink():
        return link_mark(path.readlink())
    return file_digest(path) if path.is_file() else None


def link_mark(target: Path) -> str:
    """What the manifest notes of a link."""
    return f"-> {target}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_image_itself(there: Path, source: Path) -> bool:
    """Whether the place of the copy holds the very image: a dataset may be made of an earlier export's files."""
    return there.exists() and not there.is_symlink() and there.samefile(source)
