"""One writer: a ranking becomes fields, in bulk, in chunks, with plain Python values."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
from PIL import Image

from gsal_fo import error_maps, shards
from gsal_fo.fo import fields, progress, runs, sidebar
from gsal_fo.ranking import Ranking
from gsal_fo.similarity import UNMATCHED

CHUNK = 2000  # samples per bulk write: about 20 MB of boxes
MAP_SIZE = 256  # pixels of a map's longer side: the App stretches a map of a few cells into hard blocks


def write(dataset: fo.Dataset, ranking: Ranking, key: str, folder: Path) -> progress.Events:
    """Replace all score fields by this ranking, and the run folder's maps; yields progress."""
    fields.add_schema(dataset, "score")
    sidebar.follow(dataset)
    # Marked before the first value: a killed writer leaves fields that are known to be this run's.
    runs.mark_writer(dataset, key)
    fields.clear(dataset, fields.SCORE_FIELDS)
    present = set(dataset.values("id"))  # samples may have gone since the run was made
    _set(dataset, "gsal_error", {i: reason for i, reason in ranking.unranked.items() if i in present})
    maps = write_maps(folder)
    rows = [row for row, i in enumerate(ranking.table.ids) if i in present]
    yield from _write_rows(dataset, ranking, rows, lambda chunk: _described(ranking, chunk, maps))


def refresh(dataset: fo.Dataset, ranking: Ranking) -> progress.Events:
    """Replace what a new ranking of the same statistics changes; yields progress.

    An image that is out of the pool by now keeps the reasons that it was picked for, and has no score or rank any more.
    """
    fields.clear(dataset, fields.RANKED)
    boxes = dict(zip(*dataset.values(["id", "gsal_proposals.detections.bonus"]), strict=True))
    rows = sorted(int(r) for r in ranking.order if ranking.table.ids[r] in boxes)
    yield from _write_rows(dataset, ranking, rows, lambda chunk: {})
    # Where a person has deleted proposals in the App, the rest cannot be told apart by position and stay as they are.
    whole = [r for r in rows if len(boxes[ranking.table.ids[r]] or []) == len(_members(ranking, r))]
    for start in range(0, len(whole), CHUNK):
        chunk = whole[start : start + CHUNK]
        for name, values in _box_numbers(ranking, chunk).items():
            _set(dataset, name, {str(ranking.table.ids[r]): v for r, v in zip(chunk, values, strict=True)})


def _write_rows(
    dataset: fo.Dataset, ranking: Ranking, rows: list[int], more: Callable[[Sequence[int]], dict[str, list[Any]]]
) -> progress.Events:
    ids = ranking.table.ids
    yield {"event": "progress", "stage": "write", "done": 0, "total": len(rows)}
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        for name, values in {**_ranked(ranking, chunk), **more(chunk)}.items():
            _set(dataset, name, {str(ids[r]): v for r, v in zip(chunk, values, strict=True)})
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


def number(value: Any) -> float | None:
    """A plain float, None where it is not finite: MongoDB would sort NaN below all, and JSON has none."""
    return float(value) if value is not None and math.isfinite(value) else None


def _ranked(ranking: Ranking, rows: Sequence[int]) -> dict[str, list[Any]]:
    """The fields of some rows that depend on labels and constants."""
    table, graph, scores = ranking.table, ranking.graph, ranking.scores
    ranks = [int(ranking.rank[r]) or None for r in rows]
    out: dict[str, list[Any]] = {
        "gsal_score": [number(scores.score[r]) for r in rows],
        "gsal_rank": ranks,
        "gsal_difficulty": [number(scores.difficulty[r]) for r in rows],
        "gsal_rarity": [number(scores.rarity[r]) for r in rows],
        "gsal_rationale": [ranking.sentence(r) if rank else None for r, rank in zip(rows, ranks, strict=True)],
    }
    concepts: dict[str, list[Any]] = {"gsal_path": [], "gsal_fine": [], "gsal_coarse": [], "gsal_abstract": []}
    for row in rows:
        decisive = int(scores.decisive[row])
        lead = [decisive] if decisive >= 0 else []
        paths = [_path(graph, int(table.fine[j])) for j in [*lead, *_members(ranking, row)]]
        concepts["gsal_path"].append(list(dict.fromkeys(node for path in paths for node in path)))
        fine = coarse = None
        attributes: list[str] = []
        if lead:
            name = _name(graph, int(table.fine[decisive]))
            fine = fo.Classification(label=name, confidence=number(table.prob[decisive]))
            if int(table.fine[decisive]) >= 0:
                coarse, attributes = fo.Classification(label=graph.coarse_of(name)), graph.abstract_of(name)
        concepts["gsal_fine"].append(fine)
        concepts["gsal_coarse"].append(coarse)
        each = [fo.Classification(label=a) for a in attributes]
        concepts["gsal_abstract"].append(fo.Classifications(classifications=each))
    return out | concepts


def _described(ranking: Ranking, rows: Sequence[int], maps: dict[str, str]) -> dict[str, list[Any]]:
    """The boxes and maps of some rows."""
    boxes = [fo.Detections(detections=[_detection(ranking, row, j) for j in _members(ranking, row)]) for row in rows]
    paths = [maps.get(str(ranking.table.ids[row])) for row in rows]
    return {
        "gsal_proposals": boxes,
        "gsal_map": [fo.Heatmap(map_path=path, range=[0, 255]) if path else None for path in paths],
    }


def _box_numbers(ranking: Ranking, rows: Sequence[int]) -> dict[str, list[Any]]:
    """The boxes' numbers that a new ranking changes, as nested lists: nine times faster than by label id."""
    columns = {"score": ranking.scores.value, "difficulty": ranking.scores.proposal, "bonus": ranking.bonus}
    return {
        f"gsal_proposals.detections.{name}": [[number(values[j]) for j in _members(ranking, row)] for row in rows]
        for name, values in columns.items()
    }


def _detection(ranking: Ranking, row: int, j: int) -> fo.Detection:
    table, graph, fine = ranking.table, ranking.graph, int(ranking.table.fine[j])
    path = _path(graph, fine)
    return fo.Detection(
        label=_name(graph, fine),
        bounding_box=[float(v) for v in table.boxes[j]],
        confidence=number(table.proposal_score[j]),
        score=number(ranking.scores.value[j]),
        recon_error=number(table.proposal_error[j]),
        denoise_var=number(table.proposal_variance[j]),
        difficulty=number(ranking.scores.proposal[j]),
        bonus=number(ranking.bonus[j]),
        coarse=path[1] if fine >= 0 else None,
        abstract=path[2:],
        path=path,
        prob=number(table.prob[j]),
        margin=number(table.margin[j]),
        source=str(table.source[row]),
    )


def _members(ranking: Ranking, row: int) -> range:
    """Positions of an image's proposals; the table holds them side by side."""
    return range(ranking.table.first_proposal(row), ranking.table.first_proposal(row + 1))


def _name(graph: Any, fine: int) -> str:
    if fine >= 0:
        return str(graph.fine[fine])
    return fields.UNMATCHED if fine == UNMATCHED else fields.BACKGROUND


def _path(graph: Any, fine: int) -> list[str]:
    """Nodes of an assigned concept; what matches no concept can be filtered by that."""
    if fine >= 0:
        return list(graph.path(graph.fine[fine]))
    return [fields.UNMATCHED] if fine == UNMATCHED else []


def _set(dataset: fo.Dataset, name: str, values: dict[str, Any]) -> None:
    if values:
        # The schema is declared and the values are made here: checking each again would take as long as writing it.
        dataset.set_values(name, values, key_field="id", validate=False, expand_schema=False)
