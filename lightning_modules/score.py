"""Worker: proposals, difficulty and crop embeddings of a run folder's images. ``python -m lightning_modules.score
--run-dir DIR``.

Stages run one after the other over all ranks; each streams into Parquet parts and, started again, leaves out the ids
that its parts hold. Rank 0 then assigns concepts from the stored embeddings (NumPy, no model).
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gsal_fo.acquisition.screening import finish_run, screen_run
from gsal_fo.concepts.assignment import assign_run, labeled_to_embed
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import ScoreConfig, default_params, digest, from_dict, to_dict
from gsal_fo.run_folder import shards
from lightning_modules import worker
from lightning_modules.cache import StatisticsCache
from lightning_modules.detectors import faster_rcnn as detectors
from lightning_modules.environment import environment
from lightning_modules.nets import load_clip, load_denoiser
from lightning_modules.progress import Reporter
from lightning_modules.stages.difficulty import (
    DifficultyLoader,
    DiffusionScorer,
    resolve,
    scorer_digest,
    statistics_digest,
)
from lightning_modules.stages.embeddings import CropEmbedder, CropLoader
from lightning_modules.stages.run import Run, everyone, is_good, is_pool, summed
from lightning_modules.stages.trial import decide, prototype_encoder


class Chosen:
    """Proposals rows of the images that a screen chose."""

    def __init__(self, ids: set[str]) -> None:
        self.ids = ids

    def __call__(self, row: dict[str, Any]) -> bool:
        return row["id"] in self.ids


class NeedsEmbedding:
    """Rows of both tables whose crops must be embedded: pool rows with proposals, and those labeled rows."""

    def __init__(self, labeled: set[str]) -> None:
        self.labeled = labeled

    def __call__(self, row: dict[str, Any]) -> bool:
        if "role" in row:
            return row["id"] in self.labeled
        return is_good(row)


def detect(run: Run) -> tuple[list[str], str]:
    """Stage 1: proposals. Returns the detector's classes, empty without one, and the digest of its weights."""
    config = run.config.detector
    model, facts = detectors.load(Path(config.checkpoint)) if config.checkpoint else (None, {"classes": []})
    mark = file_digest(Path(config.checkpoint) / "model.safetensors") if config.checkpoint else "none"
    run.predict(
        "detect",
        "proposals",
        detectors.Proposer(model, config),
        detectors.ImageLoader(),
        [run.manifest],
        digest=digest(_no_batch(config), mark, "thinned, digests of files"),  # parts of before have neither
        wanted=is_pool,
    )
    return list(facts["classes"]), mark


