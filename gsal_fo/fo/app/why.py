"""Why one image has its rank: the ranking that its fields are from, its proposals, and their pictures."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import fiftyone as fo
import numpy as np

from gsal_fo import config as cfg
from gsal_fo.acquisition import ranking as rankings
from gsal_fo.audit import ledger, verify
from gsal_fo.fo import rounds, runs
from gsal_fo.fo.dataset import pool, slices
from gsal_fo.images import open_upright, read_image
from gsal_fo.pages import crop_sheet
from gsal_fo.run_folder import cache

KEPT = 2  # rankings in memory


@dataclass(frozen=True)
class Proposal:
    """One proposal: ``number`` (1 is the image's first), what it looks like, Z(d), b, u, and its box ``xywh_rel``."""

    number: int
    concept: str
    difficulty_sd: float | None
    bonus: float
    value: float | None
    detector_score: float
    decisive: bool
    box: list[float]


@dataclass(frozen=True)
class Why:
    """``facts`` and ``sentence`` as in ``acquisition.ranking``; ``terms`` add to the score (none for an image without a
    rank); ``proposals`` the decisive one first, then by value; ``round`` None for an image of the pool."""

    key: str
    round: int | None
    facts: dict[str, Any]
    sentence: str
    terms: list[tuple[str, float]]
    proposals: list[Proposal]
    filepath: str
    map_path: str | None


_kept: OrderedDict[tuple[str, str], rankings.Ranking] = OrderedDict()
_lock = Lock()


def why(dataset: Any, sample_id: str) -> Why:
    """Everything the "Why this image" panel shows of a scored image; no model is run.

    An image in a round is explained by the ranking of that round, one of the pool by the latest ranking.

    Raises:
        ValueError: the dataset has not been scored, there is no such image, or the scoring has no result for it.
    """
    root = pool.check_dataset(dataset)
    runs.load(root)  # says so where nothing was scored
    key, record, number = _record(root, sample_id)
    scoring = record if record.method == runs.SCORE else runs.load(root, record.score_run).config
    ranking = _ranking(root, key, record, scoring)
    found = np.flatnonzero(ranking.table.ids == sample_id)
    sample = slices.flat(root).select_fields([n for n in ("gsal_map", "gsal_error") if root.has_sample_field(n)])[
        sample_id
    ]
    if not len(found):
        reason = sample["gsal_error"] if root.has_sample_field("gsal_error") else None
        labeled = "it was labeled before, or added since" if reason is None else reason
        raise ValueError(f"{key} has no result for this image: {labeled}")
    row = int(found[0])
    heat = sample["gsal_map"] if root.has_sample_field("gsal_map") else None
    return Why(
        key=key,
        round=number,
        facts=ranking.facts(row),
        sentence=ranking.sentence(row),
        terms=list(ranking.reason(row).terms) if ranking.rank[row] else [],
        proposals=_proposals(ranking, row),
        filepath=sample.filepath,
        map_path=heat.map_path if heat is not None else None,
    )


def pictures(shown: Why) -> list[crop_sheet.Pair]:
    """Each proposal's crop and the same piece of the error map.

    Raises:
        ImageError: the image or its map cannot be read.
    """
    image = open_upright(shown.filepath)
    heat = None
    if shown.map_path and Path(shown.map_path).is_file():
        heat = crop_sheet.colored(read_image(shown.map_path)[0][..., 0])  # gray: all channels are the same
    return [crop_sheet.pair(image, heat, p.box) for p in shown.proposals]


def _record(dataset: fo.Dataset, sample_id: str) -> tuple[str, Any, int | None]:
    """Key, record and round of the ranking that explains an image."""
    selections = [(key, runs.load(dataset, key).config) for key in runs.select_keys(dataset)]
    number = None
    if dataset.has_sample_field("gsal_round"):
        try:
            number = slices.flat(dataset).select_fields("gsal_round")[sample_id]["gsal_round"]
        except KeyError as error:
            raise ValueError(f'dataset "{dataset.name}" has no image {sample_id}') from error
    of_round = [(key, c) for key, c in selections if number is not None and c.round == number]
    writer = runs.writer(dataset)
    latest = [(key, c) for key, c in selections if c.score_run == writer]
    if of_round or latest:
        key, config = (of_round or latest)[-1]
        return key, config, number
    key = writer or runs.load(dataset).key
    return key, runs.load(dataset, key).config, None


def _ranking(dataset: fo.Dataset, key: str, record: Any, scoring: Any) -> rankings.Ranking:
    """The ranking of a record, again from what the run folder holds."""
    folder = rounds.run_folder(scoring)
    place = (str(dataset._doc.id), f"{key} {scoring.run_dir} {getattr(record, 'ledger', '')}")
    with _lock:
        if place in _kept:
            _kept.move_to_end(place)
            return _kept[place]
    table = cache.load(folder)
    entry = next((e for e in ledger.read(folder).entries if e.get("hash") == getattr(record, "ledger", None)), None)
    if entry is not None:
        out = verify.ranking_of(table, entry)
    else:  # a scoring ranks all of its images with the labels of then
        graph = rounds.graph_of(scoring)
        counts = {str(k): int(n) for k, n in record.coverage if k in graph.fine}
        out = rankings.rank(table, graph, counts, cfg.from_dict(cfg.GsalParams, record.params))
    with _lock:
        _kept[place] = out
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return out


def _proposals(ranking: rankings.Ranking, row: int) -> list[Proposal]:
    table, scores = ranking.table, ranking.scores
    first = table.first_proposal(row)
    last = int(np.searchsorted(table.proposal_image, row, side="right"))
    decisive = int(scores.decisive[row])
    order = sorted(range(first, last), key=lambda j: (j != decisive, -np.nan_to_num(scores.value[j], nan=-1.0), j))
    return [
        Proposal(
            number=j - first + 1,
            concept=_concept(ranking, int(table.fine[j])),
            difficulty_sd=_number(scores.proposal[j]),
            bonus=float(ranking.bonus[j]),
            value=_number(scores.value[j]),
            detector_score=float(table.proposal_score[j]),
            decisive=j == decisive,
            box=[float(x) for x in table.boxes[j]],
        )
        for j in order
    ]


def _concept(ranking: rankings.Ranking, fine: int) -> str:
    from gsal_fo.concepts.similarity import UNMATCHED
    from gsal_fo.fo.dataset import fields

    if fine >= 0:
        return str(ranking.graph.fine[fine])
    return fields.UNMATCHED if fine == UNMATCHED else fields.BACKGROUND


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
