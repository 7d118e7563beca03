"""A worker that speaks the real protocol and writes real parts, with numbers from a seed instead of models.

It starts in half a second where the real one takes ten; the real one has its own tests, and test_real_worker.py here.
``TINY_DIE`` makes it end by SIGKILL after its first part of that stage, ``TINY_FAIL`` by an error.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from gsal_fo.boxes import window_grid
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.run_folder import looks, shards


def say(**event):
    print(json.dumps(event), flush=True)


def rows_of(run, config):
    graph = ConceptGraph.load(config["config"]["graph"])
    trained = config["config"]["detector"]["checkpoint"] is not None
    for row in shards.table_rows(shards.read_manifest(run)):
        if row["role"] != "pool":
            continue
        rng = np.random.default_rng(int(row["id"], 16) % 2**32)
        try:
            with Image.open(row["filepath"]) as image:
                width, height = image.size
        except OSError as error:
            reason = "the file is missing" if isinstance(error, FileNotFoundError) else "the file is no image"
            yield row, {"error": reason}, {}, {}, {}
            continue
        if row["boxes"] is not None:
            boxes, scores, source = row["boxes"].reshape(-1, 4), row["scores"], "field"
        elif trained:
            boxes, scores, source = (
                np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.2, 0.2]]),
                np.array([0.9, 0.2]),
                "detector",
            )
        else:
            boxes, source = window_grid(), "grid"
            scores = np.ones(len(boxes))
        if not len(boxes):
            boxes, scores, source = np.array([[0, 0, 1, 1]]), np.array([0.0]), "whole"
        n = len(boxes)
        found = {"width": width, "height": height, "boxes": boxes.ravel(), "scores": scores, "source": source}
        found |= {"image_contrast": rng.random(), "contrast": rng.random(n)}
        found["posterior"] = rng.dirichlet(np.ones(3), n).ravel() if trained else []
        hard = {"image_error": rng.random(), "image_variance": rng.random(), "map": rng.random(16), "map_width": 4}
        hard |= {"proposal_error": rng.random(n), "proposal_variance": rng.random(n)}
        seen = {
            "role": "pool",
            "fine": rng.integers(0, len(graph.fine), n),
            "prob": rng.random(n),
            "margin": rng.random(n),
        }
        if "nan" in row["filepath"]:
            hard["image_error"] = float("nan")
        vectors = rng.normal(size=(n + 1, 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        looks = {"role": "pool", "embeddings": vectors[:n].ravel(), "image": vectors[n], "dim": 4}
        yield row, found, hard, looks, seen


def seen_of(run, config):
    """Labels that the graph lacks look like the fine node at ten times their x: 0.1 is the second of them."""
    fine = ConceptGraph.load(config["config"]["graph"]).fine
    out = []
    for row in shards.table_rows(shards.read_manifest(run)):
        if row["role"] == "labeled":
            boxes = row["boxes"].reshape(-1, 4)
            strange = [k for k, name in enumerate(row["labels"]) if name not in fine]
            if strange and Path(row["filepath"]).is_file():
                out.append(looks.row(row["id"], boxes[strange], [axis(boxes[k], len(fine)) for k in strange]))
            elif strange:
                out.append(looks.row(row["id"], boxes[strange], [looks.FAILED] * len(strange), "the file is missing"))
    return out


def axis(box, count):
    return round(10 * float(box[0])) % count


def main():
    run = Path(sys.argv[sys.argv.index("--run-dir") + 1])
    config = shards.run_facts(run, "config.json")
    if os.environ.get("TINY_FAIL"):
        say(event="error", message=os.environ["TINY_FAIL"])
        return 1
    if config["kind"] == "train":
        shards.write_json({"classes": ["void"]}, Path(config["out"]) / "detector.json")
        say(event="stage", stage="train", seconds=0.1)
        say(event="done")
        return 0
    rows = list(rows_of(run, config))
    for column, stage in enumerate(("proposals", "difficulty", "concepts", "assignment"), 1):
        done = shards.done_ids(run, stage, digest="tiny")
        todo = [{"id": r[0]["id"], **r[column]} for r in rows if r[0]["id"] not in done and (column == 1 or r[column])]
        for half in (todo[: len(todo) // 2], todo[len(todo) // 2 :]):
            if half:
                shards.write_part(run, stage, half, digest="tiny")
            if os.environ.get("TINY_DIE") == stage:
                os.kill(os.getpid(), signal.SIGKILL)
        say(event="progress", stage=stage, done=len(rows), total=len(rows), fresh=len(todo))
    for row, found, *_ in rows:
        if "error" in found:
            say(event="failed", id=row["id"], reason=found["error"])
    assign = config["config"]["concepts"]["assign"]
    assign = "clip" if assign == "auto" else assign
    looks.write(run, seen_of(run, config), digest="tiny")
    shards.write_record({"assign": assign, "unknown": {}}, run / "assigned.json")
    facts = {"timings": {"detect": 0.1}, "diffusion": {"digest": "tiny", "space": "none"}, "classes": []}
    if config["config"]["concepts"]["assign"] == "auto":
        facts["choice"] = {"assign": "clip", "why": "concepts by CLIP: it is tiny", "trial": None}
    facts["models"] = {"detector": "none", "diffusion": "tiny", "encoder": "tiny"}
    shards.write_record(facts, run / "result.json")
    say(event="done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
