"""Every constant of the method, one frozen dataclass per stage: checked, digested, read from and written to YAML."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gsal_fo.fit_settings import FitSettings
from gsal_fo.user_files import read_yaml

SCORE_VERSION = 1  # bumped when a formula changes: scores of two versions are never mixed

RARITY = ("quantile", "graded")
ABSTRACT = ("sum", "mean")
IMAGE_RARITY = ("mean", "max")
UNMATCHED = ("rare", "none")
BATCH = ("static", "greedy")
NORMALIZE = ("pool", "concept")
CORRECT = ("none", "size_texture")
STRATEGIES = (
    "gsal",
    "diffusion_only",
    "symbolic_only",
    "no_rarity",
    "image_only",
    "proposal_only",
    "noise_difficulty",
    "shuffled_graph",
    "entropy",
    "random",
)
NOISE = ("shared", "per_sample")
REDUCE = ("mean", "max", "topk")
REGIONS = ("crops", "maps")
PRECISION = ("fp32", "bf16")
ASSIGN = ("auto", "clip", "prototypes", "detector")
PROPOSALS = ("detections", "objectness")
ARCHITECTURES = ("small", "mobilenet_v3_320", "r50_fpn", "r50_fpn_v2")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def _in_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        bound = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be a number {bound}; got {value!r}")


def _whole(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}; got {value!r}")


@dataclass(frozen=True)
class GsalParams:
    """Constants of Eq. 2 and 4 to 11, applied by the selection stage to stored statistics (no model is run).

    ``levels`` is any non-empty subset of "FCA" (fine, coarse, abstract); ``lam`` is the paper's lambda; ``p`` may be
    infinite, also as the text "inf": an image counts as its highest proposal; ``strategy``
    names an ablation switch or a placebo of METHOD.md section 5, or a baseline;
    ``seed`` acts in "random" and the placebos;
    ``shrink`` is how many images (or proposals) of a concept weigh as much as the pool in ``normalize="concept"``;
    ``correct="size_texture"`` takes from E and V what box area and local contrast explain (``acquisition.correction``).
    """

    alpha: float = 0.5
    beta: float = 0.5
    gamma: float = 0.5
    delta: float = 0.5
    eta: float = 0.5
    lam: float = 1.0
    p: float = 3.0
    quantile: float = 0.2
    rarity: str = "quantile"
    levels: str = "FCA"
    abstract: str = "sum"
    image_rarity: str = "mean"
    unmatched: str = "rare"
    normalize: str = "pool"
    shrink: float = 10.0
    correct: str = "none"
    batch: str = "static"
    strategy: str = "gsal"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.p == "inf":
            object.__setattr__(self, "p", math.inf)
        for name in ("alpha", "beta", "gamma", "delta", "lam"):
            _in_range(name, getattr(self, name), 0)
        _in_range("eta", self.eta, 0, 1)
        _in_range("quantile", self.quantile, 0, 1)
        _in_range("p", self.p, 1)
        _one_of("rarity", self.rarity, RARITY)
        _one_of("abstract", self.abstract, ABSTRACT)
        _one_of("image_rarity", self.image_rarity, IMAGE_RARITY)
        _one_of("unmatched", self.unmatched, UNMATCHED)
        _one_of("normalize", self.normalize, NORMALIZE)
        _in_range("shrink", self.shrink, 0)
        _one_of("correct", self.correct, CORRECT)
        _one_of("batch", self.batch, BATCH)
        _one_of("strategy", self.strategy, STRATEGIES)
        _whole("seed", self.seed, 0)
        if not isinstance(self.levels, str) or not self.levels or set(self.levels) - set("FCA"):
            raise ValueError(f"levels must be a non-empty subset of the letters F, C, A; got {self.levels!r}")
        object.__setattr__(self, "levels", "".join(c for c in "FCA" if c in self.levels))


@dataclass(frozen=True)
class DetectorConfig:
    """Where proposals come from. ``checkpoint``: a folder written by ``lightning_modules.train``; None means that the
    manifest's own boxes are the proposals, or, where it has none, a grid of windows (cold start)."""

    checkpoint: str | None = None
    proposals: str = "detections"
    max_proposals: int = 10
    nms_iou: float = 0.5
    score_floor: float = 0.05
    batch_size: int = 8

    def __post_init__(self) -> None:
        _one_of("proposals", self.proposals, PROPOSALS)
        _whole("max_proposals", self.max_proposals, 1)
        _in_range("nms_iou", self.nms_iou, 0, 1)
        _in_range("score_floor", self.score_floor, 0, 1)
        _whole("batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion scorer (METHOD.md section 4). ``model``: "embedded", a folder, or a hub id. None in ``t`` (share
    of T), ``reduce``, ``regions``, ``crop_size`` (pixels) or ``screen`` means the model's own default: 0.4, "mean",
    "crops", 256, 1 unless its folder says otherwise. ``steps`` > 1 denoises with that many DDIM steps down to 0.
    ``screen`` in (0, 1]: share of the images whose crops are scored one by one; those of the rest are estimated from
    the images' maps (``gsal_fo.acquisition.screening``), and 1 is the literal method. ``vae``: folder or hub
    id of an autoencoder in place of the model's own, such as a tiny one. ``precision``: "bf16" halves memory and is
    faster on GPUs and CPUs with bfloat16 units. ``channels_last``, ``attention_slicing`` (less memory, slower) and
    ``compile`` (long runs on a GPU) change no score beyond rounding."""

    model: str = "embedded"
    t: float | None = None
    draws: int = 4
    noise: str = "shared"
    steps: int = 1
    reduce: str | None = None
    regions: str | None = None
    crop_size: int | None = None
    screen: float | None = None
    seed: int = 0
    batch_size: int = 16
    vae: str | None = None
    precision: str = "fp32"
    channels_last: bool = False
    attention_slicing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.t is not None:
            _in_range("t", self.t, 0, 1)
        _whole("draws", self.draws, 2)
        if self.draws % 2:
            raise ValueError(f"draws must be even, because noise comes in antithetic pairs; got {self.draws}")
        _one_of("noise", self.noise, NOISE)
        _whole("steps", self.steps, 1)
        if self.reduce is not None:
            _one_of("reduce", self.reduce, REDUCE)
        if self.regions is not None:
            _one_of("regions", self.regions, REGIONS)
        if self.crop_size is not None:
            _whole("crop_size", self.crop_size, 8)
        if self.screen is not None:
            _in_range("screen", self.screen, 0, 1)
            if self.screen == 0:
                raise ValueError("screen must be above 0: estimates from maps are calibrated on crops; got 0")
            if self.screen < 1 and self.regions == "maps":
                raise ValueError(
                    f'screen={self.screen:g} saves nothing with regions="maps", which scores no crops; '
                    'set screen to 1 or regions to "crops"'
                )
        _whole("seed", self.seed, 0)
        _whole("batch_size", self.batch_size, 1)
        _one_of("precision", self.precision, PRECISION)
        for name in ("channels_last", "attention_slicing", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false; got {getattr(self, name)!r}")


@dataclass(frozen=True)
class ConceptConfig:
    """Concept assignment (METHOD.md section 2). ``assign`` "auto" takes CLIP or prototypes, as the labeled crops speak
    for (`concepts.auto_assign`); the run record says which and why. ``clip``: "embedded", an open_clip model name, or a
    local folder or checkpoint (``pretrained`` names the tag or file). ``encoder``: what embeds crops for
    ``assign="prototypes"``; None means the CLIP model's image tower. ``pad``: share of the box size added around a
    crop. ``floor``: lowest posterior that still counts as a match for ``assign="detector"``."""

    assign: str = "auto"
    clip: str = "embedded"
    pretrained: str | None = None
    encoder: str | None = None
    pad: float = 0.2
    floor: float = 0.3
    batch_size: int = 64

    def __post_init__(self) -> None:
        _one_of("assign", self.assign, ASSIGN)
        _in_range("pad", self.pad, 0)
        _in_range("floor", self.floor, 0, 1)
        _whole("batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class TrainConfig:
    """Detector training. ``backbone``: "embedded", "mobilenet_v2:PATH" or another encoder of
    ``lightning_modules.nets`` for "small"; "default" (torchvision's weights), "none", or a safetensors path for the
    others. ``size``: short side in pixels, None for the architecture's own. ``lr`` None: 1e-3 (AdamW) for "small",
    0.02 per 16 images (SGD, the paper) for the rest."""

    arch: str = "small"
    backbone: str = "embedded"
    steps: int = 300
    batch_size: int = 4
    lr: float | None = None
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("arch", self.arch, ARCHITECTURES)
        _whole("steps", self.steps, 1)
        _whole("batch_size", self.batch_size, 1)
        if self.lr is not None:
            _in_range("lr", self.lr, 0)
        if self.size is not None:
            _whole("size", self.size, 32)
        _whole("seed", self.seed, 0)


@dataclass(frozen=True)
class ScoreConfig:
    """All that one scoring run of the worker depends on; ``graph`` is the concept graph file's absolute path."""

    graph: str = ""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    concepts: ConceptConfig = field(default_factory=ConceptConfig)
    workers: int = 0
    precision: str = "32-true"
    cache: str | None = None

    def __post_init__(self) -> None:
        _whole("workers", self.workers, 0)


def default_params(assign: str, mix: Mapping[str, Any] | None = None) -> GsalParams:
    """The constants where the user names none: the paper's, but two things that were measured.

    ``mix``: alpha and beta that the diffusion model's own folder asks for. ``gsal fit`` writes 1 and 0 there in feature
    space, E alone (docs/difficulty.md). ``assign="prototypes"`` takes the graded rule.
    With few labels the classes that have none or one decide the quantile rule's thresholds, and which images it picks
    turns on a single label: on real proposals of steel it found 1 to 45 rare instances over twelve draws of labels, as
    few as random in five of them, where the graded rule stayed above 35 in ten (``tests/bench/rules.py``).
    """
    rarity = "graded" if assign == "prototypes" else GsalParams().rarity
    return from_dict(GsalParams, {"rarity": rarity, **(mix or {})})


def with_named(base: GsalParams, named: "GsalParams | Mapping[str, Any] | None") -> GsalParams:
    """The base with the constants that a mapping names; all of another where that is given instead."""
    if isinstance(named, GsalParams):
        return named
    return from_dict(GsalParams, {**to_dict(base), **(named or {})})


Config = TypeVar(
    "Config", GsalParams, DetectorConfig, DiffusionConfig, ConceptConfig, TrainConfig, ScoreConfig, FitSettings
)


def digest(*parts: Any) -> str:
    """16 hex characters that change with any part: dataclasses by their fields, the rest as JSON."""
    plain = [dataclasses.asdict(p) if dataclasses.is_dataclass(p) and not isinstance(p, type) else p for p in parts]
    text = json.dumps([SCORE_VERSION, *plain], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def from_dict(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Build a config from plain values; an unknown key is refused with the keys that exist."""
    names = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(names)):
        raise ValueError(f"{kind.__name__} has no setting {unknown}; it has {sorted(names)}")
    nested = {"detector": DetectorConfig, "diffusion": DiffusionConfig, "concepts": ConceptConfig}
    built: dict[str, Any] = {
        k: from_dict(nested[k], v) if kind is ScoreConfig and k in nested and isinstance(v, Mapping) else v
        for k, v in values.items()
    }
    return kind(**built)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as nested plain values, ready for JSON or YAML; JSON has no infinity, so ``p`` may be "inf"."""
    return {k: "inf" if v == math.inf else v for k, v in dataclasses.asdict(config).items()}


def load_yaml(kind: type[Config], path: str | Path) -> Config:
    """Read a config from a YAML mapping; raises ValueError naming the file and what is wrong with it."""
    return from_dict(kind, named_in(kind, path))


def named_in(kind: type[Config], path: str | Path) -> dict[str, Any]:
    """The settings that a YAML mapping names, checked; raises ValueError as ``load_yaml`` does."""
    values = read_yaml(path, "settings")
    try:
        if not isinstance(values, Mapping):
            raise ValueError(f"expected a mapping of settings, got {type(values).__name__}")
        from_dict(kind, values)
        return dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def dump_yaml(config: Any, path: str | Path) -> None:
    """Write a config as a YAML mapping that ``load_yaml`` reads back to an equal object."""
    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
