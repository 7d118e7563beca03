"""How long loading, ranking and picking take: ``python tests/bench/ranking.py [--images 100000] [--proposals 10]``.

Writes a run folder of random statistics (as the worker would, one part per 512 images) and prints one JSON object.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams
from gsal_fo.run_folder import shards

PART = 512


def graph(fine: int) -> ConceptGraph:
    """A graph of ``fine`` labels, three to a family, with two of eight attributes each."""
    concepts = {
        f"label_{i}": {"coarse": f"family_{i // 3}", "abstract": [f"a{i % 8}", f"a{(i + 3) % 8}"]} for i in range(fine)
    }
    return ConceptGraph.from_dict({"name": "bench", "concepts": concepts}, source="bench")


def write_run(folder: Path, images: int, proposals: int, classes: int, rng: np.random.Generator) -> None:
    """Parts of all three stages, posteriors and error maps included, so that reading has to leave them out."""

    def lists(kind: pa.DataType, values: np.ndarray) -> pa.Array:
        width = values.size // rows
        return pa.ListArray.from_arrays(
            pa.array(np.arange(rows + 1, dtype=np.int32) * width), pa.array(values.ravel(), kind)
        )

    ids = [f"{i:024x}" for i in range(images)]
    none = pa.nulls(images)
    manifest = {"id": ids, "filepath": ids, "role": ["pool"] * images, "boxes": none, "labels": none, "scores": none}
    shards.write_table(pa.table(manifest).cast(shards.MANIFEST), folder / "manifest.parquet")
    for number, start in enumerate(range(0, images, PART)):
        own = ids[start : start + PART]
        rows, half, single = len(own), pa.float16(), pa.float32()
        size = (rows, proposals)
        posterior = rng.dirichlet(np.ones(classes + 1), size=size).astype(np.float32)
        stages: dict[str, dict[str, Any]] = {
            "proposals": {
                "boxes": lists(single, rng.random((*size, 4), dtype=np.float32)),
                "scores": lists(single, rng.random(size, dtype=np.float32)),
                "posterior": lists(single, posterior),
                "contrast": lists(single, rng.random(size, dtype=np.float32)),
                "image_contrast": rng.random(rows, dtype=np.float32),
                "source": ["detector"] * rows,
            },
            "difficulty": {
                "image_error": rng.random(rows, dtype=np.float32),
                "image_variance": rng.random(rows, dtype=np.float32),
                "proposal_error": lists(single, rng.random(size, dtype=np.float32)),
                "proposal_variance": lists(single, rng.random(size, dtype=np.float32)),
                "map": lists(half, rng.random((rows, 256)).astype(np.float16)),
            },
            "assignment": {
                "role": ["pool"] * rows,
                "fine": lists(pa.int16(), rng.integers(-2, classes, size=size).astype(np.int16)),
                "prob": lists(single, rng.random(size, dtype=np.float32)),
                "margin": lists(single, rng.random(size, dtype=np.float32)),
            },
        }
        for stage, columns in stages.items():
            schema = shards.STAGES[stage]
            whole = {f.name: columns.get(f.name, own if f.name == "id" else pa.nulls(rows, f.type)) for f in schema}
            table = pa.table(whole, schema=schema).replace_schema_metadata({"gsal_digest": "bench"})
            shards.write_table(table, folder / stage / f"part-000-{number:06d}.parquet")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--proposals", type=int, default=10)
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--budget", type=int, default=100)
    options = parser.parse_args()
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        out = call()
        seconds[name] = round(time.perf_counter() - started, 3)
        return out

    with tempfile.TemporaryDirectory() as folder:
        run, rng = Path(folder), np.random.default_rng(0)
        timed("write", lambda: write_run(run, options.images, options.proposals, options.classes, rng))
        table = timed("load", lambda: load_pool(run))
    after_load = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    labels = {f"label_{i}": 3 * i for i in range(options.classes)}
    concepts = graph(options.classes)
    ranking = timed("rank", lambda: rank(table, concepts, labels, GsalParams()))
    timed("pick_static", lambda: pick(ranking, options.budget))
    for rarity in ("quantile", "graded"):
        other = rank(table, concepts, labels, GsalParams(batch="greedy", rarity=rarity))
        timed(f"pick_greedy_{rarity}", lambda other=other: pick(other, options.budget))
    timed("1000_sentences", lambda: [ranking.sentence(int(row)) for row in ranking.order[:1000]])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({**vars(options), "seconds": seconds, "peak_mib_load": round(after_load), "peak_mib": round(peak)})
    )


if __name__ == "__main__":
    main()
