"""Latents of a pool, computed once and kept in a file: memory does not grow with the pool, and a killed fit goes on."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gsal_fo.fit_settings import FitSettings
from gsal_fo.run_folder.shards import ShardError, read_json, write_json
from lightning_modules.fit_diffusion.spaces import FEWEST, Coder, choose_axes, project, raw_latents
from lightning_modules.passes import Crew

BATCH = 16
PASS = 4  # images that go through the encoder together on a CPU: a pass of a thread
AXES_IMAGES = 500  # axes come from the first so many images: 128 000 cells at 16 x 16
AXES_BYTES = 2**30  # and from no more of their raw features than this
HELD_OUT = 10  # every tenth image is held out
PICTURES = 16  # held-out images whose picture is kept for the sample sheet
RAW, AXES, PICTURE_FILE, STATE = "latents.f16", "axes.safetensors", "pictures.npy", "state.json"


@dataclass
class Latents:
    """``z`` (N, C, h, w) float16, in a file; ``axes`` of the space; ``pictures`` (P, 3, S, S) uint8 of the first
    held-out images; ``held_out`` and ``train``: rows of ``z``. ``keep`` holds a temporary folder until it is gone."""

    z: np.ndarray
    axes: dict[str, Tensor]
    pictures: np.ndarray
    keep: Any = None

    @property
    def held_out(self) -> np.ndarray:
        """Rows that are never trained on."""
        return np.arange(0, len(self.z), HELD_OUT)

    @property
    def train(self) -> np.ndarray:
        """Rows that are trained on."""
        return np.setdiff1d(np.arange(len(self.z)), self.held_out)

    def read(self, rows: np.ndarray) -> Tensor:
        """Latents (len(rows), C, h, w) float32."""
        return torch.from_numpy(self.z[rows].astype(np.float32))


class LatentFile:
    """A folder with latents so far, and how many images of the list are behind them."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.seen, self.rows, self.shape, self.complete = 0, 0, (0, 0, 0), False
        self.axes: dict[str, Tensor] | None = None
        self.pictures: list[np.ndarray] = []
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).is_file():
            state = read_json(folder / STATE)
            self.seen, self.rows, self.complete = state["seen"], state["rows"], state["complete"]
            self.shape = tuple(state["shape"])
            self.axes = load_file(folder / AXES)
            self.pictures = list(np.load(folder / PICTURE_FILE, allow_pickle=False))
            if not read_only:  # what came after the last state is not counted
                with (folder / RAW).open("r+b") as f:
                    f.truncate(self.rows * 2 * int(np.prod(self.shape)))

    @staticmethod
    def is_complete(folder: Path) -> bool:
        """Whether a folder holds the latents of the whole list."""
        return (folder / STATE).is_file() and bool(read_json(folder / STATE)["complete"])

    def start(self, axes: dict[str, Tensor]) -> None:
        """Fix the axes; nothing is stored before."""
        self.axes = axes
        save_file(axes, self.folder / AXES)
        (self.folder / RAW).write_bytes(b"")

    def append(self, raw: Tensor, images: list[Tensor], seen: int) -> None:
        """Project and store raw latents; ``seen``: images of the list that are dealt with after this."""
        assert self.axes is not None
        z = project(raw, self.axes).half().numpy()
        try:
            with (self.folder / RAW).open("ab") as f:
                f.write(z.tobytes())
            for i, image in enumerate(images):
                if (self.rows + i) % HELD_OUT == 0 and len(self.pictures) < PICTURES:
                    self.pictures.append(image.numpy())
                    np.save(self.folder / PICTURE_FILE, np.stack(self.pictures))
        except OSError as error:
            reason = error.strerror or error
            raise ShardError(f"cannot write latents to {self.folder}: {reason}; free space and run again") from error
        self.rows, self.seen, self.shape = self.rows + len(z), seen, z.shape[1:]
        self._save()

    def finish(self) -> Latents:
        """All images are dealt with: the latents, mapped from the file. Raises ValueError where they are too few."""
        if self.rows < FEWEST:
            if not self.rows:
                raise ValueError("no image could be read, so there is nothing to fit on; check the paths")
            raise ValueError(f"a fit needs at least {FEWEST} readable images; got {self.rows}")
        if not self.complete:
            self.complete = True
            self._save()
        z = np.memmap(self.folder / RAW, dtype=np.float16, mode="r", shape=(self.rows, *self.shape))
        assert self.axes is not None
        return Latents(z, self.axes, np.stack(self.pictures))

    def _save(self) -> None:
        state = {"seen": self.seen, "rows": self.rows, "shape": list(self.shape), "complete": self.complete}
        write_json(state, self.folder / STATE)


def collect(
    images: Iterable[Tensor | None],
    coder: Coder,
    settings: FitSettings,
    folder: Path | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> Latents:
    """Latents of images (3, S, S) uint8 (None: one that cannot be read), S being ``settings.input_size``.

    ``folder`` keeps them: after an interruption hand in the images from ``LatentFile(folder).seen`` on. Without it they
    live in a temporary file as long as the result.

    Axes come from the first images, at most 500 and 1 GiB: give them in random order.

    Raises:
        ValueError: fewer than 8 images.
        ShardError: the folder cannot be written.
    """
    temporary = None if folder else tempfile.TemporaryDirectory(prefix="gsal-fit-")
    store = LatentFile(folder or Path(temporary.name))  # type: ignore[union-attr]
    first: list[tuple[Tensor, list[Tensor], int]] = []  # raw latents, their images, images dealt with
    waiting: list[Tensor] = []
    seen = store.seen

    def start() -> None:
        if store.axes is None and first:
            store.start(choose_axes(torch.cat([raw for raw, _, _ in first]), settings))
            for raw, pictures, done in first:
                store.append(raw, pictures, done)
            first.clear()

    def flush() -> None:
        if not waiting:
            return
        size = BATCH if crew.gpu else PASS
        parts = [waiting[i : i + size] for i in range(0, len(waiting), size)]
        raw = torch.cat(list(crew.map(lambda part: raw_latents(part, coder, settings), parts)))
        if store.axes is not None:
            store.append(raw, list(waiting), seen)
        else:
            first.append((raw, list(waiting), seen))
            enough = sum(len(r) for r, _, _ in first) >= AXES_IMAGES
            if enough or sum(r.nbytes for r, _, _ in first) >= AXES_BYTES:
                start()
        waiting.clear()

    with Crew() as crew:
        for image in images:
            seen += 1
            on_image()
            if image is not None:
                waiting.append(image)
            if len(waiting) == BATCH:
                flush()
        flush()
        start()
    result = store.finish()
    result.keep = temporary
    return result
