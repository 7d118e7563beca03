"""Statistics of a run folder that its pool table does not hold: read when a strategy asks for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gsal_fo.acquisition.base import Posterior, Statistic, StatisticMissing
from gsal_fo.run_folder import embeddings, shards
from gsal_fo.run_folder.pool_columns import PoolTable
from gsal_fo.run_folder.tables import AGAIN


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
        found = shards.run_facts(self.run, path.name).get("classes") if path.is_file() else None
        if not found:
            raise missing(Statistic.POSTERIOR)
        return tuple(found)

    def _embeddings(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (N, D) and crop embeddings (P, D) float16 of the table, image embeddings of labeled images (L, D)."""
        if self._vectors is None:
            if not shards.parts(self.run, "concepts"):
                raise missing(Statistic.IMAGE_EMBEDDINGS)
            places, labeled = self._places(), []
            row_of = {str(i): row for row, i in enumerate(self.table.ids)}
            image = crops = np.empty((0, 1), dtype=np.float16)
            for found in embeddings.each(self.run):
                if image.shape[1] != (width := len(found.image)):
                    image = np.full((len(self.table.ids), width), np.nan, dtype=np.float16)
                    crops = np.full((len(self.table.boxes), width), np.nan, dtype=np.float16)
                if found.labeled:
                    labeled.append(found.image)
                elif found.id in row_of:
                    start, stop = places[found.id]
                    image[row_of[found.id]] = found.image
                    crops[start:stop] = self._fitting(found.id, found.crops, stop - start)
            seen = np.stack(labeled) if labeled else np.empty((0, image.shape[1]), dtype=np.float16)
            self._vectors = image, crops, seen
        return self._vectors

    def _fitting(self, image: str, crops: np.ndarray, count: int) -> np.ndarray:
        """An image's crop embeddings; raises ShardError where they are not those of its proposals."""
        if len(crops) != count:
            parts = shards.holders(self.run, "concepts", image)
            raise shards.ShardError(f"{parts}: image {image} has other crops than proposals; {AGAIN}")
        return crops

    def _places(self) -> dict[str, tuple[int, int]]:
        starts = np.searchsorted(self.table.proposal_image, np.arange(len(self.table.ids) + 1)).tolist()
        return {str(i): (starts[row], starts[row + 1]) for row, i in enumerate(self.table.ids)}


def missing(statistic: Statistic) -> StatisticMissing:
    """The sentence about a statistic that no worker has left."""
    what = statistic.replace("_", " ")
    return StatisticMissing(
        f"this scoring holds no {what}; score again with `gsal score --for STRATEGY`, which makes it"
    )
