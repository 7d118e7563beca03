"""Text files that people and other tools write: YAML and JSON of plain values, bounded, every fault one short sentence.

What is refused before it costs anything: a file that is no ordinary one or too long, nesting without end, aliases that
unfold a few lines into millions of values, a key that stands twice, text that neither a terminal nor a database takes.
"""

import json
import re
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

MOST_YAML = 2**21  # bytes: a graph of 20,000 labels; longer ones take a parser many seconds
MOST_JSON = 2**30
MOST_VALUES = 1_000_000  # of a YAML file, its aliases written out
DEEPEST = 64  # levels of lists and mappings
LONGEST = 60  # characters of a value or name that a message repeats
WORDS = 200  # characters of a parser's own words
NUMBERS = ("int", "float", "timestamp")
PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}", re.IGNORECASE)  # JSON's way to write 🐛; YAML has none
TAG = "tag:yaml.org,2002:"


class FileError(ValueError):
    """A file that cannot be used; the message names it and says what to do."""


def read_yaml(path: str | Path, what: str, *, numbers: bool = True) -> Any:
    """The plain values of a YAML file; ``what`` it is supposed to be, for messages. See ``parse_yaml``."""
    return parse_yaml(read_text(path, what, most=MOST_YAML), str(path), numbers=numbers)


def read_json(path: str | Path, what: str, *, most: int = MOST_JSON) -> Any:
    """The plain values of a JSON file; raises FileError."""
    text = read_text(path, what, most=most)
    try:
        return json.loads(text)
    except RecursionError:
        raise FileError(f"{path}: lists and mappings are nested too deep; mend the file") from None
    except ValueError as error:
        raise FileError(f"{path}: not valid JSON ({words(error)}); mend the file") from error


def read_text(path: str | Path, what: str, *, most: int) -> str:
    """The text of a UTF-8 file of at most ``most`` bytes; raises FileError."""
    try:
        found = Path(path).stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):  # a pipe or a device may never end
            raise OSError("it is no ordinary file")
        if stat.S_ISREG(found.st_mode) and found.st_size > most:
            raise FileError(
                f"{path}: {found.st_size:,} bytes are too long for {what}; expected at most {most:,}, is this the file?"
            )
        return Path(path).read_text(encoding="utf-8-sig")
    except FileError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or words(error)
        raise FileError(f"{path}: cannot read {what} ({why}); give the path of a text file in UTF-8") from error


def parse_yaml(text: str, source: str, *, numbers: bool = True) -> Any:
    """The plain values of a YAML text.

    Args:
        text: of one document.
        source: names it in messages.
        numbers: whether what looks like a number or a date becomes one; otherwise it stays the text as written: a label
            010 is not the number 8.

    Raises:
        FileError: it is no YAML, or more than plain values within bounds.
    """
    return _checked(text, source, _Plain if numbers else _Texts, lambda loader, root: loader.construct_document(root))


def compose_yaml(text: str, source: str) -> yaml.Node | None:
    """The nodes of a YAML text, each with its place; refuses what ``parse_yaml`` refuses, but for values."""
    return _checked(text, source, _Texts, lambda loader, root: root)


def _checked(text: str, source: str, kind: "type[_Plain]", take: Callable[["_Plain", yaml.Node], Any]) -> Any:
    """What ``take`` makes of the checked nodes of a text; None of an empty one."""
    try:
        loader = kind(PAIR.sub(lambda pair: json.loads(f'"{pair[0]}"'), text))
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check(loader, root)
            return take(loader, root)
        finally:
            loader.dispose()
    except RecursionError:
        raise FileError(f"{source}: lists and mappings are nested too deep; mend the file") from None
    except FileError as error:
        raise FileError(f"{source}: {error}; mend the file") from error
    except (yaml.YAMLError, ValueError) as error:
        where = words(error).replace('in "<unicode string>", ', "")
        raise FileError(f"{source}: not valid YAML ({where}); mend the file") from error


def shown(value: Any) -> str:
    """A value as a message may repeat it: on one line, short, and without running through what it holds."""
    if isinstance(value, str):
        head = value[: LONGEST + 1]
        text = ascii(head) if unprintable(head) else f'"{one_line(head)}"'
        return text if len(text) <= LONGEST + 2 else f"{text[: LONGEST - 2]}...{text[0]}"
    if isinstance(value, bool | float) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() < 128 else "a number of many digits"
    return f"a {'mapping' if isinstance(value, dict) else type(value).__name__}"


def words(error: BaseException) -> str:
    """What an error says, on one line and not pages long."""
    text = one_line(str(error)) or type(error).__name__
    return text if len(text) <= WORDS else text[: WORDS - 3] + "..."


def one_line(text: str) -> str:
    """The text on one line of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def unprintable(text: str) -> bool:
    """Whether the text holds control characters, line breaks or halves of characters, which no name may have."""
    return any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


class _Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML: builds plain values only, and says the line of whatever cannot be built."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
        except (yaml.YAMLError, FileError, RecursionError):
            raise
        # `!!int x` is a ValueError, `!!timestamp x` an AttributeError, others raise what their code runs into.
        except Exception as error:
            raise _at(node, f"{shown(node.value)} is no valid {node.tag.removeprefix(TAG)[:LONGEST]}") from error
        if isinstance(value, str) and not value.isascii() and any(unicodedata.category(c) == "Cs" for c in value):
            raise _at(node, f"{shown(value)} holds half of a character")
        return value


# As YAML 1.2 has it: PyYAML alone takes 1e-3 for a text.
_Plain.add_implicit_resolver(
    f"{TAG}float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _Texts(_Plain):
    """The same, with numbers and dates as they are written."""


_Texts.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag.removeprefix(TAG) not in NUMBERS]
    for first, rules in _Plain.yaml_implicit_resolvers.items()
}


def _at(node: yaml.Node, what: str) -> FileError:
    return FileError(f"line {node.start_mark.line + 1}: {what}")


def _check(loader: _Plain, root: yaml.Node) -> None:
    """Refuses a document that its aliases, written out, make endless, too deep or too large, and keys that plain YAML
    would take silently: of two equal ones it keeps the last."""
    sizes: dict[int, tuple[int, int]] = {}  # of a finished node: values in it, levels in it
    around: set[int] = set()  # nodes that hold the one at hand
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    while waiting:
        node, finished = waiting.pop()
        if id(node) in sizes:
            continue
        children = _children(node)
        if not finished:
            around.add(id(node))
            waiting.append((node, True))
            if any(id(child) in around for child in children):
                raise _at(node, "it holds itself by an alias")
            waiting += [(child, False) for child in children if id(child) not in sizes]
            continue
        count = 1 + sum(sizes[id(child)][0] for child in children)
        depth = 1 + max((sizes[id(child)][1] for child in children), default=0)
        if count > MOST_VALUES:
            raise _at(node, f"aliases unfold into more than {MOST_VALUES:,} values")
        if depth > DEEPEST:
            raise _at(node, f"lists and mappings are nested more than {DEEPEST} deep")
        if isinstance(node, yaml.MappingNode):
            _check_keys(loader, node)
        sizes[id(node)] = count, depth
        around.discard(id(node))


def _check_keys(loader: _Plain, node: yaml.MappingNode) -> None:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == f"{TAG}merge":  # `<<: *other` may stand twice
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise _at(key_node, "a key must be plain text, not a list or mapping")
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise _at(key_node, f"{shown(key)} is given twice, keep one of the two")
        seen.add(key)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
