"""``assign="auto"`` in the worker: embeds the labeled crops by both candidates and settles which of them assigns."""

from dataclasses import replace
from typing import Any

import numpy as np

from gsal_fo.concepts.auto_assign import Choice, choose, cold_start, trial_images
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import background_embeddings, text_embeddings
from gsal_fo.config import ConceptConfig, digest
from gsal_fo.run_folder import shards
from lightning_modules.nets import Clip, Encoder, load_clip, load_encoder
from lightning_modules.stages.embeddings import CropEmbedder, CropLoader


class InTrial:
    """Manifest rows of the labeled images that take part."""

    def __init__(self, ids: set[str]) -> None:
        self.ids = ids

    def __call__(self, row: dict[str, Any]) -> bool:
        return row["role"] == "labeled" and row["id"] in self.ids


def prototype_encoder(config: ConceptConfig) -> Encoder | Clip:
    """What embeds crops for prototypes: the encoder that is named, or else the CLIP model's image tower."""
    return load_encoder(config.encoder) if config.encoder else load_clip(config.clip, config.pretrained)


def decide(run: Any, graph: ConceptGraph) -> Choice | None:
    """Settle ``run.config.concepts.assign`` where it is "auto", and tell why; None where it is not.

    ``run``: the ``lightning_modules.stages.Run``. Every rank reads the same stored embeddings and comes to the same
    choice.
    """
    config = run.config.concepts
    if config.assign != "auto":
        return None
    ids = trial_images(run.folder, graph)
    if not ids:
        choice = cold_start(graph)
    else:
        clip = load_clip(config.clip, config.pretrained)
        text, background = text_embeddings(graph, clip.encode_text), background_embeddings(graph, clip.encode_text)
        clip_crops = encoder_crops = _embedded(run, "trial_clip", clip, ids)
        if config.encoder:
            encoder_crops = _embedded(run, "trial_encoder", prototype_encoder(config), ids)
        table = shards.read_manifest(run.folder, ["id", "labels"])
        labels = {
            i: names for i, names in zip(*(table[c].to_pylist() for c in ("id", "labels")), strict=True) if i in ids
        }
        choice = choose(graph, labels, clip_crops, encoder_crops, text, background)
    run.reporter.note(choice.why)
    run.config = replace(run.config, concepts=replace(config, assign=choice.assign))
    return choice


def _embedded(run: Any, stage: str, encoder: Encoder | Clip, ids: set[str]) -> dict[str, np.ndarray]:
    """image id -> crops (n, D) of its labeled boxes; a broken image has none."""
    config = run.config.concepts
    mark = digest(encoder.digest, config.pad)
    module = CropEmbedder(encoder, batch_size=config.batch_size)
    loader = CropLoader(size=encoder.input_size, pad=config.pad)
    run.predict("trial", stage, module, loader, [run.manifest], digest=mark, wanted=InTrial(ids))
    rows = shards.iter_rows(run.folder, stage, digest=mark)
    return {
        r["id"]: r["embeddings"].reshape(-1, r["dim"]).astype(np.float32)
        for r in rows
        if not r["error"] and r["id"] in ids
    }
