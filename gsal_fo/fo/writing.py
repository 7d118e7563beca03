"""One writer: a ranking becomes fields, in bulk, in chunks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
from PIL import Image

from gsal_fo.acquisition.ranking import Ranking
from gsal_fo.fo import progress, runs
from gsal_fo.fo.app import sidebar
from gsal_fo.fo.dataset import bulk, fields
from gsal_fo.fo.documents import Documents, heatmap, number
from gsal_fo.run_folder import error_maps, shards

CHUNK = 2000  # samples per bulk write: about 10 MB of boxes
MAP_SIZE = 256  # pixels of a map's longer side: the App stretches a map of a few cells into hard blocks


def write(dataset: fo.Dataset, ranking: Ranking, key: str, folder: Path) -> progress.Events:
    """Replace all score fields by this ranking, and the run folder's maps; yields progress."""
    fields.add_schema(dataset, "score")
    sidebar.follow(dataset)
    # Marked before the first value: a killed writer leaves fields that are known to be this run's.
    runs.mark_writer(dataset, key)
    fields.clear(dataset, fields.SCORE_FIELDS)
    present = set(dataset.values("id"))  # samples may have gone since the run was made
    bulk.update(dataset, {i: {"gsal_error": why} for i, why in ranking.unranked.items() if i in present})
    maps = write_maps(folder)
    rows = [row for row, i in enumerate(ranking.table.ids) if i in present]
    documents = Documents(ranking)

    def described(row: int) -> dict[str, Any]:
        path = maps.get(str(ranking.table.ids[row]))
        boxes = {"gsal_proposals": documents.proposals(row), "gsal_map": heatmap(path) if path else None}
        return documents.ranked(row) | boxes

    yield from _write_rows(dataset, ranking, rows, described)


def refresh(dataset: fo.Dataset, ranking: Ranking) -> progress.Events:
    """Replace what a new ranking of the same statistics changes; yields progress.

    An image that is out of the pool by now keeps the reasons that it was picked for, and has no score or rank any more.
    """
    fields.clear(dataset, fields.RANKED)
    boxes = dict(zip(*dataset.values(["id", "gsal_proposals.detections.bonus"]), strict=True))
    rows = sorted(int(r) for r in ranking.order if ranking.table.ids[r] in boxes)
    documents = Documents(ranking)

    def changed(row: int) -> dict[str, Any]:
        found = documents.ranked(row)
        # Where a person has deleted proposals in the App, the rest cannot be told apart by position and stay as are.
        if len(boxes[ranking.table.ids[row]] or []) == len(documents.members(row)):
            found |= documents.numbers(row)
        return found

    yield from _write_rows(dataset, ranking, rows, changed)


def _write_rows(
    dataset: fo.Dataset, ranking: Ranking, rows: list[int], fields_of: Callable[[int], dict[str, Any]]
) -> progress.Events:
    ids = ranking.table.ids
    yield {"event": "progress", "stage": "write", "done": 0, "total": len(rows)}
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        bulk.update(dataset, {str(ids[r]): fields_of(r) for r in chunk})
        yield {"event": "progress", "stage": "write", "done": start + len(chunk), "total": len(rows)}


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
    place = folder / "maps"
    out: dict[str, str] = {}
    for sample_id, cells in error_maps.read(folder):
        if not out:
            place.mkdir(exist_ok=True)
        image = Image.fromarray(error_maps.gray(cells, low, high))
        zoom = max(1, MAP_SIZE // max(image.size))
        path = place / f"{sample_id}.png"
        try:
            image.resize((image.width * zoom, image.height * zoom), Image.Resampling.BICUBIC).save(path)
        except OSError as error:
            raise shards.ShardError(
                f"cannot write {path}: {error.strerror or error}; free space and run again"
            ) from error
        out[sample_id] = str(path)
    return out
