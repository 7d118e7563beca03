"""How long a ranking takes into FiftyOne: ``python tests/bench/writing.py [--images 20000] [--proposals 5]``.

Against the way of FiftyOne's documentation, ``set_values`` of ``fo.Detections``, for the proposals alone, in the same
run; prints one JSON object. A MongoDB server and a database of its own, removed at the end.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "bench")]

import tests.conftest  # noqa: E402, F401  (isolation, before FiftyOne is imported)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--proposals", type=int, default=5)
    options = parser.parse_args()

    import fiftyone as fo
    from ranking import graph, write_run

    from gsal_fo.acquisition.ranking import load_pool, rank
    from gsal_fo.config import GsalParams
    from gsal_fo.fo import writing
    from gsal_fo.fo.dataset import bulk, fields, prepared
    from gsal_fo.fo.documents import Documents
    from gsal_fo.run_folder import shards

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder, options.images, options.proposals, 12, rng)
        dataset = fo.Dataset("bench-writing")
        dataset.add_samples([fo.Sample(f"/{i}.png") for i in range(options.images)])
        rename(folder, dataset.values("id"), shards)
        table = load_pool(folder)
        labels = {f"label_{i}": 3 * i for i in range(12)}
        ranking = rank(table, graph(12), labels, GsalParams())
        (folder / "difficulty").rename(folder / "none")  # no maps: files are another measurement
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        def take_over(changes: writing.Changes) -> float:
            started = time.perf_counter()
            for _ in prepared.add("bench", changes):
                pass
            prepared.merge(dataset, "bench")
            prepared.drop("bench")
            return time.perf_counter() - started

        fields.add_schema(dataset, "score")
        ours = take_over(writing.replaced(dataset, ranking, folder))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        again = take_over(writing.refreshed(dataset, rank(table, graph(12), labels, GsalParams(lam=2.0))))

        documents = Documents(ranking)
        started = time.perf_counter()
        for start in range(0, options.images, prepared.CHUNK):
            chunk = range(start, min(start + prepared.CHUNK, options.images))
            bulk.update(dataset, {str(table.ids[r]): {"gsal_proposals": documents.proposals(r)} for r in chunk})
        alone = time.perf_counter() - started

        started = time.perf_counter()
        boxes = [
            fo.Detections(detections=[fo.Detection(**{k: v for k, v in d.items() if k[0] != "_"}) for d in found])
            for found in plain(dataset)
        ]
        dataset.set_values("other", boxes)
        theirs = time.perf_counter() - started
        dataset.delete()
    print(
        json.dumps(
            {
                **vars(options),
                "write_all_fields_s": round(ours, 2),
                "rank_again_s": round(again, 2),
                "write_proposals_s": round(alone, 2),
                "set_values_of_proposals_s": round(theirs, 2),
                "ratio_of_proposals": round(theirs / alone, 1),
                "peak_mib_before": round(before),
                "peak_mib_after": round(after),
            }
        )
    )


def rename(folder: Path, ids: list[str], shards: object) -> None:
    """Give the run's images the ids of the dataset's samples."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    new = dict(zip((f"{i:024x}" for i in range(len(ids))), ids, strict=True))
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(path)
        column = pa.array([new[i] for i in table["id"].to_pylist()])
        pq.write_table(table.set_column(table.schema.get_field_index("id"), table.schema.field("id"), column), path)


def plain(dataset: object) -> list[list[dict]]:
    """The written proposals as plain values, so that the rival has nothing to compute."""
    found = dataset._sample_collection.find({}, {"gsal_proposals.detections": 1})  # type: ignore[attr-defined]
    return [sample["gsal_proposals"]["detections"] for sample in found]


if __name__ == "__main__":
    main()
