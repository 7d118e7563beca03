"""One way to read bytes, JSON, XML, numbers and names, for all readers; what cannot be read is said in a sentence."""

import json
import math
import re
import unicodedata
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, ParseError, indent

import defusedxml.ElementTree as safe
from defusedxml import DefusedXmlException

MOST = 1 << 30  # bytes of a label file, or of all label files of an archive: what memory takes in one piece
LARGEST = 1e9  # no image has a billion pixels a side
DIGITS = 300  # of an integer that is worth being one: beyond, Python refuses the whole file
MARK = "\ufeff"  # a byte order mark, which joined files have inside; nobody sees it in a name
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class Odd(ValueError):
    """One entry of a label file that cannot be understood: it is listed, and the rest of the file is read."""


def refusal(path: Path, kind: str, what: str) -> ValueError:
    """The one sentence about a file that cannot be taken."""
    return ValueError(f"{path} is no {kind}: {what}; export it from the labeling tool again and try once more")


def short(value: Any, most: int = 60) -> str:
    """A value of a label file for a message: on one line, printable, cut."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


def decode(raw: bytes) -> str:
    """Text of a file: UTF-8, or UTF-16 and UTF-32 with or without a byte order mark; nothing is ever guessed.

    Raises:
        ValueError: any other encoding. Each byte is a letter in the old ones, so a guess would invent labels.
    """
    encoding = json.detect_encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        byte = raw[error.start : error.start + 1].hex()
        raise ValueError(
            f"it is neither UTF-8 nor UTF-16 text (byte 0x{byte} at {error.start}); save it as UTF-8"
        ) from None


def check_size(path: Path) -> None:
    """Raise ValueError for a file that is too large to be read in one piece."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if size > MOST:
        raise ValueError(f"{path} has {size / 1e9:.1f} GB; label files may have {MOST / 1e9:.1f}: export in parts")


def read_bytes(path: Path) -> bytes:
    """The content of a file; raises ValueError with one sentence."""
    check_size(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def read_text(path: Path, kind: str) -> str:
    """The text of a file; raises ValueError with one sentence."""
    raw = read_bytes(path)
    try:
        return decode(raw)
    except ValueError as error:
        raise refusal(path, kind, str(error)) from None


def lines(text: str) -> list[str]:
    """The lines of a text as editors count them; `splitlines` also breaks at signs that a label may hold."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_json(path: Path, kind: str) -> Any:
    """The content of a JSON file; raises ValueError with one sentence where it is broken or too large."""
    raw = read_bytes(path)
    try:
        return json.loads(decode(raw), parse_int=_integer)
    except (ValueError, RecursionError, MemoryError) as error:
        raise refusal(path, kind, f"it is not readable JSON ({short(str(error), 200)})") from error


def _integer(text: str) -> int | float:
    """Python refuses to parse thousands of digits, which would cost the whole file; as a number it is one odd entry."""
    return int(text) if len(text) <= DIGITS else float(text)


def read_xml(path: Path, kind: str) -> Element:
    """The root of an XML file, read without entities and without anything from outside."""
    raw = read_bytes(path)
    try:
        root: Element | None = safe.fromstring(raw, forbid_dtd=True)
    except DefusedXmlException as error:
        raise refusal(path, kind, "it declares a DTD or entities, which are never read") from error
    # LookupError: an encoding that nobody knows.
    except (ValueError, ParseError, RecursionError, LookupError, MemoryError) as error:
        raise refusal(path, kind, f"it is not readable XML ({short(str(error), 200)})") from error
    return root if root is not None else Element("")


def write_xml(root: Element, path: Path, *, declaration: bool = True) -> None:
    """Write a document, indented for a person."""
    indent(root)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=declaration)


def number(value: Any, what: str = "") -> float:
    """A finite number, from a number or from text; ``what`` names it in the message.

    Raises:
        Odd: anything else: decimal commas, digits of other scripts, underscores, NaN, infinity, a billion and more.
    """
    name = f"{what} " if what else ""
    if isinstance(value, str):
        text = value.strip()
        if COMMA.fullmatch(text):
            raise Odd(f'{name}"{short(text)}" has a decimal comma; write {short(text.replace(",", "."))}')
        if not NUMBER.fullmatch(text):
            raise Odd(f'{name}"{short(text)}" is no number')
        value = text
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise Odd(f"{name}{short(value)} is no number")
    try:
        out = float(value)
    except OverflowError:
        out = math.inf
    if not math.isfinite(out):
        raise Odd(f"{name}{short(value)} is no finite number")
    if abs(out) >= LARGEST:
        raise Odd(f"{name}{short(value)} is too large")
    return out


def plain(text: str) -> Any:
    """What an attribute's text means: a number, a truth value, or the text itself."""
    try:
        value = number(text)
    except Odd:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    return int(value) if text.strip().lstrip("+-").isdigit() else value


def label_name(value: Any) -> str:
    """The name of a label: text, trimmed; whole numbers are names, too.

    Raises:
        Odd: nothing but blanks, not text, or text that no database takes.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise Odd(f"{short(value)} is no label name")
    text = whole(value).strip().strip(MARK).strip()
    if not text:
        raise Odd("a label without a name")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise Odd(f'label "{short(text)}" has characters that are no text')
    return text


def whole(text: str) -> str:
    """Text whose escaped halves of one character (a surrogate pair) are that character again."""
    if not any("\ud800" <= c <= "\udfff" for c in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
