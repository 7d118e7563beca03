"""In which order a fit takes its images: set by their content and the seed, and kept until the fit is done."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gsal_fo.fit_settings import FitSettings
from gsal_fo.images import ImageError, file_digest, read_image
from gsal_fo.run_folder.shards import ShardError, read_manifest, table_rows, write_table
from lightning_modules.progress import Reporter

MOST = 20_000  # images; a fit sees no more examples than this in hours of CPU
DISK_BYTES = 8 * 2**30  # of latents: 8 000 images at 128 x 128 cells of 32 channels
READERS = 8  # threads that read files for their digests: they wait for disks, not for each other
FILE = "order.parquet"


@dataclass(frozen=True)
class Source:
    """An image of the pool and the digest of its file."""

    id: str
    filepath: str
    digest: str

    def read(self) -> np.ndarray:
        """Its pixels (H, W, 3) uint8.

        Raises:
            ImageError: it cannot be decoded.
            ShardError: it is another file than when the fit began.
        """
        pixels, digest = read_image(self.filepath)
        if digest != self.digest:
            raise ShardError(
                f"{self.filepath} has changed since this fit began; fit again into a new folder, or put it back"
            )
        return pixels


def sources(run: Path, settings: FitSettings, reporter: Reporter) -> list[Source]:
    """The images that are fitted on: those of the manifest sorted by the digests of their files, then shuffled by the
    seed, since the axes come from the first images and every tenth is held out. Files that cannot be read are reported.

    The order is written down at the first call and read at the next: an interrupted fit goes on in it.
    """
    if not (run / FILE).is_file():
        for stale in ("latents", "checkpoints"):  # begun by a version that kept no order
            shutil.rmtree(run / stale, ignore_errors=True)
        found = _ordered(run, settings, reporter)
        schema = pa.schema([(field.name, pa.string()) for field in fields(Source)])
        write_table(pa.Table.from_pylist([asdict(source) for source in found], schema=schema), run / FILE)
    return [Source(**row) for row in pq.read_table(run / FILE).to_pylist()]


def _ordered(run: Path, settings: FitSettings, reporter: Reporter) -> list[Source]:
    rows = list(table_rows(read_manifest(run, ["id", "filepath"])))
    digests: list[str | ImageError] = []
    with ThreadPoolExecutor(READERS) as readers:
        for digest in readers.map(_digest, [row["filepath"] for row in rows]):
            digests.append(digest)
            reporter.progress("files", len(digests), len(rows))
    found = []
    for row, digest in zip(rows, digests, strict=True):
        if isinstance(digest, ImageError):
            reporter.failed(row["id"], digest.reason)
        else:
            found.append(Source(row["id"], row["filepath"], digest))
    found.sort(key=lambda source: source.digest)
    order = np.random.default_rng([settings.seed, 0]).permutation(len(found))
    most = min(MOST, DISK_BYTES // image_bytes(settings))
    if len(found) > most:
        reporter.note(f"fitting on {most} of {len(found)} images, drawn by seed {settings.seed}")
    return [found[i] for i in order[:most]]


def _digest(path: str) -> str | ImageError:
    try:
        return file_digest(path)
    except ImageError as error:
        return error


def image_bytes(settings: FitSettings) -> int:
    """What an image's latents take on disk, about."""
    if settings.space == "features":
        return 2 * settings.components * (settings.side // settings.stride) ** 2
    return 2 * 3 * settings.side**2 if settings.space == "pixels" else 2 * settings.side**2
