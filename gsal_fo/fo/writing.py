"""What a ranking changes in a dataset, image by image; `prepared` holds it beside the samples until all is there."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
from PIL import Image

from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.fo import runs
from gsal_fo.fo.dataset import bulk, fields, folders
from gsal_fo.fo.dataset.prepared import Change
from gsal_fo.fo.documents import Documents, heatmap, number
from gsal_fo.run_folder import error_maps, shards

MAP_SIZE = 256  # pixels of a map's longer side: the App stretches a map of a few cells into hard blocks
Changes = Iterator[tuple[str, Change]]


def replaced(dataset: fo.Dataset, ranking: Ranking, folder: Path) -> Changes:
    """All score fields of the images that this ranking knows; `emptied` does the others.

    The run folder's maps are on the disk before the first is yielded.

    Raises:
        ShardError: a map cannot be written.
    """
    maps = write_maps(folder)
    present = bulk.ids(dataset)  # samples may have gone since the run was made
    empty = dict.fromkeys(fields.SCORE_FIELDS)
    documents = Documents(ranking)
    errors = dict(ranking.unranked)
    for row, sample_id in enumerate(map(str, ranking.table.ids)):
        error, path = errors.pop(sample_id, None), maps.get(sample_id)
        if sample_id in present:
            boxes = {"gsal_proposals": documents.proposals(row), "gsal_map": heatmap(path) if path else None}
            yield sample_id, Change({**empty, **documents.ranked(row), **boxes, "gsal_error": error})
    yield from ((i, Change({**empty, "gsal_error": why})) for i, why in errors.items() if i in present)


def refreshed(dataset: fo.Dataset, ranking: Ranking) -> Changes:
    """What a new ranking of the same statistics changes.

    An image that is out of the pool by now keeps the reasons that it was picked for, and has no score or rank any more.
    """
    present = bulk.ids(dataset)
    documents = Documents(ranking)
    ranked: set[str] = set()
    for row in sorted(int(r) for r in ranking.order):
        sample_id = str(ranking.table.ids[row])
        if sample_id in present:
            ranked.add(sample_id)
            yield sample_id, Change(documents.ranked(row), numbers=documents.numbers(row))
    yield from emptied(dataset, fields.RANKED, but=ranked)


def emptied(dataset: fo.Dataset, names: Sequence[str], *, but: Collection[str]) -> Changes:
    """None in these fields of every image that holds a value there, of images ``but`` these."""
    empty = dict.fromkeys(names)
    filled = {"$or": [{name: {"$ne": None}} for name in names]}
    for found in dataset._sample_collection.find(filled, {"_id": 1}):
        if (sample_id := str(found["_id"])) not in but:
            yield sample_id, Change(dict(empty))


def facts_of(ranking: Ranking) -> dict[str, Any]:
    """What a run record keeps of a ranking: coverage, thresholds and rare nodes."""
    rare = sorted(node for node, is_rare in ranking.rare.items() if is_rare)
    return {
        "coverage": runs.pairs({k: int(v) for k, v in ranking.coverage.items()}),
        "thresholds": {k: number(v) for k, v in ranking.thresholds.items()},
        "rare": rare,
    }


def write_maps(folder: Path) -> dict[str, str]:
    """Write a run's error maps as 8-bit PNG files under ``folder/maps``, on one scale; returns their paths by id.

    The scale is logarithmic and black up to the pool's usual error.
    """
    low, high = error_maps.scale(folder)
    folders.sweep(folder / "maps")
    out: dict[str, str] = {}
    for sample_id, cells in error_maps.read(folder):
        image = Image.fromarray(error_maps.gray(cells, low, high))
        zoom = max(1, MAP_SIZE // max(image.size))
        path = folder / "maps" / f"{sample_id}.png"
        with shards.atomic(path) as temporary:
            image.resize((image.width * zoom, image.height * zoom), Image.Resampling.BICUBIC).save(temporary, "PNG")
        out[sample_id] = str(path)
    return out
