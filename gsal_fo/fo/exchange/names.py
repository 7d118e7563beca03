"""What tools make of an image's name: addresses, prefixes of uploads, folders of other machines, other suffixes."""

import re
import unicodedata
from functools import lru_cache
from urllib.parse import parse_qs, unquote, urlsplit

from gsal_fo.fo.exchange.formats.tree import is_image

SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
DRIVE = re.compile(r"[a-z]:(?=/|$)", re.IGNORECASE)
# Label Studio: eight hex digits and "-" before an upload, "__" before a file of a storage.
UPLOADED = re.compile(r"[0-9a-f]{8}(?:-|__)(.+)")
# Roboflow: name_suffix.rf.HASH.suffix, the name's other signs turned into "-".
ROBOFLOW = re.compile(r"(.+?)(?:_(jpe?g|png|bmp|tiff?|webp|avif|heic))?\.rf\.[0-9a-zA-Z]{16,}(\.\w+)?", re.IGNORECASE)

Parts = tuple[str, ...]


def spellings(name: str) -> list[tuple[Parts, bool]]:
    """Each way to read what a label file calls an image, the plainest first: the parts of its path, and whether a tool
    had changed the name (then the folders are the tool's own, and are left out)."""
    plain = clean(name)
    out: list[tuple[Parts, bool]] = [(plain, False)]
    if (unquoted := clean(unquote(name))) != plain:
        out.append((unquoted, False))
    for parts in (plain, unquoted):
        base = parts[-1] if parts else ""
        if found := UPLOADED.fullmatch(base):
            out.append(((found[1],), True))
            base = found[1]
        if found := ROBOFLOW.fullmatch(base):
            suffix = f".{found[2]}" if found[2] else found[3] or ""
            out.append(((found[1] + suffix,), True))
    return list(dict.fromkeys(p for p in out if p[0]))


def clean(name: str) -> Parts:
    """The parts of a path: without scheme, host, query and drive, whatever the slashes; letters composed (NFC)."""
    text = unicodedata.normalize("NFC", name).replace("\\", "/").strip()
    if SCHEME.match(text) or "?" in text:
        try:
            address = urlsplit(text)
            wanted = parse_qs(address.query).get("d")  # Label Studio's local files
            # Of a web address the path is quoted, of a bucket it is not.
            path = unquote(address.path) if address.scheme.lower() in ("http", "https") else address.path
            text = wanted[0].replace("\\", "/") if wanted else path if SCHEME.match(text) else text
        except ValueError:
            pass  # no address after all
    return tuple(p for p in DRIVE.sub("", text, count=1).split("/") if p not in ("", ".", ".."))


@lru_cache(maxsize=1 << 16)
def stem(base: str) -> str:
    """A base name without the suffix of an image."""
    return base.rsplit(".", 1)[0] if is_image(base) else base


def loose(base: str) -> str:
    """Letters and digits alone: upload forms and web tools replace blanks and other signs."""
    return re.sub(r"[\W_]+", "-", base.casefold()).strip("-")
