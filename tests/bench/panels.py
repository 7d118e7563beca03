"""How long the panels' events take: ``python tests/bench/panels.py [--images 20000] [--proposals 5]``.

A synthetic scoring on a MongoDB server of its own: fields through the real writer, parts as the worker writes them.
Events run through FiftyOne's own execution context, rendering included; each is run ``--repeat`` times and the median
printed. The first event of a fresh server, a process of its own, is apart: it comes after what the page asks for when
it opens, the operators and the dataset. A second pool of ``--rerank`` images has only what ranking reads.
Prints one JSON object; wall seconds, and the CPU seconds of this process, since a busy machine stretches the first.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "bench")]

from panel_events import event, timed  # noqa: E402

import tests.conftest  # noqa: E402, F401  (isolation, before FiftyOne is imported)

CLASSES = 12


def make(folder: Path, name: str, images: int, proposals: int, *, fields: bool) -> Any:
    """A dataset that looks scored, its first 50 images labeled; without ``fields`` only what ranking reads is there."""
    import fiftyone as fo
    from ranking import graph, write_run
    from writing import rename

    from gsal_fo import config as cfg
    from gsal_fo.acquisition.ranking import load_pool, rank
    from gsal_fo.fo import runs, writing
    from gsal_fo.fo.dataset import prepared
    from gsal_fo.fo.dataset.fields import add_schema
    from gsal_fo.run_folder import cache, shards

    folder.mkdir()
    picture = folder / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (512, 512), dtype=np.uint8)).save(picture)
    write_run(folder, images, proposals, CLASSES, np.random.default_rng(0))
    dataset = fo.Dataset(name)
    dataset.add_samples([fo.Sample(str(picture)) for _ in range(images)])
    ids = dataset.values("id")
    rename(folder, ids, shards)
    known = [
        fo.Detections(detections=[fo.Detection(label=f"label_{i % 9}", bounding_box=[0, 0, 1, 1])]) for i in range(50)
    ]
    dataset.add_sample_field("ground_truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.set_values("ground_truth", dict(zip(ids[:50], known, strict=True)), key_field="id")
    table = cache.save(folder, load_pool(folder))
    concepts, params = graph(CLASSES), cfg.GsalParams()
    ranking = rank(table, concepts, {}, params)
    record = runs.GSALScoreRunConfig(
        complete=True,
        run_dir=str(folder),
        label_field="ground_truth",
        labeled_tag=None,
        labeled_scope="dataset",
        concepts="bench",
        graph=json.dumps(concepts.to_dict()),
        params=cfg.to_dict(params),
        config=cfg.to_dict(cfg.ScoreConfig()),
        assign="clip",
        counts={"scored": images},
        **writing.facts_of(ranking),
    )
    dataset.register_run("gsal_score_001", record)
    if fields:
        (folder / "difficulty").rename(folder / "aside")  # maps as files are another measurement
        add_schema(dataset, "score")
        for _ in prepared.add("bench", writing.replaced(dataset, ranking, folder)):
            pass
        prepared.merge(dataset, "bench")
        prepared.drop("bench")
        runs.mark_writer(dataset, "gsal_score_001")
        (folder / "aside").rename(folder / "difficulty")
        dataset.create_index("gsal_path")
    return dataset


def first_event(dataset: Any) -> dict[str, float]:
    """The first event of a process that has served nothing yet."""
    program = Path(__file__).with_name("panel_events.py")
    done = subprocess.run([sys.executable, program, dataset.name], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--proposals", type=int, default=5)
    parser.add_argument("--rerank", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()

    import gsal_fo.fo as gfo
    from gsal_fo.acquisition import picking
    from gsal_fo.fo.app import live
    from gsal_fo.fo.app import preview as previewing

    gfo.plugin.install()
    out: dict[str, Any] = {**vars(options)}
    with tempfile.TemporaryDirectory() as name:
        dataset = make(Path(name) / "events", "bench-panels", options.images, options.proposals, fields=True)
        time.sleep(live.SETTLED.total_seconds())  # until then every event reads the dataset anew
        sample = dataset.exists("gsal_rank").skip(100).first().id
        form = {"form": {"a": {"amount": 100}}, "level": "fine"}
        patches = {"showing": {"patches": True}}
        out["first event"] = first_event(dataset)
        for title, call in {
            "coverage: open": lambda: event("gsal_concepts", dataset, "on_load"),
            "coverage: click a node": lambda: event("gsal_concepts", dataset, "on_node", params={"id": "label_3"}),
            "coverage: proposals of a node": lambda: event(
                "gsal_concepts", dataset, "on_node", patches, params={"id": "label_3"}
            ),
            "preview: open": lambda: event("gsal_preview", dataset, "on_load", form),
            "preview: move a slider": lambda: event(
                "gsal_preview", dataset, "on_setting", form, params={"path": "form.b.lam", "value": 0.7}
            ),
            "why: next image": lambda: event("gsal_why", dataset, "on_change_current_sample", current_sample=sample),
        }.items():
            out[title] = timed(call, options.repeat)
        dataset.delete()

        large = make(Path(name) / "rerank", "bench-rerank", options.rerank, options.proposals, fields=False)
        time.sleep(live.SETTLED.total_seconds())
        params = previewing.params_of(large)
        lams = iter(np.linspace(0, 3, options.repeat + 1))

        def slide() -> None:
            previewing.preview(large, previewing.Asked(replace(params, lam=float(next(lams))), picking.Budget(100)))

        out["rerank: first"] = timed(slide, 1)
        out["rerank: move a slider"] = timed(slide, options.repeat)
        large.delete()
    out["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
