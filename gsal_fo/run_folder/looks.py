"""What labels that the graph lacks look like: the concept of each labeled box's own crop, kept in the run folder.

Coverage counts such a label under that concept (METHOD.md section 1). The scoring looks at the crops of the images that
are labeled then; those of labels that come later are looked at once, and their parts are added.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.run_folder import shards, tables

STAGE = "looks"
FAILED = -3  # the image cannot be read, so nobody knows; the other numbers are those of the assignment
Box = tuple[float, ...]


def key(box: Iterable[float]) -> Box:
    """A box as it is told apart from others: in the precision of the run folder."""
    return tuple(np.asarray(list(box), dtype=np.float32).tolist())


def row(sample_id: str, boxes: np.ndarray, fine: Iterable[int], error: str | None = None) -> dict[str, Any]:
    """One image's boxes (n, 4) ``xywh_rel`` and the assigned index of each."""
    drawn = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    return {"id": sample_id, "error": error, "boxes": drawn.ravel(), "fine": [int(f) for f in fine]}


def write(run: Path, rows: Sequence[Mapping[str, Any]], *, digest: str) -> None:
    """Add rows to what is there."""
    if rows:
        shards.write_part(run, STAGE, rows, digest=digest)


def clear(run: Path) -> None:
    """Remove what is there: another assignment follows."""
    for path in (run / STAGE).glob("part-*.parquet"):
        path.unlink()


def read(run: Path) -> dict[tuple[str, Box], int]:
    """(sample id, box) -> assigned index into ``ConceptGraph.fine``, -1 background, -2 unmatched, -3 unreadable."""
    out: dict[tuple[str, Box], int] = {}
    for found in shards.iter_rows(run, STAGE):
        for box, fine in zip(found["boxes"].reshape(-1, 4), found["fine"], strict=True):
            out[found["id"], key(box)] = int(fine)
    return out


def digest_of(run: Path) -> str:
    """The digest of the run's assignment, which every part of the looks carries, too."""
    first = shards.parts(run, "assignment")[0]
    return str(tables.metadata(first).get("gsal_digest", ""))
