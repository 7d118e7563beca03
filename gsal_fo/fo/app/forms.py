"""What the App's forms need: one table of defaults, settings as fields, problems as sentences before a run."""

import dataclasses
import types
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import fiftyone as fo
import numpy as np

from gsal_fo import config as cfg
from gsal_fo.acquisition import registry
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.fo import runs, visualizing
from gsal_fo.fo.app import live
from gsal_fo.fo.dataset import fields, pool, slices
from gsal_fo.fo.exchange import annotating, exporting, formats, replacing
from gsal_fo.run_folder.pool_columns import rankable

GRAPHS = Path(__file__).resolve().parents[2] / "graphs"
DEFAULTS: dict[str, Any] = {
    "label_field": "ground_truth",
    "detector": None,
    "diffusion": "embedded",
    "clip": "embedded",
    "assign": "auto",
    "processes": 1,
    "budget": 20,
    "format": "coco",
    "media": "copy",
    "prelabels": True,
    "floor": exporting.FLOOR,
    "method": visualizing.METHODS[0],
    "limit": visualizing.LIMIT,
}
METHODS = visualizing.METHODS
missing_credentials = annotating.missing
FORMATS = {name: kind.title for name, kind in formats.FORMATS.items()}
MEDIA = {"copy": "Copy the images", "link": "Link to the images", "list": "List their paths only"}
TEXTS = ("proposals", "detector", "diffusion", "clip", "pretrained", "encoder", "assign", "labeled_tag", "run_key")
CHOICES: dict[str, tuple[str, ...]] = {
    "rarity": cfg.RARITY,
    "abstract": cfg.ABSTRACT,
    "image_rarity": cfg.IMAGE_RARITY,
    "unmatched": cfg.UNMATCHED,
    "normalize": cfg.NORMALIZE,
    "correct": cfg.CORRECT,
    "batch": cfg.BATCH,
    "strategy": tuple(name for name, kind in registry.registered().items() if not kind.hidden and not kind.argument),
    "noise": cfg.NOISE,
    "reduce": cfg.REDUCE,
    "regions": cfg.REGIONS,
    "precision": cfg.PRECISION,
    "proposals": cfg.PROPOSALS,
    "arch": cfg.ARCHITECTURES,
}
# Their defaults follow the assignment and the diffusion model: ``config.default_params``.
FOLLOWS = ("params__rarity", "params__alpha", "params__beta")
# Stage name, as it prefixes the form's fields, and what the form already asks for elsewhere.
STAGES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "params": (cfg.GsalParams, ()),
    "detector": (cfg.DetectorConfig, ("checkpoint",)),
    "diffusion": (cfg.DiffusionConfig, ("model",)),
    "concepts": (cfg.ConceptConfig, ("assign", "clip", "pretrained", "encoder")),
    "train": (cfg.TrainConfig, ()),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One constant as a form field: ``kind`` is int, float, bool or str; ``default`` None is the model's own."""

    key: str
    name: str
    kind: type
    default: Any
    choices: tuple[str, ...] = ()


def settings(stage: str) -> list[Setting]:
    """The form fields of one stage, made from its dataclass, so that none can be missing or differ."""
    kind, skip = STAGES[stage]
    hints = get_type_hints(kind)
    out = []
    for field in dataclasses.fields(kind):
        if field.name not in skip:
            plain = [t for t in _types(hints[field.name]) if t in (int, float, bool, str)]
            if plain:
                key = f"{stage}__{field.name}"
                choices = CHOICES.get(field.name, ())
                default = None if key in FOLLOWS else field.default
                out.append(Setting(key, field.name, plain[0], default, choices))
    return out


def config_of(stage: str, values: Mapping[str, Any]) -> Any:
    """The dataclass of a stage from a form's values; what was left out or empty keeps its default."""
    made = cfg.from_dict(STAGES[stage][0], named(stage, values))
    if isinstance(made, cfg.GsalParams):
        registry.of(made)  # a strategy that is there, with settings that it has
    return made


