"""Statistics of a run folder that its pool table does not hold: read when a strategy asks for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.acquisition.base import Posterior, Statistic, StatisticMissing
from gsal_fo.run_folder import shards
from gsal_fo.run_folder.pool_columns import PoolTable


class StoredStatistics:
    """Reads what the stages left, in the rows and positions of a table."""

    def __init__(self, run: Path, table: PoolTable) -> None:
        self.run, self.table = run, table
        self._readers: dict[Statistic, Callable[[], Any]] = {
            Statistic.POSTERIOR: self._posterior,
            Statistic.IMAGE_EMBEDDINGS: lambda: self._embeddings()[0],
            Statistic.CROP_EMBEDDINGS: lambda: self._embeddings()[1],
            Statistic.LABELED_EMBEDDINGS: lambda: self._embeddings()[2],
        }
        self._vectors: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def __call__(self, statistic: Statistic) -> Any:
        """The columns; raises StatisticMissing where the stage left none."""
        if statistic not in self._readers:
            raise missing(statistic)
        return self._readers[statistic]()

    def _posterior(self) -> Posterior:
        classes = self._classes()
        places = self._places()
        out = np.full((len(self.table.boxes), len(classes) + 1), np.nan, dtype=np.float32)
        for row in shards.iter_rows(self.run, "proposals"):
            if row["id"] in places and row["posterior"] is not None and len(row["posterior"]):
                start, stop = places[row["id"]]
                out[start:stop] = row["posterior"].reshape(stop - start, -1)
        if not np.isfinite(out).any():
            raise missing(Statistic.POSTERIOR)
        return Posterior(out, classes)

    def _classes(self) -> tuple[str, ...]:
        """The detector's classes, in the order of its posterior."""
        path = self.run / "result.json"
        found = shards.read_json(path).get("classes") if path.is_file() else None
        if not found:
            raise missing(Statistic.POSTERIOR)
        return tuple(found)

    def _embeddings(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (N, D) and crop embeddings (P, D) float16 of the table, image embeddings of labeled images (L, D)."""
        if self._vectors is None:
            places, labeled = self._places(), []
            row_of = {str(i): row for row, i in enumerate(self.table.ids)}
            image: np.ndarray | None = None
            crops = np.empty((0, 0), dtype=np.float16)
            for row in shards.iter_rows(self.run, "concepts"):
                if row["error"] or row["image"] is None or not len(row["image"]):
                    continue
                if image is None:
                    image = np.full((len(self.table.ids), len(row["image"])), np.nan, dtype=np.float16)
                    crops = np.full((len(self.table.boxes), len(row["image"])), np.nan, dtype=np.float16)
                if row["id"] in row_of:
                    image[row_of[row["id"]]] = row["image"]
                    start, stop = places[row["id"]]
                    crops[start:stop] = row["embeddings"].reshape(stop - start, -1)
                elif row["role"] == "labeled":
                    labeled.append(row["image"])
            if image is None:
                raise missing(Statistic.IMAGE_EMBEDDINGS)
            seen = np.stack(labeled) if labeled else np.empty((0, image.shape[1]), dtype=np.float16)
            self._vectors = image, crops, seen
        return self._vectors

    def _places(self) -> dict[str, tuple[int, int]]:
        starts = np.searchsorted(self.table.proposal_image, np.arange(len(self.table.ids) + 1)).tolist()
        return {str(i): (starts[row], starts[row + 1]) for row, i in enumerate(self.table.ids)}


def missing(statistic: Statistic) -> StatisticMissing:
    """The sentence about a statistic that no worker has left."""
    what = statistic.replace("_", " ")
    return StatisticMissing(
        f"this scoring holds no {what}; score again with `gsal score --for STRATEGY`, which makes it"
    )
