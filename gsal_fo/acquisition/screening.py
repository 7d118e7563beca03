"""Screening: which images get crop-level diffusion, and what stands in for the crops of the rest (METHOD.md section
7 v).

Images are screened by the score that they would have if every proposal were read from its image's maps, under the
method's default constants and the labels of the run. Most of the share goes to the highest; the others are drawn at
random from the rest, and with them the chosen images are a sample of the pool: its weighted quantiles carry a value
read from a map over to the scale of crops. NumPy and Parquet only, no model.
"""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gsal_fo.acquisition.ranking import rank
from gsal_fo.acquisition.strategies.gsal.scores import best_first
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams
from gsal_fo.run_folder import shards
from gsal_fo.run_folder.pool_columns import PoolTable, load_pool
from gsal_fo.run_folder.shards import ShardError

DRAWN = 0.2  # of the chosen images are drawn at random
FEWEST_DRAWN = 2
KNOTS = 65  # quantiles of a calibration
STATISTICS = ("proposal_error", "proposal_variance")


@dataclass(frozen=True)
class Screen:
    """A screened pool: ``table`` with every proposal read from maps, and ``weight`` (N,) of its rows: how many images
    of the pool a chosen one stands for, 0 where it was not chosen."""

    table: PoolTable
    weight: np.ndarray

    @property
    def ids(self) -> set[str]:
        """Ids of the chosen images."""
        return set(self.table.ids[self.weight > 0].tolist())