class Difficulty:
    """Stage 2: E and V of images and proposals. With a screen, first of images and of proposals pooled from their maps;
    then, once concepts are assigned, of the chosen images' crops."""

    def __init__(self, run: Run) -> None:
        config = run.config.diffusion
        self.run, self.pad = run, run.config.concepts.pad
        self.denoiser = load_denoiser(
            config.model,
            vae=config.vae,
            precision=config.precision,
            channels_last=config.channels_last,
            attention_slicing=config.attention_slicing,
            compiled=config.compile,
        )
        self.settings = resolve(config, self.denoiser)
        if run.config.precision != "32-true":  # Lightning casts the model, or what it computes, itself
            self.settings["trainer_precision"] = run.config.precision
        self.mark = scorer_digest(self.settings, self.denoiser, pad=self.pad)
        folder, scorer = run.config.cache, statistics_digest(self.settings, self.denoiser, pad=self.pad)
        self.cache = StatisticsCache(Path(folder), scorer=scorer, rank=worker.rank()) if folder else None
        self.facts: dict[str, Any] = {"scored": 0, "elements": 0}

    @property
    def screens(self) -> bool:
        """Whether only a share of the images gets crop-level diffusion."""
        return bool(self.settings["screen"] < 1)

    def images(self) -> None:
        """Images, and every proposal where nothing is screened."""
        if self.screens:
            self._predict("screening", gives="images", wanted=is_good)
        else:
            self._predict("difficulty", gives="all", wanted=is_good)

    def crops(self, graph: ConceptGraph) -> None:
        """The crops of the images that the screen chooses; rank 0 then puts all together."""
        run = self.run
        # An image near the top of another ranking is not the one whose crops are worth their price.
        params = default_params(run.config.concepts.assign, self.denoiser.mix)
        screen = screen_run(run.folder, graph, self.settings["screen"], seed=self.settings["seed"], params=params)
        self._predict("crops", gives="crops", wanted=Chosen(screen.ids))
        if worker.rank() == 0:
            self.facts["screening"] = finish_run(run.folder, screen, digest=self.mark)

    def result(self) -> dict[str, Any]:
        """The settings in force and how much went through the model, over all ranks."""
        config = self.run.config.diffusion
        facts: dict[str, Any] = {
            "space": self.denoiser.space,
            "model_digest": self.denoiser.digest,
            "mix": self.denoiser.mix,
        }
        facts |= {"digest": self.mark, "vae": config.vae, "precision": config.precision}
        return {**self.settings, **facts, **self.facts}

    def _predict(self, stage: str, *, gives: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
        s, cache = self.settings, self.cache
        batch = self.run.config.diffusion.batch_size
        module = DiffusionScorer(self.denoiser, s, batch_size=batch, cache=cache, gives=gives)
        loader = DifficultyLoader(
            size=self.denoiser.input_size if gives != "crops" else None,
            crop_size=s["crop_size"] if s["regions"] == "crops" and gives != "images" else None,
            pad=self.pad,
            per_sample=s["noise"] == "per_sample",
            cache=cache,
        )
        files = shards.parts(self.run.folder, "proposals")
        # Which images are chosen changes no crop's values: parts of before hold whatever the share was.
        mark = self.mark if stage == "difficulty" else statistics_digest(s, self.denoiser, pad=self.pad)
        name = "crops" if gives == "crops" else "difficulty"
        self.run.predict(name, stage, module, loader, files, digest=mark, wanted=wanted)
        if cache:
            cache.close()
            for text in cache.tell():
                self.run.reporter.note(text)
            if worker.rank() == 0:
                cache.remove_damaged()
        for key, count in zip(("scored", "elements"), summed(module.scored, module.elements), strict=True):
            self.facts[key] += count


def embed(run: Run, graph: ConceptGraph) -> tuple[Any, str]:
    """Stage 3: embeddings of crops and images, where the assignment needs them. Returns the CLIP model or None, and
    the digest of what embedded."""
    config = run.config.concepts
    clip = load_clip(config.clip, config.pretrained) if config.assign == "clip" else None
    encoder = clip if clip is not None else prototype_encoder(config)
    labeled = labeled_to_embed(run.folder, graph, config.assign)
    mark = digest(_no_batch(config), encoder.digest, "image")  # parts of before hold no embedding of the image
    files = [*shards.parts(run.folder, "proposals"), run.manifest]
    module = CropEmbedder(encoder, batch_size=config.batch_size)
    loader = CropLoader(size=encoder.input_size, pad=config.pad)
    run.predict("concepts", "concepts", module, loader, files, digest=mark, wanted=NeedsEmbedding(labeled))
    return clip, encoder.digest


def assign(run: Run, graph: ConceptGraph, classes: list[str], clip: Any) -> None:
    """Concepts of all proposals, from what is stored."""
    started = time.monotonic()
    encode, scale = (clip.encode_text, clip.logit_scale) if clip is not None else (None, 0.0)
    facts = assign_run(run.folder, graph, run.config.concepts, classes=classes, encode_text=encode, scale=scale)
    for label, counts in facts["unknown"].items():
        run.reporter.note(f'label "{label}" is not in the concept graph: counted by its looks as {counts}')
    for label in facts["uncounted"]:
        run.reporter.note(f'label "{label}" is not in the concept graph and is not counted')
    run.timings["assign"] = time.monotonic() - started
    run.reporter.stage("assign", run.timings["assign"])


def score(folder: Path, run_config: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """All stages of one run folder; returns the facts of the ``done`` event."""
    config = from_dict(ScoreConfig, run_config["config"])
    graph = ConceptGraph.load(config.graph)
    run = Run(folder, config, reporter)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.inference_mode():
        hard = Difficulty(run)  # loaded first: settings that do not fit the model are refused before any work
        choice = decide(run, graph)  # of the assignment, where the settings leave it to us
        config = run.config
        classes, detector = detect(run)
        hard.images()
        clip, encoder = embed(run, graph) if config.concepts.assign != "detector" else (None, "none")
        if worker.rank() == 0:
            assign(run, graph, classes, clip)
        if hard.screens:
            everyone()  # the screen reads what rank 0 has assigned
            hard.crops(graph)
    settings = hard.result()
    failed = 0
    if worker.rank() == 0:
        failed = run.report_failures()
        models = {"detector": detector, "diffusion": settings["model_digest"], "encoder": encoder}
        result = {
            "timings": run.timings,
            "diffusion": settings,
            "classes": classes,
            "config": to_dict(config),
            "models": models,
            "environment": environment(),
            "choice": choice.to_dict() if choice else None,
        }
        shards.write_record(result, folder / "result.json")
    return {"failed": failed, "scored_by_diffusion": settings["scored"]}


def _no_batch(config: Any) -> dict[str, Any]:
    """Settings without those that change no result."""
    return {k: v for k, v in to_dict(config).items() if k not in ("batch_size", "checkpoint")}


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(worker.main("score", score, module="lightning_modules.score"))
