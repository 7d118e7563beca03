"""A labeler played by ground truth, for the demo and for measurements: the loop itself never sees the truth."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo

from gsal_fo.boxes import xywh_px_to_xywh_rel
from gsal_fo.run_folder import shards

MARK = "gsal_demo"  # in dataset.info: what a demo made and may replace
LABELS = "ground_truth"
Box = tuple[list[float], str]  # xywh_rel, class


@dataclass
class Truth:
    """What the labeler knows: the boxes of each image, by file name; ``rare`` classes are the ones to be found."""

    boxes: dict[str, list[Box]]
    rare: tuple[str, ...]

    @classmethod
    def load(cls, path: Path, *, rare: tuple[str, ...]) -> "Truth":
        """Read COCO ground truth."""
        coco = json.loads(path.read_text(encoding="utf-8"))
        names = {c["id"]: c["name"] for c in coco["categories"]}
        images = {i["id"]: i for i in coco["images"]}
        boxes: dict[str, list[Box]] = {i["file_name"]: [] for i in coco["images"]}
        for a in coco["annotations"]:
            image = images[a["image_id"]]
            box = xywh_px_to_xywh_rel(a["bbox"], image["width"], image["height"])[0].tolist()
            boxes[image["file_name"]].append((box, names[a["category_id"]]))
        return cls(boxes, rare)

    def rare_in(self, names: Iterable[str]) -> Counter[str]:
        """Instances of each rare class in these images."""
        return Counter(label for name in names for _, label in self.boxes[name] if label in self.rare)


def import_pool(name: str, images: Path, truth: Truth, first: Sequence[str], *, seed: int) -> fo.Dataset:
    """A fresh persistent dataset of the pool with the labels of ``first``; replaces only one that the demo made."""
    if fo.dataset_exists(name):
        if not fo.load_dataset(name).info.get(MARK):
            raise ValueError(f'FiftyOne has a dataset "{name}" that the demo did not make; rename it and run again')
        fo.delete_dataset(name)
    dataset = fo.Dataset(name, persistent=True)
    dataset.info = {MARK: True, "seed": seed}
    dataset.save()
    dataset.add_sample_field(LABELS, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    known, samples = set(first), []
    for file in sorted(truth.boxes):
        sample = fo.Sample(filepath=str(images / file))
        if file in known:
            boxes = [fo.Detection(label=label, bounding_box=box) for box, label in truth.boxes[file]]
            sample[LABELS] = fo.Detections(detections=boxes)
        samples.append(sample)
    dataset.add_samples(samples)
    return dataset


def label(batch: Path, truth: Truth) -> Path:
    """The simulated labeler: reads an exported batch, writes its true labels as COCO; returns their path."""
    coco = json.loads((batch / "annotations.json").read_text(encoding="utf-8"))
    number = {name: i + 1 for i, name in enumerate(sorted({n for b in truth.boxes.values() for _, n in b}))}
    annotations: list[dict[str, Any]] = []
    for image in coco["images"]:
        for (x, y, w, h), name in truth.boxes[Path(image["file_name"]).name]:
            box = [x * image["width"], y * image["height"], w * image["width"], h * image["height"]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": number[name],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": n} for n, i in number.items()]
    path = batch.parent / "labels.json"
    shards.write_json({"images": coco["images"], "annotations": annotations, "categories": categories}, path)
    return path
