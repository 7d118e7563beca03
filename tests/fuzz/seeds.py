"""A valid label file of each format, with all kinds of shapes: what the mutants are made of."""


def coco() -> dict:
    rle = {"size": [96, 96], "counts": [96 * 10 + 5, 6, 96 * 96 - 96 * 10 - 11]}
    notes = [
        {"bbox": [1, 2, 30, 40], "segmentation": [[1, 2, 31, 2, 31, 42]], "iscrowd": 0, "score": 0.5},
        {"bbox": [10, 5, 1, 6], "segmentation": rle, "iscrowd": 1, "attributes": {"occluded": True, "rotation": 0.0}},
        {"bbox": [20, 20, 30, 20], "attributes": {"rotation": 30.0}},
        {"segmentation": [[5, 5, 15, 5, 15, 15]]},
    ]
    images = [{"id": k, "file_name": n, "width": 96, "height": 96} for k, n in enumerate(("a.png", "b.png"), 1)]
    annotations = [{"id": k, "image_id": 1 + k % 2, "category_id": 1 + k % 2, **n} for k, n in enumerate(notes)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "void"}, {"id": 2, "name": "x"}],
    }


def labelstudio() -> list:
    size = {"original_width": 96, "original_height": 96, "image_rotation": 0}
    where = {"x": 10, "y": 10, "width": 20, "height": 30}
    results = [
        {"id": "1", "type": "rectanglelabels", **size, "value": {**where, "rotation": 0, "rectanglelabels": ["void"]}},
        {"id": "2", "type": "rectanglelabels", **size, "value": {**where, "rotation": 30, "rectanglelabels": ["x"]}},
        {
            "id": "3",
            "type": "polygonlabels",
            **size,
            "value": {"points": [[1, 1], [20, 1], [20, 20]], "polygonlabels": ["x"]},
        },
        {
            "id": "4",
            "type": "ellipselabels",
            **size,
            "value": {"x": 50, "y": 50, "radiusX": 9, "radiusY": 5, "rotation": 0, "ellipselabels": ["x"]},
        },
    ]
    return [
        {"id": 1, "data": {"image": "/data/upload/1/01234567-a.png"}, "annotations": [{"result": results[:2]}]},
        {"id": 2, "data": {"image": "s3://b/b.png"}, "annotations": [{"result": results[2:], "was_cancelled": False}]},
    ]


def fiftyone() -> dict:
    box = {
        "_cls": "Detection",
        "label": "void",
        "bounding_box": [0.1, 0.1, 0.2, 0.3],
        "tags": ["t"],
        "index": 3,
        "severity": "high",
    }
    label = {"_cls": "Detections", "detections": [box, {**box, "label": "x", "iscrowd": 1}]}
    return {
        "samples": [
            {"filepath": f"data/{n}", "_id": {"$oid": "0" * 24}, "ground_truth": label} for n in ("a.png", "b.png")
        ]
    }


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>7</id></task></meta>
<image id="0" name="a.png" width="96" height="96">
<box label="void" occluded="0" xtl="10.0" ytl="10.0" xbr="30.0" ybr="30.0" z_order="0">
<attribute name="kind">round</attribute></box>
<polygon label="x" occluded="1" points="10.0,10.0;30.0,10.0;30.0,30.0" z_order="0"></polygon></image>
<image id="1" name="b.png" width="96" height="96">
<box label="void" xtl="10.0" ytl="10.0" xbr="30.0" ybr="20.0" rotation="35.2"></box>
<mask label="x" rle="5, 10, 5" left="10" top="10" width="5" height="4"></mask>
<ellipse label="x" cx="40" cy="40" rx="9" ry="5"></ellipse></image>
</annotations>"""
VOC = """<annotation verified="no"><folder>f</folder><filename>a.png</filename><path>/x/f/a.png</path>
<size><width>96</width><height>96</height><depth>3</depth></size>
<object><name>void</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
<object><name>x</name><bndbox><xmin>1.5</xmin><ymin>10</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
<attributes><attribute><name>rotation</name><value>20</value></attribute></attributes></object>
</annotation>"""
YOLO = """0 0.5 0.5 0.2 0.2
1 0.1 0.1 0.3 0.1 0.3 0.3 0.2 0.35 0.1 0.3
1 0.1 0.1 0.3 0.2 0.25 0.3 0.05 0.2
0 0.4 0.4 0.1 0.1 0.9
"""
YAML = "path: .\ntrain: images\nnames:\n  0: void\n  1: 🐛\nkpt_shape: [17, 3]\n"
DOCUMENTS = {"coco": coco, "labelstudio": labelstudio, "fiftyone": fiftyone}
TEXTS = {"cvat": ("f.xml", CVAT), "voc": ("a.xml", VOC), "yolo": ("labels/a.txt", YOLO), "yaml": ("data.yaml", YAML)}
