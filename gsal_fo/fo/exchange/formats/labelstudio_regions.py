"""What a labeler drew in Label Studio: one annotation's results as shapes, in shares of the image."""

from typing import Any

from gsal_fo.fo.exchange.formats import geometry
from gsal_fo.fo.exchange.formats.model import Labeled, Shape
from gsal_fo.fo.exchange.formats.texts import Odd, label_name, number, short

FIELDS = ("choices", "textarea", "rating", "taxonomy", "number", "datetime", "pairwise", "ranker")


def read(results: list[Any], image: Labeled) -> None:
    """Add an annotation's shapes to ``image``, with what was said of each; what is said of the whole image, and
    relations, are counted as dropped.

    A region may come in several results of one id: its outline, its label (a Labels tag apart from a Rectangle tag) and
    what was chosen or written for it.
    """
    names: dict[Any, list[Any]] = {}
    said: dict[Any, dict[str, Any]] = {}
    drawn: list[dict[str, Any]] = []
    for r in results:
        if not isinstance(r, dict):
            image.unread.append(f"a result {short(r)}")
            continue
        kind, value = r.get("type"), r.get("value")
        value = value if isinstance(value, dict) else {}
        if kind == "labels":
            names.setdefault(str(r.get("id")), []).extend(_list(value.get("labels")))
        elif kind == "relation":
            image.dropped["relations"] += 1
        elif kind in FIELDS:
            said.setdefault(str(r.get("id")), {})[str(r.get("from_name") or kind)] = _said(value, str(kind))
        else:
            drawn.append({**r, "value": value})
    regions = {str(r.get("id")) for r in drawn}
    for about, facts in said.items():
        if about not in regions:
            image.dropped["answers about the whole image"] += len(facts)
    for about in names:
        if about not in regions:
            image.unread.append("a label of a region that is not there")
    for r in drawn:
        about = str(r.get("id"))
        try:
            shape = _shape(r, names.get(about, []), image)
        except Odd as error:
            image.unread.append(f"a {short(r.get('type'), 30)}: {error}")
            continue
        shape.attributes |= said.get(about, {})
        assert image.boxes is not None
        image.boxes.append(shape)


def from_flat(value: dict[str, Any]) -> dict[str, Any]:
    """A result of JSON-MIN, which puts a region's value and sizes side by side, as one of JSON."""
    kind = next((k for k in value if k.endswith("labels")), None)
    if kind is None:
        kind = next((k for k in FIELDS if k in value), "region without a label")
    kept = ("original_width", "original_height", "image_rotation", "id")
    sizes: dict[str, Any] = {k: value[k] for k in kept if k in value}
    return {"type": kind, "value": value, **sizes}


def _said(value: dict[str, Any], kind: str) -> Any:
    content = value.get({"textarea": "text"}.get(kind, kind))
    return content[0] if isinstance(content, list) and len(content) == 1 else content


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _shape(r: dict[str, Any], names: list[Any], image: Labeled) -> Shape:
    value, kind = r["value"], str(r.get("type"))
    tool = kind.removesuffix("labels")
    if tool not in TOOLS:
        raise Odd("it has no extent that a box could take")
    labels = list(dict.fromkeys(label_name(n) for n in (_list(value.get(kind)) or names)))
    if len(labels) != 1:
        raise Odd("it has no label" if not labels else f"it has {len(labels)} labels ({short(', '.join(labels))})")
    if number(r.get("image_rotation") or 0, "image_rotation") % 360:
        raise Odd("the image was turned in Label Studio; turn it back there, so that its boxes are those of the file")
    size = _size(r, image)
    shape = TOOLS[tool](value, labels[0], size)
    meta = r.get("meta")
    if isinstance(meta, dict) and meta.get("text"):
        shape.attributes["meta"] = meta["text"]
    if r.get("id") is not None:
        shape.attributes["region_id"] = r["id"]
    if isinstance(r.get("score"), int | float):
        shape.attributes["score"] = r["score"]
    return shape


def _size(r: dict[str, Any], image: Labeled) -> tuple[float, float] | None:
    """The size that Label Studio saw, the same for all regions of an image."""
    stated = (r.get("original_width"), r.get("original_height"))
    if None in stated:
        return None
    size = (number(stated[0], "original_width"), number(stated[1], "original_height"))
    if min(size) <= 0:
        return None
    if image.size is not None and image.size != size:
        raise Odd(f"its image has {size[0]:.0f} x {size[1]:.0f} pixels, that of others {image.size}")
    image.size = size
    return size


def _known(size: tuple[float, float] | None) -> tuple[float, float]:
    if size is None:
        raise Odd("it needs original_width and original_height, and they are missing")
    return size


def _shares(ring: geometry.Ring, size: tuple[float, float]) -> geometry.Ring:
    return [[x / size[0], y / size[1]] for x, y in ring]


def _rectangle(value: dict[str, Any], label: str, size: tuple[float, float] | None) -> Shape:
    """Turned clockwise around the top left corner, in pixels."""
    box = [number(value.get(k), k) / 100 for k in ("x", "y", "width", "height")]
    angle = number(value.get("rotation") or 0, "rotation") % 360
    if not angle:
        return Shape(label, box)
    width, height = _known(size)
    pixels = [v * side for v, side in zip(box, (width, height) * 2, strict=True)]
    ring = _shares(geometry.turned(pixels, angle, (pixels[0], pixels[1])), (width, height))
    return Shape(label, geometry.enclosing([ring]), {"rotation": angle}, [ring])


def _polygon(value: dict[str, Any], label: str, size: tuple[float, float] | None) -> Shape:
    points = value.get("points")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise Odd("its points are no pairs")
    ring = [[x / 100, y / 100] for x, y in geometry.pairs([v for p in points for v in p])]
    return Shape(label, geometry.enclosing([ring]), polygons=[ring])


def _ellipse(value: dict[str, Any], label: str, size: tuple[float, float] | None) -> Shape:
    cx, cy, rx, ry = (number(value.get(k), k) / 100 for k in ("x", "y", "radiusX", "radiusY"))
    angle = number(value.get("rotation") or 0, "rotation") % 360
    width, height = _known(size) if angle else (size or (1.0, 1.0))
    (x, y, w, h), ring = geometry.ellipse(cx * width, cy * height, rx * width, ry * height, angle)
    box = [x / width, y / height, w / width, h / height]
    return Shape(label, box, {"rotation": angle} if angle else {}, [_shares(ring, (width, height))])


def _brush(value: dict[str, Any], label: str, size: tuple[float, float] | None) -> Shape:
    width, height = _known(size)
    rle = value.get("rle")
    if value.get("format") != "rle" or not isinstance(rle, list):
        raise Odd("its mask is not run lengths")
    mask = geometry.brush_runs(rle, int(width), int(height))
    (x, y, w, h), part = geometry.cut_out(mask)
    return Shape(label, [x / width, y / height, w / width, h / height], mask=part)


TOOLS = {"rectangle": _rectangle, "polygon": _polygon, "ellipse": _ellipse, "brush": _brush}
