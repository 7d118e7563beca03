"""Label Studio: ``tasks.json`` with pre-labels as predictions, ``label_config.xml`` beside it, boxes in percent."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree.ElementTree import Element, SubElement

from gsal_fo.fo.exchange.formats.model import Batch, Format, Item, Labeled, Shape, read_json, refusal, write_xml
from gsal_fo.run_folder import shards

KIND, NAME, CONFIG = "Label Studio JSON export", "tasks.json", "label_config.xml"
IMAGE, LABEL = "image", "label"  # names of the two tags of our label_config.xml


def write(batch: Batch) -> None:
    """Tasks name their image by Label Studio's local-files address, relative to the folder that holds the export (a
    listed image: relative to the root folder); LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT must name that folder."""
    shards.write_json([_task(i, batch) for i in batch.items], batch.target.place(NAME))
    view = Element("View")
    SubElement(view, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true", zoomControl="true")
    labels = SubElement(view, "RectangleLabels", name=LABEL, toName=IMAGE)
    for name in batch.classes:
        SubElement(labels, "Label", value=name)
    write_xml(view, batch.target.place(CONFIG), declaration=False)  # its parser takes none


def _task(item: Item, batch: Batch) -> dict[str, Any]:
    place = f"{batch.target.folder.name}/{FORMAT.media}/{item.name}" if batch.copied else item.ref.lstrip("/")
    task: dict[str, Any] = {
        "data": {
            IMAGE: f"/data/local-files/?d={quote(place)}",
            "gsal_id": item.id,
            "gsal_file": item.name,
            "gsal_rationale": item.row.get("rationale") or "",
        }
    }
    if item.boxes:
        task["predictions"] = [
            {
                "model_version": batch.run_key,
                "score": round(max(b.confidence for b in item.boxes), 6),
                "result": [_result(item, k) for k in range(len(item.boxes))],
            }
        ]
    return task


def _result(item: Item, k: int) -> dict[str, Any]:
    box = item.boxes[k]
    x, y, w, h = (100 * v for v in box.xywh_rel)
    return {
        "id": f"gsal{k}",
        "from_name": LABEL,
        "to_name": IMAGE,
        "type": "rectanglelabels",
        "original_width": item.size[0],
        "original_height": item.size[1],
        "image_rotation": 0,
        "score": box.confidence,
        "value": {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [box.label]},
    }


def read(path: Path, label_field: str) -> list[Labeled]:
    """Every task; one without a submitted annotation waits for its labeler, one with an empty annotation has none."""
    tasks = read_json(path, KIND)
    if not isinstance(tasks, list) or not all(isinstance(t, dict) for t in tasks):
        raise refusal(path, KIND, "it is no list of tasks")
    if any("data" not in t for t in tasks):
        raise refusal(path, KIND, 'a task has no data; choose "JSON", not "JSON-MIN"')
    try:
        return [_read(t) for t in tasks]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise refusal(path, KIND, f"a task lacks or misuses {error}") from error


def _read(task: dict[str, Any]) -> Labeled:
    data = task["data"]
    name = data.get("gsal_file") or _file(next(v for v in (data.get(IMAGE), *data.values(), "") if isinstance(v, str)))
    out = Labeled(str(name), boxes=None, relative=True, id=data.get("gsal_id"))
    done = [a for a in task.get("annotations") or [] if not a.get("was_cancelled")]
    done = [a for a in done if a.get("ground_truth")] or done
    if not done:
        return out
    readings = [_boxes(a.get("result") or []) for a in done]
    boxes, unread = readings[0]
    if any(sorted(map(str, other)) != sorted(map(str, boxes)) for other, _ in readings[1:]):
        out.unread.append(f"{len(done)} annotations differ; star the right one as ground truth in Label Studio")
        return out
    out.boxes, out.unread, out.answered = boxes, unread, True
    return out


def _boxes(results: list[dict[str, Any]]) -> tuple[list[Shape], list[str]]:
    boxes: list[Shape] = []
    unread: list[str] = []
    for r in results:
        if r.get("type") != "rectanglelabels":
            if r.get("type") not in ("choices", "textarea", "rating"):
                unread.append(f"a {r.get('type')}, and only labeled boxes are taken")
            continue
        value = r["value"]
        label = (value.get("rectanglelabels") or [None])[0]
        if not label:
            unread.append("a box without a label")
        elif value.get("rotation") or r.get("image_rotation"):
            unread.append(f'"{label}": a turned box or image, and only upright ones are taken')
        else:
            boxes.append(Shape(str(label), [value[k] / 100 for k in ("x", "y", "width", "height")]))
    return boxes, unread


def _file(address: str) -> str:
    """The file that an image's address means: a path, an upload, a local file or a bucket."""
    if address.startswith("data:"):
        return "an embedded image"
    parts = urlsplit(address)
    wanted = parse_qs(parts.query).get("d")
    return wanted[0] if wanted else unquote(parts.path)


def found(folder: Path) -> Path | None:
    """Our own tasks, or the one JSON file of a Label Studio export."""
    if (folder / NAME).is_file():
        return folder / NAME
    texts = list(folder.glob("*.json"))
    return texts[0] if len(texts) == 1 and texts[0].name.startswith("project-") else None


FORMAT = Format("Label Studio", "images", lambda batch: [NAME, CONFIG], write, read, found)
