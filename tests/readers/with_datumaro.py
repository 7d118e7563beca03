"""Run by the interpreter that has datumaro: FOLDER FORMAT -> {stem: [[label, [left, top, right, bottom]], ...]}."""

import json
import sys
from pathlib import Path

import datumaro

dataset = datumaro.Dataset.import_from(sys.argv[1], sys.argv[2])
names = dataset.categories()[datumaro.AnnotationType.label]
found = {}
for item in dataset:
    boxes = [a for a in item.annotations if a.type == datumaro.AnnotationType.bbox]
    found[Path(item.id).name] = [(names[b.label].name, [b.x, b.y, b.x + b.w, b.y + b.h]) for b in boxes]
print(json.dumps(found))
