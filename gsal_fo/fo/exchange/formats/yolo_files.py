"""Which texts of a folder are YOLO label files, which hold class names, and which are lists of images: by content."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gsal_fo.fo.exchange.formats.texts import Odd, label_name, lines, number, read_text, refusal, short
from gsal_fo.fo.exchange.formats.tree import Tree, is_image

KIND = "YOLO data set"
LISTS = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml")  # what a message names
SPLITS = ("train", "val", "valid", "validation", "test", "trainval", "images", "notes", "readme", "classes")
LABELS = re.compile(r"labels|obj_.*_data|obj_data", re.IGNORECASE)  # folders of nothing but label files
HEAD = 4096  # characters that say what a text is
PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}", re.IGNORECASE)  # JSON's way to write 🐛; YAML has none
LONGEST = 2_000_000  # bytes of a YAML: ten thousand classes are a tenth of it, and parsing takes seconds


class NoClasses(ValueError):
    """Without the names of its classes, or with two lists that disagree, no label file of a folder can be read."""


class _Names(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    """Text, lists and mappings only: a class called `no` or `1e3` stays that text."""


def _plain(text: str) -> Any:
    """The content of a YAML. An alias could unfold a few lines into millions of values: none is ever followed."""
    loader = _Names(PAIR.sub(lambda pair: json.loads(f'"{pair[0]}"'), text))
    try:
        root = loader.get_single_node()
        seen, waiting = set[int](), [root] if root is not None else []
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                raise yaml.YAMLError("it has aliases, which a list of classes does not need")
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                waiting += [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                waiting += node.value
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


@dataclass(frozen=True)
class Classes:
    """Class names by number, from ``source``; ``keypoints``: numbers per row after the box; ``root``: the folder that
    it says the data set is in."""

    names: dict[int, str | Odd]
    source: Path
    keypoints: int = 0
    root: Path | None = None

    def plain(self) -> dict[int, str]:
        """The names, to compare two lists."""
        return {k: str(v) for k, v in self.names.items()}

    def label(self, text: str) -> str:
        """The name of a row's class; raises Odd where there is none."""
        place = number(text, "class")
        name = self.names.get(int(place)) if place >= 0 and place == int(place) else None
        if name is None:
            raise Odd(f"class {short(text)!r}, and {len(self.names)} are listed in {self.source.name}, from 0")
        if isinstance(name, Odd):
            raise name
        return name


@dataclass
class Found:
    """The label files of a folder."""

    tree: Tree
    labels: list[Path]
    listed: dict[str, str] = field(default_factory=dict)  # path without suffix -> path, of images in lists and folders
    given: Classes | None = None  # of the YAML or list that the user named
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._in_folder = cache(self._read_folder)

    def image_of(self, path: Path) -> str:
        """The image of a label file: the path below its folder of labels, with the suffix where a list or an image
        beside it tells."""
        parts = path.relative_to(self.tree.root).with_suffix("").parts
        places = [k for k, p in enumerate(parts[:-1]) if LABELS.fullmatch(p)]
        below = "/".join(parts[places[-1] + 1 :] if places else parts)
        return self.listed.get(below, below)

    def classes_of(self, path: Path) -> Classes:
        """The class names of a label file: the nearest list upwards.

        Raises:
            NoClasses: none, or two in one folder that disagree.
        """
        if self.given is not None:
            return self.given
        for folder in self.tree.upwards(path.parent):
            if (classes := self._in_folder(folder)) is not None:
                return classes
        raise NoClasses(str(refusal(self.tree.root, KIND, f"its class names are missing ({', '.join(LISTS)})")))

    def _read_folder(self, folder: Path) -> Classes | None:
        found, broken = [], []
        for path in _sources(folder, set(self.labels)):
            try:
                found += [c] if (c := read_classes(path)) is not None else []
            except NoClasses as error:
                broken.append(error)
        if broken and not found:
            raise broken[0]
        for other in found[1:]:
            if other.plain() != found[0].plain():
                raise NoClasses(
                    f"{folder} lists other classes in {found[0].source.name} than in {other.source.name}; name the one "
                    "that is right instead of the folder"
                )
        # The file that knows of keypoints says more.
        return max(found, key=lambda c: c.keypoints, default=None)


def find(tree: Tree) -> Found:
    """Tell the texts of a folder apart.

    In folders called labels (or obj_train_data, ...) every text is a label file but a list of classes. Where there are
    none such, it is one whose lines look like rows, or an empty one that is called after an image.
    """
    if tree.only is None:
        return _of(tree)
    if not _is_list(tree.only):
        return Found(Tree(_root_of(tree.root)), [tree.only])
    given = read_classes(tree.only)
    if given is None:
        raise NoClasses(str(refusal(tree.only, KIND, f"{tree.only.name} lists no class names")))
    found = _of(Tree(tree.root), given)
    return found if found.labels or given.root is None else _of(Tree(given.root), given)


