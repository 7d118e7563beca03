"""An export over an earlier one: what a person changed since stays, and so does what samples are made of."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo

from gsal_fo.fo.exchange import manifests
from gsal_fo.fo.exchange.formats.target import STAGE, present

FOREIGN = "{} holds files that gsal export did not write; give a new or empty folder"


def earlier(folder: Path) -> dict[str, Any] | None:
    """The manifest of the export that lies in the folder, None: it is new, or holds nothing.

    Raises:
        ValueError: the folder holds anything else, or a manifest that was altered.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the export")
    if all(p.name == STAGE for p in folder.iterdir()):  # nothing, or what a killed export left
        return None
    try:
        return manifests.read(folder / manifests.NAME)
    except ValueError as error:
        raise ValueError(FOREIGN.format(folder)) from error


def written(folder: Path, manifest: dict[str, Any] | None) -> dict[str, set[str]]:
    """Name -> what an earlier export wrote, as `present` has it; an unfinished one may hold its old or its new file.
    Names that an altered manifest points out of the folder are left out."""
    if manifest is None:
        return {}
    digests = {name: {d} if isinstance(d, str) else set(d) for name, d in manifest.get("written", {}).items()}
    inside = folder.resolve()
    return {
        name: digests.get(name, set())  # versions before 2 kept none: nothing is known to be theirs
        for name in {*manifest.get("files", []), *digests}
        if name != manifests.NAME and (folder / name).parent.resolve().is_relative_to(inside)
    }


def check(folder: Path, old: dict[str, set[str]], new: dict[str, str], *, force: bool) -> list[str]:
    """The files that the new export would replace or remove.

    Args:
        folder: the export's.
        old: what an earlier export wrote.
        new: what the folder will hold: name -> digest.
        force: files that were changed since may go.

    Raises:
        ValueError: one of them is not as we wrote it, or a folder is in the way.
    """
    for name in new:
        place = folder / name
        ways = [p for p in place.parents if p != folder and p.is_relative_to(folder)]
        if blocked := [p for p in ways if p.exists() and not p.is_dir()] + [p for p in [place] if p.is_dir()]:
            raise ValueError(f"{blocked[0]} is in the way of the export; move it, or give another folder")
    goes, changed = [], []
    for name in sorted({*old, *new}):
        found = present(folder / name)
        if found is None or found == new.get(name):
            continue
        goes.append(name)
        if found not in old.get(name, set()):
            changed.append(name)
    if changed and not force:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(
            f"{folder / changed[0]}{more} would be replaced, and gsal export did not write it so; take the labels "
            f"back first, give another folder, or replace it with --force"
        )
    return goes


def check_sources(dataset: fo.Dataset, folder: Path, goes: Iterable[str]) -> None:
    """Raise ValueError where a file that would go is the image of a sample: of this dataset, by whatever path or link,
    or of any other that names it by its path."""
    files = {(found.st_dev, found.st_ino): name for name in goes if (found := _stat(folder / name, links=False))}
    if not files:
        return
    for path in _paths(dataset._sample_collection, {}):
        for links in (False, True):  # a sample's path may itself be a link, and lead here
            found = _stat(Path(path), links=links)
            if found and (name := files.get((found.st_dev, found.st_ino))):
                raise _in_use(folder / name, dataset.name)
    database = foo.get_db_conn()
    inside = {"$regex": f"^({'|'.join(re.escape(str(f)) for f in {folder, folder.resolve()})})/"}
    for doc in database.datasets.find({}, {"name": 1, "sample_collection_name": 1}):
        for path in _paths(database[doc["sample_collection_name"]], inside):
            found = _stat(Path(path), links=False)
            if found and (name := files.get((found.st_dev, found.st_ino))):
                raise _in_use(folder / name, doc["name"])


def _in_use(path: Path, dataset: str) -> ValueError:
    return ValueError(f'{path} is an image of dataset "{dataset}" and would go; give another folder for the export')


def _paths(collection: Any, query: dict[str, Any]) -> Iterator[str]:
    found = collection.find({"filepath": query} if query else {}, {"filepath": 1})
    return (d["filepath"] for d in found if isinstance(d.get("filepath"), str))


def _stat(path: Path, *, links: bool) -> os.stat_result | None:
    try:
        return path.stat() if links else path.lstat()
    except OSError:
        return None
