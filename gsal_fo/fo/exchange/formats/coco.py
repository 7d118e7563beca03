"""COCO detection: boxes [x, y, width, height] in pixels, outlines and masks; ours is ``annotations.json``."""

from collections import Counter
from typing import Any

import numpy as np

from gsal_fo.fo.exchange.formats import geometry
from gsal_fo.fo.exchange.formats.model import Batch, Contents, Document, Format, Labeled, Shape, straighten
from gsal_fo.fo.exchange.formats.texts import Odd, label_name, number, refusal, short
from gsal_fo.run_folder import shards

KIND, NAME = "COCO detection file", "annotations.json"
ADDRESSES = ("file_name", "coco_url", "path", "url", "flickr_url")  # LVIS has coco_url alone, COCO Annotator path
# `area` follows from the shape; the others are read on their own.
READ = ("id", "image_id", "category_id", "bbox", "segmentation", "area", "keypoints", "num_keypoints", "attributes")


def write(batch: Batch) -> None:
    """One file for the whole batch."""
    annotations: list[dict[str, Any]] = []
    for number_, item in enumerate(batch.items, 1):
        for box in item.boxes:
            left, top, right, bottom = box.corners(item.size)
            xywh = [left, top, round(right - left, 3), round(bottom - top, 3)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number_,
                    "category_id": batch.classes.index(box.label) + 1,
                    "bbox": xywh,
                    "area": round(xywh[2] * xywh[3], 3),
                    "iscrowd": 0,
                    "score": box.confidence,
                }
            )
    images = [
        {"id": n, "file_name": i.ref, "width": i.size[0], "height": i.size[1]} for n, i in enumerate(batch.items, 1)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(batch.classes, 1)]
    shards.write_json(
        {"images": images, "annotations": annotations, "categories": categories}, batch.target.place(NAME)
    )


def claims(value: Any) -> bool:
    """Lists of images and annotations; a file of captions has no categories."""
    return isinstance(value, dict) and all(isinstance(value.get(k), list) for k in ("images", "annotations"))


def read(document: Document, out: Contents) -> None:
    """Every image that the file lists."""
    coco = document.value
    if not claims(coco) or not isinstance(coco.get("categories", []), list):
        results = isinstance(coco, list) and any(isinstance(a, dict) and "image_id" in a for a in coco)
        what = "it has no lists named images, annotations and categories"
        what = "it is a list of results, which names no images" if results else what
        raise refusal(document.path, KIND, what)
    categories = _categories(coco.get("categories", []))
    images = _images(coco["images"], document, out)
    strange: Counter[str] = Counter()
    for a in coco["annotations"]:
        if not isinstance(a, dict) or "image_id" not in a:
            strange["an annotation lacks or misuses 'image_id'"] += 1
            continue
        image = images.get(key := _key(a["image_id"]))
        if image is None:
            strange[f"an annotation is of image {short(key)}, which is not listed"] += 1
            continue
        try:
            _add(image, a, categories)
        except Odd as error:
            image.unread.append(f"annotation {short(a.get('id'), 30)}: {error}")
    if strange:  # one of them may be of an image that seems to have none
        for image in images.values():
            if not image.boxes and not image.unread:
                image.unread.append("it has no annotation, and the file has some that belong to no listed image")
    out.images += images.values()
    for what, count in list(strange.items())[:3]:
        out.unread.append(f"{document.name}: {what}" + (f" ({count} times)" if count > 1 else ""))
    if len(strange) > 3:
        out.unread.append(f"{document.name}: {sum(strange.values())} annotations are of images that are not listed")


