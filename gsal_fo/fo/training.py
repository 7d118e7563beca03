"""Training a detector on a dataset's labels and fitting a diffusion model on its images, each by a worker process."""

import hashlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsal_fo import config as cfg
from gsal_fo.fit_settings import FitSettings
from gsal_fo.fo import progress
from gsal_fo.fo.dataset import filtered, folders, pool
from gsal_fo.run_folder import shards
from gsal_fo.worker.process import check_processes, run_worker

WORKER, FIT_WORKER = "lightning_modules.train", "lightning_modules.fit_diffusion"


def train(
    samples: Any,
    *,
    label_field: str = "ground_truth",
    labeled_tag: str | None = None,
    out: str | Path | None = None,
    config: cfg.TrainConfig | None = None,
    run_dir: str | Path | None = None,
    processes: int = 1,
    on_event: progress.OnEvent | None = None,
) -> Path:
    """Train a detector on the labeled images of a dataset or view.

    Args:
        samples: dataset or view; its images with labels in ``label_field``, or with ``labeled_tag``, are trained on.
        label_field: Detections field with the labels.
        labeled_tag: images with this tag count as labeled, too.
        out: the checkpoint folder, new or empty, by default ``$GSAL_HOME/detectors/<dataset>/<digest>``.
        config: constants of the training.
        run_dir: where the worker keeps its files, by default beside ``out``.
        processes: worker processes on this machine, which share each batch. On a CPU one is enough: its threads take an
            image each, and neither number changes the detector.
        on_event: receives the worker's events; None shows a bar on a terminal.

    Returns:
        The checkpoint folder, for ``score(..., detector=...)``. The same call returns at once what it made before.

    Raises:
        ValueError: no labeled box, or settings that cannot be used.
        WorkerError: the worker failed or was killed; the same call goes on where it stopped.
    """
    config = config or cfg.TrainConfig()
    check_processes(processes)
    found = pool.read(samples, label_field=label_field, labeled_tag=labeled_tag, need_pool=False)
    if not any(found.trainable.labels or []):
        raise ValueError(
            "; ".join([f'no image has a labeled box in "{label_field}", so there is nothing to train on', *found.notes])
        )
    mark = _identity(found, config)
    target = _absolute(out) if out else folders.home() / "detectors" / found.dataset.slug / mark
    folder = _absolute(run_dir) if run_dir else target.with_name(f".{target.name}.run")
    with folders.lock(folder) as lock:
        progress.consume(_told(found, train_events(found, config, folder, target, processes, lock)), on_event)
    return target


def _told(found: pool.Pool, events: progress.Events) -> progress.Events:
    """The events, after what was noted when the images were read."""
    yield from ({"event": "note", "message": text} for text in found.notes)
    yield from events


def _identity(found: pool.Pool, config: cfg.TrainConfig) -> str:
    """A digest of everything that a training depends on."""
    taught = found.trainable
    return cfg.digest(config, taught.ids, taught.boxes, taught.labels)


def train_events(
    found: pool.Pool, config: cfg.TrainConfig, folder: Path, out: Path, processes: int, lock: int
) -> progress.Events:
    """Train into the checkpoint folder ``out``; ``folder``, locked by the caller, is the worker's; yields events."""
    labeled = pool.Pool(found.dataset, pool.Images(), found.trainable, found.whole, [])
    identity = _identity(found, config)
    content = {"kind": "train", "config": cfg.to_dict(config), "identity": identity, "out": str(out)}
    _claim(folder, content, out)
    pool.write_manifest(labeled, folder / "manifest.parquet")
    yield from _run(WORKER, folder, processes, lock)


def fit(
    samples: Any,
    *,
    out: str | Path,
    run_dir: str | Path | None = None,
    processes: int = 1,
    on_event: progress.OnEvent | None = None,
    **settings: Any,
) -> Path:
    """Fit a small diffusion model on all images of a dataset or view; no label is read.

    Args:
        samples: dataset or view.
        out: folder of the model, new or empty.
        run_dir: where latents and checkpoints lie until it is written, by default beside ``out``.
        processes: worker processes on this machine, one per GPU; they share each batch. On a CPU one is enough: its
            threads use all cores (as many as a batch has eights), and neither number changes the model.
        on_event: receives the worker's events; None shows a bar on a terminal.
        settings: fields of ``gsal_fo.fit_settings.FitSettings``, such as ``encoder="mobilenet_v2:default"``,
            ``space="features"``, ``size="small"``, ``minutes=10``.

    Returns:
        The model folder, for ``score(..., diffusion=...)``. It also holds the held-out loss over time (``curve.csv``,
        ``curve.png``) and held-out images beside what the model makes of them (``samples.png``). The same call returns
        at once what it made before.

    Raises:
        ValueError: settings that cannot be used.
        WorkerError: the worker failed or was killed; the same call goes on where it stopped.
    """
    chosen = cfg.from_dict(FitSettings, settings)
    check_processes(processes)
    chosen = replace(chosen, encoder=_absolute_model(chosen.encoder), vae=_absolute_model(chosen.vae))
    dataset = pool.check_samples(samples)
    ids = filtered.ids_of(samples)
    everything = pool.Pool(dataset, pool.images(dataset, ids, None), pool.Images(), False, [])
    target = _absolute(out)
    folder = _absolute(run_dir) if run_dir else target.with_name(f".{target.name}.run")
    identity = cfg.digest(chosen, hashlib.sha256("\n".join(ids).encode()).hexdigest())
    content = {"kind": "fit", "config": cfg.to_dict(chosen), "identity": identity, "out": str(target)}
    with folders.lock(folder) as lock:
        _claim(folder, content, target)
        pool.write_manifest(everything, folder / "manifest.parquet")
        progress.consume(_run(FIT_WORKER, folder, processes, lock), on_event)
    return target


def made_of(checkpoint: str | None) -> dict[str, Any] | None:
    """What a run's record says of its detector: the digest of the images and labels that it was trained on, and where
    (threads, processes, processor, versions). The same of both, the same settings and seed make the same weights.

    None without a detector; a folder of version 0.1 holds neither.
    """
    if checkpoint is None:
        return None
    facts = shards.read_json(Path(checkpoint) / "detector.json")
    return {key: facts.get(key) for key in ("content", "images", "boxes", "final_loss", "environment")}


def _absolute_model(name: Any) -> Any:
    """A model's name that means the same from any working folder: a path in it is made absolute."""
    kind, colon, path = str(name).rpartition(":")
    if name is None or path in ("embedded", "default", "none") or not (found := Path(path).expanduser()).exists():
        return name
    return f"{kind}{colon}{found.resolve()}"


def _claim(folder: Path, content: dict[str, Any], out: Path) -> None:
    """Take the worker's folder; a new run must not find its output made: that is another training's."""
    if folders.identity(folder) is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} holds files that this call did not make; give a new or empty folder")
    folders.claim(folder, content, again="use another out or run_dir, or delete that folder")


def _run(module: str, folder: Path, processes: int, lock: int) -> progress.Events:
    args = ["--run-dir", str(folder)]
    worker = run_worker(module, args, processes=processes, log=folder / "worker.log", keep_open=(lock,))
    with closing(worker):
        yield from (e for e in worker if e["event"] not in ("done", "error"))


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()
