"""A run folder's parts as columns over the pool, in the manifest's order: what ranking reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gsal_fo.run_folder import tables
from gsal_fo.run_folder.shards import MANIFEST_NAME, ShardError, holders, parts, read_manifest, read_part

FOREGROUND_FLOOR = (
    0.05  # a proposal that is background with more certainty than this leaves takes no part in the entropy
)


@dataclass(frozen=True)
class PoolTable:
    """Columns of a scored pool: N images that have a result, P proposals, sorted by image.

    (N,): ``ids`` str in manifest order, ``image_error`` and ``image_variance`` float32, ``entropy`` float32 (the
    detector's: the largest posterior entropy in nats among proposals with foreground probability >= 0.05, 0 where
    none, NaN without a detector), ``source`` str ("detector" | "field" | "grid" | "whole"), ``screened`` bool (False:
    the screen left the image out of crop-level diffusion, and its proposals' E and V are estimates),
    ``image_contrast`` float32. (P,): ``contrast`` float32 (both of ``correction.local_contrast``, and NaN in runs that
    did not store them), ``proposal_image`` int64 row, ``boxes`` (P, 4) ``xywh_rel``, ``proposal_score``,
    ``proposal_error``,
    ``proposal_variance`` float32, ``fine`` int16 index into ``ConceptGraph.fine`` (-1 background, -2 unmatched),
    ``prob``, ``margin`` float32.
    ``failed``: id -> reason of the images that have no result; ``run``: the folder that the columns are of.
    """

    ids: np.ndarray
    failed: Mapping[str, str]
    image_error: np.ndarray
    image_variance: np.ndarray
    entropy: np.ndarray
    source: np.ndarray
    screened: np.ndarray
    proposal_image: np.ndarray
    boxes: np.ndarray
    proposal_score: np.ndarray
    proposal_error: np.ndarray
    proposal_variance: np.ndarray
    fine: np.ndarray
    prob: np.ndarray
    margin: np.ndarray
    image_contrast: np.ndarray
    contrast: np.ndarray
    run: Path | None = None

    def first_proposal(self, row: int) -> int:
        """Position of an image's first proposal; its others follow."""
        return int(np.searchsorted(self.proposal_image, row))


def rankable(table: PoolTable) -> np.ndarray:
    """Images (N,) bool with finite E and V of their own and of one proposal at least: what `gsal_scores` ranks."""
    good = np.isfinite(table.proposal_error) & np.isfinite(table.proposal_variance)
    own = np.isfinite(table.image_error) & np.isfinite(table.image_variance)
    return np.asarray(own & (np.bincount(table.proposal_image[good], minlength=len(table.ids)) > 0))


def load_pool(run: Path, *, statistics: str = "difficulty") -> PoolTable:
    """Read what the worker left in a run folder. Memory: columns only, about 50 bytes per proposal.

    ``statistics`` is the stage that E and V are read from; a screen reads "screening", before there is another.

    Raises:
        ShardError: where the folder is no run folder, mixes two configurations, is not finished, holds an image twice,
            or its stages disagree on an image's proposals; the message names the image.
    """
    run = Path(run)
    pool = _pool_ids(run)
    stored = all({"contrast", "image_contrast"} <= set(tables.columns_of(path)) for path in parts(run, "proposals"))
    scalars, lists = (["image_contrast"], ["contrast"]) if stored else ([], [])
    proposals = _read(run, "proposals", pool, ["source", *scalars], ["boxes", "scores", *lists], posterior=True)
    difficulty = _read(
        run, statistics, pool, ["image_error", "image_variance", "screened"], ["proposal_error", "proposal_variance"]
    )
    assignment = _read(run, "assignment", pool, [], ["fine", "prob", "margin"])
    stages = {"proposals": proposals, statistics: difficulty, "assignment": assignment}
    failed: dict[int, str] = {}
    for stage in stages.values():
        for row, reason in stage.failed.items():
            failed.setdefault(row, reason)
    good = np.ones(len(pool), dtype=bool)
    good[list(failed)] = False
    for name, stage in stages.items():
        if (missing := good & (stage.place < 0)).any():
            raise ShardError(
                f"{run} is not finished: {missing.sum()} images have no {name} yet, the first is "
                f"{pool[int(missing.argmax())]}; run the same scoring command again"
            )
    rows = np.flatnonzero(good)
    counts = proposals.counts["scores"][proposals.place[rows]]
    _check(run, pool, rows, counts > 0, "proposals", "no proposal")
    boxes = proposals.counts["boxes"][proposals.place[rows]]
    _check(run, pool, rows, boxes == 4 * counts, "proposals", "another number of boxes than of scores")
    if stored:
        same = proposals.counts["contrast"][proposals.place[rows]] == counts
        _check(run, pool, rows, same, "proposals", "another number of contrasts than of boxes")
    for name, stage in ((statistics, difficulty), ("assignment", assignment)):
        for column, lengths in stage.counts.items():
            same = lengths[stage.place[rows]] == counts
            _check(run, pool, rows, same, name, f"another number of {column} than of proposals")
    names = pool.to_numpy(zero_copy_only=False)
    return PoolTable(
        ids=names[rows],
        failed={str(names[row]): reason for row, reason in sorted(failed.items())},
        image_error=difficulty.column("image_error", rows),
        image_variance=difficulty.column("image_variance", rows),
        entropy=_image_entropy(proposals, rows),
        source=proposals.column("source", rows),
        screened=difficulty.column("screened", rows).astype(bool),
        proposal_image=np.repeat(np.arange(len(rows)), counts),
        boxes=proposals.flat("boxes", rows).reshape(-1, 4),
        proposal_score=proposals.flat("scores", rows),
        proposal_error=difficulty.flat("proposal_error", rows),
        proposal_variance=difficulty.flat("proposal_variance", rows),
        fine=assignment.flat("fine", rows),
        prob=assignment.flat("prob", rows),
        margin=assignment.flat("margin", rows),
        image_contrast=proposals.column("image_contrast", rows) if stored else _unknown(len(rows)),
        contrast=proposals.flat("contrast", rows) if stored else _unknown(int(counts.sum())),
        run=run,
    )


def _unknown(count: int) -> np.ndarray:
    return np.full(count, np.nan, dtype=np.float32)


@dataclass(frozen=True)
class _Stage:
    """One stage's columns in part order. ``place`` (pool,): where each pool image is in them, -1 nowhere."""

    place: np.ndarray
    failed: dict[int, str]
    columns: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    values: dict[str, np.ndarray]

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self.columns[name][self.place[rows]]

    def flat(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The lists of these pool rows, one after the other."""
        counts = self.counts[name]
        starts = np.cumsum(counts) - counts
        place = self.place[rows]
        ends = np.cumsum(counts[place])
        shift = starts[place] - (ends - counts[place])
        return self.values[name][np.repeat(shift, counts[place]) + np.arange(ends[-1] if len(ends) else 0)]


def _pool_ids(run: Path) -> pa.Array:
    manifest = read_manifest(run, ["id", "role"])
    ids = manifest["id"].filter(pc.equal(manifest["role"], "pool")).combine_chunks()
    if len(pc.unique(ids)) < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        raise ShardError(f"{run / MANIFEST_NAME} holds image {twice[0]} twice; score again")
    return ids


def _read(
    run: Path, stage: str, pool: pa.Array, scalars: list[str], lists: list[str], *, posterior: bool = False
) -> _Stage:
    """Columns of a stage, part by part; posteriors become one entropy per image at once, because they are wide."""
    ids, failed_ids, reasons = [], [], []
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in [*scalars, *lists, "entropy"]}
    counts: dict[str, list[np.ndarray]] = {name: [] for name in lists}
    for path in parts(run, stage):
        table = read_part(path, ["id", "error", *scalars, *lists, *(["posterior"] if posterior else [])])
        bad = pc.not_equal(pc.fill_null(table["error"], ""), "")
        failed_ids += table["id"].filter(bad).to_pylist()
        reasons += table["error"].filter(bad).to_pylist()
        table = table.filter(pc.invert(bad))
        if not table.num_rows:
            continue
        ids.append(table["id"].combine_chunks())
        for name in scalars:
            pieces[name].append(_passed(table) if name == "screened" else table[name].to_numpy())
        for name in lists:
            counts[name].append(_lengths(table[name]))
            pieces[name].append(tables.flat(table, name, path))
        if posterior:
            numbers, lengths = tables.flat(table, "posterior", path), _lengths(table["posterior"])
            try:
                pieces["entropy"].append(entropies(numbers, lengths, counts["scores"][-1]))
            except ShardError as error:
                raise ShardError(f"{path}: {error}; {tables.AGAIN}") from error
    # One look-up for all parts: it hashes the whole pool. Images outside the pool (labeled ones) get no place.
    place, failed = np.full(len(pool), -1, dtype=np.int64), {}
    where = pc.index_in(pa.concat_arrays([*ids, pa.array(failed_ids, pa.string())]), value_set=pool)
    known, at = pc.is_valid(where).to_numpy(zero_copy_only=False), pc.fill_null(where, 0).to_numpy()
    if len(twice := np.flatnonzero(np.bincount(at[known], minlength=1) > 1)):
        image = str(pool[int(twice[0])])
        raise ShardError(f"image {image} is there twice, in {holders(run, stage, image)}; {tables.AGAIN}")
    good = len(at) - len(failed_ids)
    place[at[:good][known[:good]]] = np.flatnonzero(known[:good])
    failed = {
        int(row): reason for row, is_known, reason in zip(at[good:], known[good:], reasons, strict=True) if is_known
    }

    def joined(found: list[np.ndarray], empty: type = np.float32) -> np.ndarray:
        return np.concatenate(found) if found else np.empty(0, dtype=empty)

    return _Stage(
        place=place,
        failed=failed,
        columns={
            name: joined(pieces[name], bool if name == "screened" else np.float32) for name in [*scalars, "entropy"]
        },
        counts={name: joined(counts[name], np.int64) for name in lists},
        values={name: joined(pieces[name], np.int16 if name == "fine" else np.float32) for name in lists},
    )


def _passed(table: pa.Table) -> np.ndarray:
    """The flag of the screen; parts of before there was one hold none, and all their crops were scored."""
    if "screened" not in table.column_names:
        return np.ones(table.num_rows, dtype=bool)
    return pc.fill_null(table["screened"], True).to_numpy().astype(bool)


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)


def _check(run: Path, pool: pa.Array, rows: np.ndarray, fine: np.ndarray, stage: str, problem: str) -> None:
    if not fine.all():
        image = str(pool[int(rows[int(np.argmin(fine))])])
        raise ShardError(f"{holders(run, stage, image)}: image {image} has {problem}; {tables.AGAIN}")


def entropies(posterior: np.ndarray, lengths: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Detector entropy (n,) float32 of images in nats.

    Args:
        posterior: all images' flattened posteriors, one after the other, background first in each.
        lengths: numbers of each image (n,); 0 where no detector spoke, then the result is NaN.
        boxes: proposals of each image (n,).
    """
    out = np.full(len(lengths), np.nan, dtype=np.float32)
    ends = np.cumsum(lengths)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    width = np.divide(lengths, boxes, out=np.zeros(len(lengths)), where=boxes > 0)
    for columns in np.unique(width[lengths > 0]):
        if columns < 1 or columns != int(columns):
            row = int(np.flatnonzero(width == columns)[0])
            raise ShardError(f"a posterior of {lengths[row]} numbers does not fit {boxes[row]} proposals")
        images = np.flatnonzero((width == columns) & (lengths > 0))
        p = posterior[np.isin(owners, images)] if len(images) < len(lengths) else posterior[: ends[-1]]
        p = p.reshape(-1, int(columns)).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            h = -np.where(p > 0, p * np.log(p), 0).sum(1)
        h = np.where(1 - p[:, 0] >= FOREGROUND_FLOOR, h, 0)
        starts = np.cumsum(boxes[images]) - boxes[images]
        out[images] = np.maximum.reduceat(h, starts)
    return out


def _image_entropy(proposals: _Stage, rows: np.ndarray) -> np.ndarray:
    """0 for the images in which a detector found nothing; NaN all over where none ran."""
    entropy = proposals.column("entropy", rows)
    if np.isfinite(entropy).any():
        nothing = np.isnan(entropy) & (proposals.column("source", rows) == "whole")
        entropy = np.where(nothing, np.float32(0), entropy)
    return entropy
