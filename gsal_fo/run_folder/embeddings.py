"""Stored embeddings of a run folder: what the worker left of each pool image and of each of its proposals."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsal_fo.run_folder import shards
from gsal_fo.run_folder.tables import AGAIN

STAGE = "concepts"


@dataclass(frozen=True)
class Embedded:
    """One image: ``image`` (D,) float16 unit length; ``crops`` (k, D) float16, a row per box; ``labeled``: whether its
    boxes are labels."""

    id: str
    image: np.ndarray
    crops: np.ndarray
    labeled: bool


@dataclass(frozen=True)
class Embeddings:
    """``ids`` of N images in the order of the parts; ``image`` (N, D) float16 unit rows; ``crops``: (k_i, D) float16
    per image, a row per proposal."""

    ids: list[str]
    image: np.ndarray
    crops: list[np.ndarray]


def read(run: Path, ids: Set[str] | None = None) -> Embeddings:
    """Embeddings of the pool images that have some, or of those among ``ids``. Memory: 2 bytes a number.

    Raises:
        ShardError: as `each`.
    """
    found = [e for e in each(run, ids) if not e.labeled]
    image = np.stack([e.image for e in found]) if found else np.empty((0, 1), np.float16)
    return Embeddings([e.id for e in found], image, [e.crops for e in found])


def each(run: Path, ids: Set[str] | None = None) -> Iterator[Embedded]:
    """The images that were embedded, or those among ``ids``, one part in memory at a time.

    Raises:
        ShardError: the run holds none, because its concepts came from a detector's posterior, or of an older version;
            an image that has proposals lacks its embedding, or has it twice; or vectors differ in length.
    """
    if not shards.parts(run, STAGE):
        raise shards.ShardError(
            f"{run} holds no embeddings: the detector assigned its concepts; score with assign clip or prototypes"
        )
    seen: set[str] = set()
    width = 0
    for row in shards.iter_rows(run, STAGE):
        if row["id"] in seen:
            raise shards.ShardError(f"image {row['id']} is there twice, in {_parts(run, row['id'])}; {AGAIN}")
        seen.add(row["id"])
        if row["error"] or (ids is not None and row["id"] not in ids):
            continue
        if row.get("image") is None or not len(row["image"]):
            raise shards.ShardError(f"{run} holds no embeddings of images: an older version made it; score again")
        width = width or len(row["image"])
        if not len(row["image"]) == row["dim"] == width or len(row["embeddings"]) % width:
            raise shards.ShardError(
                f"{_parts(run, row['id'])}: the vectors of image {row['id']} are not {width} long; {AGAIN}"
            )
        yield Embedded(row["id"], row["image"], row["embeddings"].reshape(-1, width), row["role"] == "labeled")
    proposed = shards.read_stage(run, "proposals", columns=["id", "error"]).to_pylist()
    missing = [r["id"] for r in proposed if not r["error"] and r["id"] not in seen and (ids is None or r["id"] in ids)]
    if missing:
        raise shards.ShardError(
            f"{run / STAGE} is not finished: {len(missing)} images have no embedding, the first is {missing[0]}; run "
            "the same scoring command again"
        )


def _parts(run: Path, image: str) -> str:
    return shards.holders(run, STAGE, image)
