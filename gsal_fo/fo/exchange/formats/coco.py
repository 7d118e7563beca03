"""COCO detection: ``annotations.json``, boxes [x, y, width, height] in pixels."""

from pathlib import Path
from typing import Any

from gsal_fo.fo.exchange.formats.model import Batch, Format, Labeled, Shape, read_json, refusal
from gsal_fo.run_folder import shards

KIND, NAME = "COCO detection file", "annotations.json"


def write(batch: Batch) -> None:
    """One file for the whole batch."""
    annotations: list[dict[str, Any]] = []
    for number, item in enumerate(batch.items, 1):
        for box in item.boxes:
            left, top, right, bottom = box.corners(item.size)
            xywh = [left, top, round(right - left, 3), round(bottom - top, 3)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
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


def read(path: Path, label_field: str) -> list[Labeled]:
    """Every image that the file lists."""
    coco = read_json(path, KIND)
    if not _is(coco):
        raise refusal(path, KIND, "it has no lists named images, annotations and categories")
    try:
        categories = {c["id"]: str(c["name"]) for c in coco["categories"]}
        images = {i["id"]: Labeled(str(i["file_name"]), size=(i.get("width"), i.get("height"))) for i in coco["images"]}
        owners = [(a["image_id"], a["category_id"], a["bbox"]) for a in coco["annotations"]]
        strange_images = {i for i, _, _ in owners} - set(images)
        strange = {c for _, c, _ in owners} - set(categories)
    except (KeyError, TypeError, AttributeError) as error:
        raise refusal(path, KIND, f"an entry lacks or misuses {error}") from error
    if len(images) < len(coco["images"]):
        raise refusal(path, KIND, "two images share an id")
    if strange:
        raise refusal(path, KIND, f"an annotation has category {sorted(map(str, strange))[0]}, which is not listed")
    if strange_images:
        raise refusal(
            path, KIND, f"an annotation is of image {sorted(map(str, strange_images))[0]}, which is not listed"
        )
    boxes: dict[Any, list[Shape]] = {i: [] for i in images}
    for image, category, box in owners:
        boxes[image].append(Shape(categories[category], box))
    for i, image in images.items():
        image.boxes = boxes[i]
    return list(images.values())


def _is(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(k), list) for k in ("images", "annotations", "categories")
    )


def found(folder: Path) -> Path | None:
    """Our name for it, or Label Studio's."""
    return next((p for n in (NAME, "result.json") if (p := folder / n).is_file()), None)


FORMAT = Format("COCO", "images", lambda batch: [NAME], write, read, found)
