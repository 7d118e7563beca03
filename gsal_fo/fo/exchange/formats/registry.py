"""The formats by name."""

from gsal_fo.fo.exchange.formats import coco, cvat, fiftyone, labelstudio, voc, yolo
from gsal_fo.fo.exchange.formats.model import Format

FORMATS: dict[str, Format] = {
    "coco": coco.FORMAT,
    "yolo": yolo.FORMAT,
    "voc": voc.FORMAT,
    "cvat": cvat.FORMAT,
    "labelstudio": labelstudio.FORMAT,
    "fiftyone": fiftyone.FORMAT,
}
ORDER = ("fiftyone", "cvat", "voc", "labelstudio", "coco", "yolo")  # the surest sign first
