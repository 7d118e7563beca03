"""Label Studio: ``tasks.json`` with pre-labels as predictions, ``label_config.xml`` beside it, boxes in percent."""

from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement

from gsal_fo.fo.exchange.formats import labelstudio_regions as regions
from gsal_fo.fo.exchange.formats.model import Batch, Contents, Document, Format, Item, Labeled
from gsal_fo.fo.exchange.formats.texts import Odd, refusal, short, write_xml
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


def claims(value: Any) -> bool:
    """A list of tasks ("JSON"), of flat ones ("JSON-MIN"), or one annotation as a target storage receives it."""
    if isinstance(value, dict):
        return isinstance(value.get("result"), list) and isinstance(value.get("task"), dict)
    return isinstance(value, list) and any(isinstance(t, dict) and ("data" in t or _is_flat(t)) for t in value)


def _is_flat(task: dict[str, Any]) -> bool:
    return "data" not in task and any(k in task for k in ("annotation_id", "annotator", "lead_time"))


def read(document: Document, out: Contents) -> None:
    """Every task; one without a submitted annotation waits for its labeler, one with an empty annotation has none."""
    tasks = document.value
    if isinstance(tasks, dict) and claims(tasks):
        tasks = [{**tasks["task"], "annotations": [{k: v for k, v in tasks.items() if k != "task"}]}]
    if not isinstance(tasks, list):
        raise refusal(document.path, KIND, "it is no list of tasks")
    for place, task in enumerate(tasks):
        number = short(task.get("id", place), 30) if isinstance(task, dict) else place
        try:
            out.images.append(_read(task, document.name))
        except (Odd, KeyError, TypeError, AttributeError, IndexError) as error:
            out.unread.append(f"{document.name}: task {number} lacks or misuses {short(str(error), 100)}")


def _read(task: Any, source: str) -> Labeled:
    if _is_flat(task):
        results = [r for k, v in task.items() if isinstance(v, list) for r in v if isinstance(r, dict)]
        task = {
            "data": {k: v for k, v in task.items() if isinstance(v, str)},
            "annotations": [{"result": [regions.from_flat(r) for r in results]}],
        }
    if "data" not in task:
        raise Odd('its data; choose "JSON" as the export format')
    data = task["data"]
    if not isinstance(data, dict):
        raise Odd("its data")
    image = _image(data, task, source)
    done = [a for a in task.get("annotations") or task.get("completions") or [] if not a.get("was_cancelled")]
    done = [a for a in done if a.get("ground_truth")] or done
    if not done:
        return image
    readings = []
    for annotation in done:
        if not isinstance(annotation.get("result"), list):
            image.unread.append(f"an annotation without a list of results ({short(annotation.get('result'))})")
            return image
        reading = Labeled(image.name, [], relative=True)
        regions.read(annotation["result"], reading)
        readings.append(reading)
    first = readings[0]
    if any(_facts(r) != _facts(first) for r in readings[1:]):
        image.unread.append(f"{len(done)} annotations differ; star the right one as ground truth in Label Studio")
        return image
    image.boxes, image.size, image.unread, image.dropped = first.boxes, first.size, first.unread, first.dropped
    image.answered = True
    return image


def _image(data: dict[str, Any], task: dict[str, Any], source: str) -> Labeled:
    """The task's image: what our export put beside it, then the image's address, then Label Studio's own record of an
    upload, then the first text."""
    texts = [data.get("gsal_file"), data.get(IMAGE), task.get("file_upload"), *data.values()]
    names = [t for t in texts if isinstance(t, str) and t]
    if not names:
        raise Odd("its image")
    name = "an embedded image" if names[0].startswith("data:") else names[0]
    also = [task["file_upload"]] if isinstance(task.get("file_upload"), str) and task["file_upload"] != name else []
    return Labeled(name, boxes=None, relative=True, id=data.get("gsal_id"), also=also, source=source)


def _facts(image: Labeled) -> tuple[list[str], list[str]]:
    """What two annotators must agree on: labels and shapes."""
    shapes = [str((s.label, s.box, s.polygons, s.mask is None or s.mask.tobytes())) for s in image.boxes or []]
    return sorted(shapes), sorted(image.unread)


FORMAT = Format("Label Studio", "images", write, "json", claims, read)
