"""Images and crops for the workers: chunks of table rows, fixed-size tensors.

One item of a dataset here is a chunk of rows, decoded; a bad image becomes a reason in its row and never stops a run.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as tvf

from gsal_fo.boxes import crop_windows
from gsal_fo.images import USUAL_PIXELS, ImageError
from gsal_fo.run_folder.shards import read_part, table_rows
from gsal_fo.run_folder.tables import rows


def halved(pixels: np.ndarray, most: int = USUAL_PIXELS) -> np.ndarray:
    """The image, halved by means of 2 x 2 pixels until it has at most ``most``.

    A detector shrinks its images to about a megapixel: of a scan it needs no more, and a batch of whole ones would not
    fit into memory.
    """
    while pixels.shape[0] * pixels.shape[1] > most:
        pixels = np.array(Image.fromarray(pixels).reduce(2))
    return pixels


def resized(pixels: np.ndarray, size: int) -> Tensor:
    """(3, size, size) uint8: the whole image squeezed to a square, so that relative boxes and map cells still fit."""
    return _square(torch.from_numpy(pixels).permute(2, 0, 1), size)


def crops(pixels: np.ndarray, boxes: np.ndarray, *, pad: float, size: int) -> Tensor:
    """Boxes (N, 4) ``xywh_rel`` cut out with ``pad`` of their size around them: (N, 3, size, size) uint8.

    A crop holds at least one pixel, whatever the box.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    height, width = pixels.shape[:2]
    out = torch.empty((len(boxes), 3, size, size), dtype=torch.uint8)
    for i, (left, top, right, bottom) in enumerate(crop_windows(boxes, width, height, pad=pad)):
        out[i] = _square(image[:, top:bottom, left:right], size)
    return out


def _square(image: Tensor, size: int) -> Tensor:
    # Antialiased bilinear keeps a hairline visible where nearest would drop it.
    return tvf.resize_image(image, [size, size], antialias=True)


def to_float(images: Tensor) -> Tensor:
    """uint8 (..., H, W) to float32 in [0, 1]."""
    return images.float() / 255


Loader = Callable[[dict[str, Any]], dict[str, Any]]


class RowChunks(Dataset):
    """Chunks of Parquet rows, loaded; what lies in memory is file names, ids to skip and one file at a time.

    ``files`` are read in order and cut into chunks of ``size`` rows; of these this process takes every ``world``-th
    from ``rank`` on. ``wanted`` filters rows (by their plain values), ``load`` adds what the model needs. A row whose
    load raises ImageError keeps its values and gets ``error``.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        size: int,
        load: Loader,
        wanted: Callable[[dict[str, Any]], bool],
        columns: Sequence[str] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.load, self.wanted, self.columns = load, wanted, list(columns) if columns else None
        spans = [(path, a, min(a + size, n)) for path in files for n in [rows(path)] for a in range(0, n, size)]
        self.spans = spans[rank::world]
        self._open: tuple[Path, pa.Table] | None = None

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        path, start, stop = self.spans[index]
        if self._open is None or self._open[0] != path:
            self._open = (path, read_part(path, self.columns))
        return [self._loaded(row) for row in table_rows(self._open[1].slice(start, stop - start)) if self.wanted(row)]

    def _loaded(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {**row, **self.load(row)}
        except ImageError as error:
            return {**row, "error": error.reason}


def chunk_loader(dataset: RowChunks, *, workers: int) -> DataLoader:
    """A loader whose batches are the dataset's chunks. Workers are forked from a server that has imported the libraries
    once and runs nothing else: spawned, each would import them again, in every stage; forked from here, they would copy
    locks of running threads."""
    more: dict[str, Any] = {}
    if workers:
        multiprocessing.set_forkserver_preload(["lightning_modules.score"])
        more = {"multiprocessing_context": "forkserver", "prefetch_factor": 2}
    return DataLoader(dataset, batch_size=None, shuffle=False, num_workers=workers, collate_fn=_as_it_is, **more)


def _as_it_is(chunk: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return chunk


def groups(items: Iterable[tuple[Any, Tensor]], size: int) -> Iterator[tuple[list[Any], Tensor]]:
    """(key, tensor) pairs gathered into batches of equal shape, at most ``size`` each; order within a shape is kept."""
    waiting: dict[torch.Size, list[tuple[Any, Tensor]]] = {}
    for key, tensor in items:
        same = waiting.setdefault(tensor.shape, [])
        same.append((key, tensor))
        if len(same) == size:
            del waiting[tensor.shape]
            yield _stacked(same)
    for same in waiting.values():
        yield _stacked(same)


def _stacked(pairs: Sequence[tuple[Any, Tensor]]) -> tuple[list[Any], Tensor]:
    return [k for k, _ in pairs], torch.stack([t for _, t in pairs])


def is_labeled(row: Mapping[str, Any]) -> bool:
    """Whether a manifest row is of the labeled set."""
    return row["role"] == "labeled"