def choose(ids: np.ndarray, score: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """Which images get crop-level diffusion: a function of the pool alone, not of its order.

    Args:
        ids: (N,) what the images are known by; ties of the score go to the smallest, and chance goes by them.
        score: (N,) higher = more worth a look; rows that are not finite are never chosen.
        share: of the finite rows, in (0, 1]; rounded up.
        seed: of the images that are drawn at random.

    Returns:
        (N,) float64: 1 for the highest, the number of images left over per drawn one for those, 0 for the rest. The
        weights sum to the number of finite rows.
    """
    order = best_first(score, ids)
    count = math.ceil(share * len(order) - 1e-9)
    drawn = min(count, max(FEWEST_DRAWN, round(DRAWN * count)))
    weight = np.zeros(len(ids))
    if count >= len(order):
        weight[order] = 1.0
        return weight
    highest, rest = order[: count - drawn], order[count - drawn :]
    lots = [hashlib.sha256(f"{seed}:{ids[row]}".encode()).digest() for row in rest]
    winners = rest[sorted(range(len(rest)), key=lots.__getitem__)[:drawn]]
    weight[highest], weight[winners] = 1.0, len(rest) / drawn
    return weight


def weighted_quantiles(values: np.ndarray, weight: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Quantiles of weighted values; each value sits in the middle of its weight, and the ends are the extremes."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weight[order]) - weight[order] / 2
    return np.interp(at, share / weight.sum(), values[order])


def calibration(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots of the quantile map from values read from maps to values of crops.

    Args:
        source: (P,) from maps.
        target: (P,) of the same proposals' crops.
        weight: (P,) proposals of the pool that each stands for; those at 0, or not finite, take no part.

    Returns:
        Two arrays of at most 65 knots, the first strictly rising, the second not falling: equal quantiles of both.
    """
    used = (weight > 0) & np.isfinite(source) & np.isfinite(target)
    if not used.any():
        return np.empty(0), np.empty(0)
    at = np.linspace(0, 1, KNOTS)
    low, high = (weighted_quantiles(v[used].astype(np.float64), weight[used], at) for v in (source, target))
    low, first = np.unique(low, return_index=True)
    return low, high[first]


def calibrated(values: np.ndarray, knots: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Values from maps on the crops' scale: straight lines between the knots, the end knots' values beyond; NaN where
    there is no knot or no value."""
    if not len(knots[0]):
        return np.full(values.shape, np.nan, np.float32)
    return np.interp(values, *knots).astype(np.float32)


def screen_run(run: Path, graph: ConceptGraph, share: float, *, seed: int, params: GsalParams | None = None) -> Screen:
    """Choose from a run folder whose ``screening`` and ``assignment`` parts are complete; ``params`` are the constants
    of the ranking that is expected to follow, by default the paper's. Ties and chance go by the images' content: under
    other ids the same are chosen."""
    table = load_pool(run, statistics="screening")
    score = rank(table, graph, _labels(run, graph), params).scores.score
    return Screen(table, choose(_contents(run, table.ids), score, share, seed=seed))


def _contents(run: Path, ids: np.ndarray) -> np.ndarray:
    """The digests of the images' files (N,)."""
    stored = shards.read_stage(run, "proposals", columns=["id", "content"])
    marks = stored["content"].to_pylist() if "content" in stored.column_names else [None] * stored.num_rows
    known = dict(zip(stored["id"].to_pylist(), marks, strict=True))
    if unknown := [i for i in ids if not known.get(i)]:
        raise ShardError(f"image {unknown[0]} has no digest of its file; delete {run / 'proposals'} and score again")
    return np.array([known[i] for i in ids], dtype=object)


def _labels(run: Path, graph: ConceptGraph) -> Counter[str]:
    """Labeled instances per fine node; a label outside the graph counts by its looks, as ``assigned.json`` says."""
    labels = shards.read_manifest(run, ["role", "labels"])
    lists = labels.filter(pc.equal(labels["role"], "labeled"))["labels"].to_pylist()
    counts = Counter(name for names in lists for name in names or [] if name in graph.fine)
    for looks in shards.run_facts(run, "assigned.json")["unknown"].values():
        counts.update(looks)
    return counts


def finish_run(run: Path, screen: Screen, *, digest: str) -> dict[str, int]:
    """Write the ``difficulty`` parts: of the chosen images their crops' values, of the others estimates; and
    ``screening.json``, the knots of E and V that made those.

    Returns:
        JSON-able: images of the ``pool``, ``screened`` ones, those of them that were ``drawn`` at random.

    Raises:
        ShardError: the crops' parts do not fit the run.
    """
    table, known = screen.table, screen.weight > 0
    measured, failed = _measured(run, table)
    weight = screen.weight[table.proposal_image]
    final: dict[str, np.ndarray] = {}
    facts = {"pool": len(known), "screened": int(known.sum()), "drawn": int((screen.weight > 1).sum())}
    knots_of: dict[str, Any] = {}
    for name in STATISTICS:
        knots = calibration(getattr(table, name), measured[name], weight)
        knots_of[name] = [k.tolist() for k in knots]
        final[name] = np.where(weight > 0, measured[name], calibrated(getattr(table, name), knots))
    for path in (run / "difficulty").glob("part-*.parquet"):
        path.unlink()  # cheap to redo, and what a kill left half-written must not stay
    ids = pa.array(table.ids)
    starts = np.searchsorted(table.proposal_image, np.arange(len(table.ids) + 1))
    for path in shards.parts(run, "screening"):
        part = shards.read_part(path)
        rows = pc.index_in(part["id"].combine_chunks(), value_set=ids)  # null for an image that failed
        columns = {name: part[name] for name in part.column_names}
        places = rows.to_pylist()
        for name in STATISTICS:
            lists = [None if r is None else final[name][starts[r] : starts[r + 1]] for r in places]
            columns[name] = pa.array(lists, shards.FLOATS)
        columns["screened"] = pa.array([None if r is None else bool(known[r]) for r in places], pa.bool_())
        late = [failed.get(i) for i in part["id"].to_pylist()]
        columns["error"] = pa.array([b or a for a, b in zip(part["error"].to_pylist(), late, strict=True)], pa.string())
        table = pa.table(columns, schema=shards.STAGES["difficulty"])
        shards.write_part_table(run / "difficulty" / path.name, table, digest=digest)
    shards.write_record({**facts, "calibration": knots_of}, run / "screening.json")
    return facts


def _measured(run: Path, table: PoolTable) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The crops' E and V at the table's positions (P,), NaN elsewhere; and the images whose crops failed, with why."""
    ids = pa.array(table.ids)
    starts = np.searchsorted(table.proposal_image, np.arange(len(table.ids) + 1))
    out = {name: np.full(len(table.boxes), np.nan, np.float32) for name in STATISTICS}
    failed: dict[str, str] = {}
    for path in shards.parts(run, "crops"):
        part = shards.read_part(path)
        places = pc.index_in(part["id"].combine_chunks(), value_set=ids).to_pylist()
        for place, row in zip(places, shards.table_rows(part), strict=True):
            if row["error"]:
                failed[row["id"]] = row["error"]
            elif place is not None:
                span = slice(starts[place], starts[place + 1])
                for name in STATISTICS:
                    if len(row[name]) != span.stop - span.start:
                        raise ShardError(f"image {row['id']} has other crops than proposals; delete {run / 'crops'}")
                    out[name][span] = row[name]
    return out, failed