def named(stage: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stage that a form's values hold; an empty one is not named."""
    return {s.name: _as(s.kind, values[s.key]) for s in settings(stage) if values.get(s.key) not in (None, "")}


def _as(kind: type, value: Any) -> Any:
    """A form's value as the kind of its setting where that loses nothing; the setting's own check refuses the rest."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind in (int, float) and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            return value
    return value


def detections_fields(dataset: fo.Dataset) -> list[str]:
    """The dataset's Detections fields, ours left out."""
    found = dataset.get_field_schema(ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    return [name for name in found if not name.startswith("gsal_")]


def graphs() -> dict[str, str]:
    """Name -> path of the concept graphs that ship with the package."""
    return {path.stem: str(path) for path in sorted(GRAPHS.glob("*.yaml"))}


def last(dataset: fo.Dataset) -> dict[str, Any]:
    """What the dataset was scored with last, as defaults of the next form; empty before the first scoring."""
    if not runs.score_keys(dataset):
        return {}
    record = runs.load(dataset).config
    concepts = record.concepts if Path(record.concepts).is_file() else str(Path(record.run_dir) / "concepts.yaml")
    return {"concepts": concepts, "label_field": record.label_field, "assign": record.config["concepts"]["assign"]}


def own_params(dataset: fo.Dataset) -> dict[str, Any]:
    """The constants of the latest scoring as form values: what a selection keeps where nothing is changed."""
    return {f"params__{k}": v for k, v in runs.load(dataset).config.params.items()} if runs.score_keys(dataset) else {}


def score_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``score_events`` from a form's values; raises ValueError for a value that cannot be used."""
    base, concepts = cfg.ScoreConfig(), str(values.get("concepts") or "").strip()
    text = {k: v for k in TEXTS if (v := str(values.get(k) or "").strip())}
    config_of("params", values)  # refused here, not after the work
    return {
        "concepts": graphs().get(concepts, concepts),
        "label_field": values.get("label_field") or DEFAULTS["label_field"],
        "processes": _as(int, values.get("processes") or DEFAULTS["processes"]),
        "params": named("params", values),
        "train": config_of("train", values),
        "config": dataclasses.replace(
            base, **{stage: config_of(stage, values) for stage in ("detector", "diffusion", "concepts")}
        ),
        **text,
    }


def score_problem(samples: Any, values: Mapping[str, Any]) -> str | None:
    """Why a scoring with these values would be refused; None where nothing speaks against it. Reads no boxes."""
    try:
        given = score_settings(values)
        dataset = pool.check_samples(samples)
        if not given["concepts"]:
            return "Choose a concept graph file: YAML with the dataset's labels under `concepts:`"
        ConceptGraph.load(Path(given["concepts"]).expanduser())
        field = given["label_field"]
        if pool.check_detections(dataset, field, what="label field") and not samples.exists(field, False).limit(1):
            return (
                f'Every image of this view has labels in "{field}"; choose the dataset, or a view with unlabeled images'
            )
        if (name := given.get("proposals")) and not pool.check_detections(dataset, name, what="proposals field"):
            return f'dataset "{dataset.name}" has no field "{name}" to take proposals from'
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def left_in_pool(dataset: fo.Dataset, samples: Any) -> int:
    """Images of ``samples`` that `select` could pick: scored, in no round, not labeled."""
    _, images = pool.check_images(samples)
    state = live.of(dataset, runs.scoring_of(images).key).state
    free = state.free & rankable(state.table)
    if isinstance(images, fo.DatasetView):
        free = free & np.isin(state.table.ids, images.values("id"))
    return int(free.sum())


def default_budget(samples: Any) -> int:
    """The table's budget, or what is left, if that is less and can be known."""
    try:
        return min(DEFAULTS["budget"], left_in_pool(samples._root_dataset, samples))
    except ValueError:  # not scored, or its run folder is gone, which the form says
        return int(DEFAULTS["budget"])


def select_problem(samples: Any, values: Mapping[str, Any]) -> str | None:
    """Why a selection with these values would be refused, or None."""
    try:
        dataset, _ = pool.check_images(samples)
        config_of("params", values)
        count = left_in_pool(dataset, samples)
        budget = values.get("budget") or 0
        if not 1 <= budget <= count:
            return (
                f"The budget must be in [1, {count}]: {count} scored images are unlabeled and in no round; got {budget}"
            )
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def export_problem(samples: Any, values: Mapping[str, Any]) -> str | None:
    """Why an export with these values would be refused, or None."""
    try:
        runs.scoring_of(pool.check_images(samples)[1])
        if not (out := str(values.get("out") or "").strip()):
            return "Choose a folder for the export: new, empty, or an earlier export"
        replacing.earlier(Path(out).expanduser())
    except ValueError as error:
        return str(error)
    return None


def backends() -> list[str]:
    """FiftyOne's annotation backends, its default first."""
    config = fo.annotation_config
    return sorted(config.backends, key=lambda name: (name != config.default_backend, name))


def rounds_of(dataset: fo.Dataset) -> dict[str, str]:
    """Tag -> how far the round has come, the latest first; nothing is written."""
    counts: dict[int, Counter[str]] = {}
    if dataset.has_sample_field("gsal_round"):
        have = [n for n in ("gsal_round", "gsal_status") if dataset.has_sample_field(n)]
        for number, *state in zip(*slices.flat(dataset).exists("gsal_round").values(have), strict=True):
            counts.setdefault(number, Counter())[state[0] if state and state[0] else "picked"] += 1
    return {
        fields.ROUND_TAG.format(n): ", ".join(f"{k} {state}" for state, k in sorted(counts[n].items()))
        for n in sorted(counts, reverse=True)
    }


def _types(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
