"""Run by the interpreter that has label-studio: FOLDER OUT, the tasks of an export into COCO by Label Studio's SDK."""

import sys
from pathlib import Path

from label_studio_sdk.converter import Converter

folder, out = map(Path, sys.argv[1:])
converter = Converter((folder / "label_config.xml").read_text(), project_dir=str(folder), download_resources=False)
converter.convert_to_coco(str(folder / "tasks.json"), str(out), output_image_dir=str(out / "images"), is_dir=False)
