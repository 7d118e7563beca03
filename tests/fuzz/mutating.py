"""Odd variants of files: each value in turn replaced by each odd one, and bytes mangled at random."""

import copy
import json
import random
from collections.abc import Iterator
from xml.etree import ElementTree

HUGE = "#" + "9" * 5000 + "#"  # stands for the number, which Python will not print
ODD = [
    None,
    True,
    False,
    0,
    -1,
    1e308,
    -1e308,
    1e-320,
    float("nan"),
    float("inf"),
    2**63,
    10**30,
    HUGE,
    "",
    " ",
    "\t",
    "²",
    "1e-320",
    "1,5",
    "nan",
    "\ud800",
    "\udc1b\ud83d",
    "x" * 5000,
    "../../x",
    "C:\\x\\a.png",
    "a\x00b",
    [],
    [[]],
    [None],
    {},
    {"a": 1},
    [1, 2, 3, 4],
    ["0", "0", "5", "5"],
    "🐛",
    "0x10",
    "1_000",
]


def leaves(value, path=()) -> Iterator[tuple]:
    """Paths of all values of a document."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(inner, (*path, key))


def put(document, path, value):
    out = copy.deepcopy(document)
    *way, last = path
    place = out
    for key in way:
        place = place[key]
    place[last] = value
    return out


def odd_json(document) -> Iterator[tuple[str, bytes]]:
    """Each value in turn set to each odd one."""
    for path in leaves(document):
        for odd in ODD:
            changed = json.dumps(put(document, path, odd if odd != HUGE else HUGE[:9])).replace(
                HUGE[:9], HUGE.strip("#")
            )
            yield f"{path} = {str(odd)[:30]}", changed.encode("utf-8", "surrogatepass")


def odd_xml(text: str) -> Iterator[tuple[str, bytes]]:
    """Each attribute and each text in turn set to each odd value that XML can hold."""
    words = [o for o in ODD if isinstance(o, str) and "\0" not in o and not any("\ud800" <= c <= "\udfff" for c in o)]
    count = len(list(ElementTree.fromstring(text).iter()))
    for place in range(count):
        for key in (None, *list(ElementTree.fromstring(text).iter())[place].attrib):
            for odd in [*words, "99999999999999999999999", "1e308", "-1"]:
                root = ElementTree.fromstring(text)
                element = list(root.iter())[place]
                if key is None:
                    element.text = odd
                else:
                    element.set(key, odd)
                yield f"{place} {element.tag} {key} = {odd[:30]}", ElementTree.tostring(root, encoding="utf-8")


def odd_words(text: str) -> Iterator[tuple[str, bytes]]:
    """Each word of each line in turn set to each odd one."""
    lines = [line.split() for line in text.splitlines()]
    for k, line in enumerate(lines):
        for at in range(len(line)):
            for odd in [o for o in ODD if isinstance(o, str)] + ["99999999999999999999999", "1e308", "-1"]:
                changed = [*lines[:k], [*line[:at], odd, *line[at + 1 :]], *lines[k + 1 :]]
                raw = "\n".join(" ".join(words) for words in changed).encode("utf-8", "surrogatepass")
                yield f"line {k} word {at} = {odd[:30]}", raw


def mangled(raw: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, swapped for odd ones."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(out) or 1)
        kind = rng.randrange(5)
        if kind == 0 and out:
            out[at] = rng.randrange(256)
        elif kind == 1:
            del out[at : at + rng.choice((1, 3, 20, 200))]
        elif kind == 2:
            out[at:at] = out[at : at + rng.choice((1, 5, 50))] * rng.choice((1, 3))
        elif kind == 3:
            out[at:at] = rng.choice(
                (b"\xc2\xb2", b"\xff", b"\x00", b"1e999", b"-", b"[", b"<a>", b"nan", b",", b'"', b"\xef\xbb\xbf")
            )
        else:
            numbers = [k for k, c in enumerate(out) if chr(c).isdigit()]
            if numbers:
                out[(k := rng.choice(numbers)) : k + 1] = rng.choice(
                    (b"99999999999999999999", b"-1", b"0.0", b"1e-320", b"")
                )
    return bytes(out)