def _of(tree: Tree, given: Classes | None = None) -> Found:
    whole = Tree(_above_labels(tree.root))
    texts = [p for p in tree.of(".txt") if not _is_list(p)]
    inner = [p for p in texts if any(LABELS.fullmatch(part) for part in p.relative_to(whole.root).parts[:-1])]
    if len(inner) == len(texts):
        return Found(whole, inner, _listed(tree, []), given)
    outer = sorted(set(texts) - set(inner))
    stems = {p.with_suffix("") for p in tree.files if is_image(p.name)}
    rows = [p for p in outer if _rows(p)]
    empty = [p for p in outer if _empty(p) and (p.with_suffix("") in stems or p.stem.lower() not in SPLITS)]
    found = Found(whole, inner, _listed(tree, sorted(set(outer) - set(rows) - set(empty))), given)
    if inner and rows:
        first = tree.name(rows[0])
        found.notes.append(f"{len(rows)} texts with rows outside of the labels folders were left out: {first}")
    elif not inner and (rows or _sources(tree.root, set())):
        found.labels = sorted(rows + empty)  # flat folders hold label files beside images
    return found


def _above_labels(folder: Path) -> Path:
    """The folder of a data set of which somebody named the labels folder, or a split of it."""
    for place in (folder, folder.parent):
        if LABELS.fullmatch(place.name):
            return place.parent
    return folder


def _root_of(folder: Path) -> Path:
    """The folder of a data set that a single label file is of: the nearest with class names, four up at most."""
    for place in (folder, *folder.parents[:4]):
        if _sources(place, set()):
            return place
    return folder


def _is_list(path: Path) -> bool:
    """Whether a file holds class names, by its name and content."""
    if path.suffix.lower() in (".yaml", ".yml", ".names", ".labels"):
        return True
    named = path.name.lower() in ("classes.txt", "predefined_classes.txt", "labels.txt")
    return named and not _rows(path) and not _empty(path)


def _sources(folder: Path, labels: set[Path]) -> list[Path]:
    """Files of a folder that may hold class names; a YAML of something else does not count."""
    try:
        here = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError:
        return []
    return [p for p in here if p not in labels and _is_list(p)]


def read_classes(path: Path) -> Classes | None:
    """The class names of a file; None where a YAML is about something else.

    Raises:
        NoClasses: it cannot be read.
    """
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError(f"{path} has more than {LONGEST // 10**6} MB; a list of classes is far shorter")
        text = read_text(path, KIND)
        if path.suffix.lower() not in (".yaml", ".yml"):
            listed = "\n".join(lines(text)).rstrip().split("\n")
            return Classes({k: _name(name) for k, name in enumerate(listed)}, path)
        value = _plain(text)
    except (OSError, ValueError) as error:
        raise NoClasses(str(error)) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = short(" ".join(str(error).split()), 150)
        raise NoClasses(str(refusal(path, KIND, f"{path.name} lists no class names ({reason})"))) from error
    if not isinstance(value, dict) or not isinstance(names := value.get("names"), list | dict):
        return None
    try:
        pairs = enumerate(names) if isinstance(names, list) else [(_place(k), v) for k, v in names.items()]
        found = {k: _name(v) for k, v in pairs}
        return Classes(found, path, _keypoints(value.get("kpt_shape")), _folder(path, value.get("path")))
    except Odd as error:
        raise NoClasses(str(refusal(path, KIND, f"{path.name} lists no class names ({error})"))) from error


def _place(key: Any) -> int:
    value = number(key, "class")
    if value < 0 or value != int(value):
        raise Odd(f"class {short(key)} is no number from 0 on")
    return int(value)


def _name(value: Any) -> str | Odd:
    """A class name; an odd one only counts where a row has it."""
    try:
        return label_name(value)
    except Odd as error:
        return error


def _folder(path: Path, stated: Any) -> Path | None:
    try:
        folder = path.parent / stated if isinstance(stated, str) and stated else None
        return folder if folder is not None and folder.is_dir() else None
    except (OSError, ValueError):
        return None


def _keypoints(shape: Any) -> int:
    try:
        points, values = (int(number(v)) for v in shape)
    except (TypeError, ValueError):
        return 0
    return points * values


def _head(path: Path) -> list[str]:
    """The first lines that are not blank; none where it is no text."""
    try:
        text = read_text(path, KIND)
    except ValueError:
        return ["?"]
    return [line.strip() for line in lines(text[:HEAD]) if line.strip()]


def _empty(path: Path) -> bool:
    return not _head(path)


def _rows(path: Path) -> bool:
    """Whether it begins with a row: a class number and four values or more."""
    head = _head(path)
    first = head[0].split() if head else []
    return len(first) >= 5 and re.fullmatch(r"[+-]?[\d.]+", first[0]) is not None


def _listed(tree: Tree, texts: list[Path]) -> dict[str, str]:
    """Images by their path below the folder of images, without suffix; where two share one, neither."""
    names = [tree.name(p) for p in tree.files if is_image(p.name)]
    for path in texts:
        head = _head(path)
        if head and is_image(head[0]):
            names += lines(read_text(path, KIND))
    out: dict[str, set[str]] = defaultdict(set)
    for name in names:
        parts = name.strip().replace("\\", "/").split("/")
        places = [k for k, p in enumerate(parts[:-1]) if re.fullmatch(r"images|obj_.*_data|obj_data", p, re.IGNORECASE)]
        below = "/".join(parts[places[-1] + 1 :] if places else [p for p in parts if p not in ("", ".")])
        if below and is_image(below):
            out[below.rsplit(".", 1)[0]].add(below)
    return {stem: next(iter(names)) for stem, names in out.items() if len(names) == 1}