def _key(value: Any) -> str:
    """Ids by their text: some tools write 1 in one list and "1" or 1.0 in the other."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _categories(entries: list[Any]) -> dict[str, str | Odd]:
    """Label by id; an odd one only counts where an annotation has it."""
    out: dict[str, str | Odd] = {}
    for c in entries:
        if not isinstance(c, dict) or "id" not in c:
            continue
        key = _key(c["id"])
        try:
            name: str | Odd = label_name(c.get("name"))
        except Odd as error:
            name = Odd(f"category {short(key)}: {error}")
        if key in out and str(out[key]) != str(name):
            name = Odd(f"category {short(key)} has two names")
        out[key] = name
    return out


def _images(entries: list[Any], document: Document, out: Contents) -> dict[str, Labeled]:
    images: dict[str, Labeled] = {}
    for place, entry in enumerate(entries):
        names = _names(entry) if isinstance(entry, dict) else []
        if not names or "id" not in entry:
            out.unread.append(f"{document.name}: image {place} lacks or misuses its id or file_name")
            continue
        image = Labeled(names[0], also=names[1:], size=(entry.get("width"), entry.get("height")), source=document.name)
        key = _key(entry["id"])
        if key not in images:
            images[key] = image
            continue
        for twin in (image, images[key]):
            twin.unread.append(f"two images share the id {short(key)}")
        images[f"{key} (again, {place})"] = image
    return images


def _names(entry: dict[str, Any]) -> list[str]:
    """What a file calls an image; Roboflow keeps the name that it had."""
    extra = entry.get("extra")
    names = [entry.get(k) for k in ADDRESSES] + ([extra.get("name")] if isinstance(extra, dict) else [])
    return [n for n in names if isinstance(n, str) and n]


def _add(image: Labeled, a: dict[str, Any], categories: dict[str, str | Odd]) -> None:
    """Add an annotation to its image."""
    if "caption" in a and "bbox" not in a and "segmentation" not in a:
        image.dropped["captions"] += 1
        return
    label = categories.get(key := _key(a.get("category_id")))
    if label is None:
        raise Odd(f"category {short(key)}, which is not listed")
    if isinstance(label, Odd):
        raise label
    if isinstance(a.get("keypoints"), list) and any(a["keypoints"]):
        image.dropped["keypoints"] += 1
    own = a.get("attributes")
    attributes = {k: v for k, v in a.items() if k not in READ} | (own if isinstance(own, dict) else {})
    if "id" in a:
        attributes["coco_id"] = a["id"]
    shape = _shape(image, label, a)
    shape.attributes = attributes
    straighten(shape)
    assert image.boxes is not None
    image.boxes.append(shape)


def _shape(image: Labeled, label: str, a: dict[str, Any]) -> Shape:
    """Box, outline and mask; the box may be missing where one of the others is there."""
    box = _box(a.get("bbox"))
    try:
        outline = _outline(image, a.get("segmentation"))
    except Odd:
        if box is None:
            raise
        image.dropped["segmentations that cannot be read"] += 1
        outline = None
    if outline is not None and box is not None and min(box[2:]) <= 0:
        box = None
    if outline is None and box is None:
        raise Odd(f"it has neither a box nor an outline (bbox {short(a.get('bbox'))})")
    if isinstance(outline, np.ndarray):
        around, mask = geometry.cut_out(outline)
        if box is None:
            return Shape(label, around, mask=mask)
        return Shape(label, box, mask=geometry.window(outline, box))
    return Shape(label, box or geometry.enclosing(outline or []), polygons=outline)


def _box(value: Any) -> list[float] | None:
    """The box; None where there is none, or one without extent: some tools write it beside an outline."""
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != 4:
        raise Odd(f"bbox {short(value)} is not [x, y, width, height]")
    box = [number(v, "bbox") for v in value]
    return box if any(box) else None


def _outline(image: Labeled, value: Any) -> list[geometry.Ring] | np.ndarray | None:
    if not value:
        return None
    if isinstance(value, dict):
        size = value.get("size")
        if not isinstance(size, list) or len(size) != 2:
            raise Odd("a mask without its size")
        height, width = (int(number(v, "a mask's side")) for v in size)
        if image.size and all(image.size) and image.size != (width, height):
            raise Odd(f"a mask of {width} x {height} pixels in an image of another size")
        runs = geometry.coco_runs(value.get("counts"))
        return geometry.from_runs(runs, width, height, by_column=True)
    if isinstance(value, list):
        rings = value if all(isinstance(ring, list) for ring in value) else [value]
        return [geometry.pairs(ring) for ring in rings if ring] or None
    raise Odd(f"segmentation {short(value)}")


FORMAT = Format("COCO", "images", write, "json", claims, read)
