"""Maps and similarity search of a scored pool, by FiftyOne's own brain, from the embeddings that the scoring stored."""

from typing import Any

import fiftyone as fo
import numpy as np

from gsal_fo.config import MOST_SEED
from gsal_fo.fo import rounds, runs
from gsal_fo.fo.dataset import filtered, pool, slices
from gsal_fo.run_folder import embeddings
from gsal_fo.settings import check_number

IMAGES, PROPOSALS = "images", "proposals"
LIMIT = 20_000  # images: UMAP of 100,000 crops takes minutes and a few GiB
FEWEST = 5  # points: UMAP cannot start with fewer
METHODS = ("umap", "pca")


def visualize(
    samples: Any, *, run_key: str | None = None, method: str = "umap", limit: int = LIMIT, seed: int = 0
) -> list[str]:
    """Lay out images and proposals in two dimensions and make both searchable by similarity; no model is run.

    The App's Embeddings panel shows ``gsal_map_images`` and ``gsal_map_proposals``, colored by any field (concept,
    score, round) and with a lasso; "sort by similarity" knows ``gsal_similar_images`` and ``gsal_similar_proposals``.
    FiftyOne ranks by the cosine of the vectors less their mean. Called again, it replaces them.

    Args:
        samples: dataset or view of a scored pool.
        run_key: which scoring; None is the latest.
        method: "umap" or "pca".
        limit: at most so many images, the best ranked.
        seed: of UMAP's layout.

    Returns:
        The four brain keys.

    Raises:
        ValueError: no scoring, no stored embeddings, or fewer than 5 images with some.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    check_number("limit", limit, whole=True, low=FEWEST)
    check_number("seed", seed, whole=True, low=0, high=MOST_SEED)
    dataset, samples = pool.check_images(samples)
    folder = rounds.run_folder(runs.scoring_of(samples, run_key).config)
    filtered.refuse(samples, "gsal_proposals", what="field", why="stored embeddings are those of all proposals")
    view = filtered.all_fields(samples).exists("gsal_proposals")
    if len(view) > limit:
        view = view.sort_by("gsal_score", reverse=True).limit(limit)
    ids, boxes = view.values(["id", "gsal_proposals.detections.id"])
    stored = embeddings.read(folder, set(ids))
    row_of = {i: row for row, i in enumerate(stored.ids)}
    # Where a person has deleted proposals in the App, the rest cannot be told apart by position and are left out.
    whole = [i for i, own in zip(ids, boxes, strict=True) if i in row_of and len(own) == len(stored.crops[row_of[i]])]
    if len(whole) < FEWEST:
        raise ValueError(f"a map needs at least {FEWEST} images with embeddings; found {len(whole)} in the view")
    rows = [row_of[i] for i in whole]
    shown = slices.flat(dataset).select(whole, ordered=True)
    image = stored.image[rows].astype(np.float32)
    crops = {i: stored.crops[row].astype(np.float32) for i, row in zip(whole, rows, strict=True)}
    return [
        *_both(dataset, shown, IMAGES, None, image, method, seed),
        *_both(dataset, shown, PROPOSALS, "gsal_proposals", crops, method, seed),
    ]


def _both(
    dataset: fo.Dataset, shown: Any, what: str, patches: str | None, vectors: Any, method: str, seed: int
) -> tuple[str, str]:
    """A similarity index and a map over it, so that the vectors are stored once."""
    import fiftyone.brain as fob

    similar, drawn = f"gsal_similar_{what}", f"gsal_map_{what}"
    for key in (similar, drawn):
        if dataset.has_brain_run(key):
            dataset.delete_brain_run(key)
    fob.compute_similarity(
        shown, patches_field=patches, embeddings=vectors, brain_key=similar, backend="sklearn", metric="cosine"
    )
    fob.compute_visualization(
        shown, patches_field=patches, similarity_index=similar, brain_key=drawn, method=method, seed=seed
    )
    return drawn, similar
