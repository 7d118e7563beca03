"""Run folders for tests: written through ``gsal_fo.run_folder.shards``, as the worker does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.run_folder import shards

STAGES = ("proposals", "difficulty", "assignment")
GRAPH = {
    "name": "six",
    "concepts": {
        "crack": {"coarse": "surface", "abstract": ["dark", "linear"]},
        "dent": {"coarse": "surface", "abstract": ["round"]},
        "void": {"coarse": "subsurface", "abstract": ["dark", "round"]},
    },
}


def graph() -> ConceptGraph:
    """crack 0 and dent 1 on the surface, void 2 below it; attributes dark, linear, round."""
    return ConceptGraph.from_dict(GRAPH, source="six.yaml")


def image(sample_id: str, fine: list[int], *, rng: np.random.Generator | None = None, **changes: Any) -> dict[str, Any]:
    """All that the stages know of one image; ``changes`` replace single columns."""
    rng = rng or np.random.default_rng(len(sample_id) + sum(sample_id.encode()))
    k = len(fine)
    row = {
        "id": sample_id,
        "error": None,
        "content": f"file {sample_id}",
        "role": "pool",
        "width": 100,
        "height": 50,
        "boxes": rng.random((k, 4)).ravel().tolist(),
        "scores": rng.random(k).tolist(),
        "posterior": [],
        "source": "field",
        "image_contrast": float(rng.random()),
        "contrast": rng.random(k).tolist(),
        "image_error": float(rng.random()),
        "image_variance": float(rng.random()),
        "proposal_error": rng.random(k).tolist(),
        "proposal_variance": rng.random(k).tolist(),
        "fine": fine,
        "prob": rng.random(k).tolist(),
        "margin": rng.random(k).tolist(),
    }
    return row | changes


def write_run(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    manifest: list[str] | None = None,
    part: int = 3,
    stages: Sequence[str] = STAGES,
) -> Path:
    """A run folder whose parts hold ``part`` images each; ``manifest``: ids in order, the rows' own by default.

    It carries no run's name, so that a test may replace files of it by what is not checked."""
    ids = manifest if manifest is not None else [row["id"] for row in rows]
    table = pa.Table.from_pylist(
        [{"id": i, "filepath": f"{i}.png", "role": "pool"} for i in ids], schema=shards.MANIFEST
    )
    shards.write_table(table, folder / "manifest.parquet")
    for stage in stages:
        for start in range(0, len(rows), part):
            shards.write_part(folder, stage, rows[start : start + part], digest="d" * 16)
    return folder
