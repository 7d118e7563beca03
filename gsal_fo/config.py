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
from gsal_fo.settings import check, setting
from gsal_fo.user_files import read_yaml, shown

SCORE_VERSION = 1  # bumped when a formula changes: scores of two versions are never mixed

RARITY = ("quantile", "graded")
ABSTRACT = ("sum", "mean")
IMAGE_RARITY = ("mean", "max")
UNMATCHED = ("rare", "none")
BATCH = ("static", "greedy")
NORMALIZE = ("pool", "concept")
CORRECT = ("none", "size_texture")
NOISE = ("shared", "per_sample")
REDUCE = ("mean", "max", "topk")
REGIONS = ("crops", "maps")
PRECISION = ("fp32", "bf16")
ASSIGN = ("auto", "clip", "prototypes", "detector")
PROPOSALS = ("detections", "objectness")
ARCHITECTURES = ("small", "mobilenet_v3_320", "r50_fpn", "r50_fpn_v2")


MOST_SEED = 2**32 - 1  # what every library's generator takes
MOST_BATCH = 2**16
MOST_STEPS = 10**7
MOST_WEIGHT = 1e6  # of a term beside others: beyond, rounding leaves nothing of the others


def _seed(meaning: str) -> Any:
    return setting(0, meaning, low=0, high=MOST_SEED)


def _batch(default: int, meaning: str) -> Any:
    return setting(default, meaning, low=1, high=MOST_BATCH)


def _weight(default: float, meaning: str) -> Any:
    return setting(default, meaning, low=0, high=MOST_WEIGHT)


@dataclass(frozen=True)
class GsalParams:
    """Constants of Eq. 2 and 4 to 11, applied by the selection stage to stored statistics (no model is run).

    ``levels`` is any non-empty subset of "FCA" (fine, coarse, abstract); ``lam`` is the paper's lambda; ``p`` may be
    infinite, also as the text "inf": an image counts as its highest proposal; ``strategy``
    names any strategy of ``acquisition.registry``, GSAL's ablations and placebos among them, and ``settings`` holds the
    settings of one that is not GSAL; ``seed`` is that of every draw;
    ``shrink`` is how many images (or proposals) of a concept weigh as much as the pool in ``normalize="concept"``;
    ``correct="size_texture"`` takes from E and V what box area and local contrast explain (``acquisition.correction``).
    """

    alpha: float = _weight(0.5, "weight of the reconstruction error in difficulty")
    beta: float = _weight(0.5, "weight of the denoising variance in difficulty")
    gamma: float = _weight(0.5, "weight of a proposal's rarity bonus beside its difficulty")
    delta: float = _weight(0.5, "weight of rare attributes in the bonus")
    eta: float = setting(0.5, "share of the proposals in difficulty; the image has the rest", low=0, high=1)
    lam: float = _weight(1.0, "weight of rarity beside difficulty")
    p: float = setting(3.0, "power of the mean over proposals; inf: the highest alone", low=1, high=math.inf)
    quantile: float = setting(0.2, "of a level's counts, at or below which a concept is rare", low=0, high=1)
    rarity: str = setting("quantile", "rule of rarity", choices=RARITY)
    levels: str = setting("FCA", "levels that count: any of F, C, A")
    abstract: str = setting("sum", "rare attributes of a concept", choices=ABSTRACT)
    image_rarity: str = setting("mean", "an image's rarity over its proposals", choices=IMAGE_RARITY)
    unmatched: str = setting("rare", "what a proposal of no known concept counts as", choices=UNMATCHED)
    normalize: str = setting("pool", "over what scores are standardized", choices=NORMALIZE)
    shrink: float = setting(
        10.0, "images of a concept that weigh as much as the pool in normalize concept", low=0, high=1e9
    )
    correct: str = setting("none", "what is taken out of difficulty", choices=CORRECT)
    batch: str = setting("static", "whether each pick counts for the next", choices=BATCH)
    strategy: str = setting("gsal", "what ranks and picks; `gsal strategies` lists them")
    seed: int = _seed("of every draw")
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.p == "inf":
            object.__setattr__(self, "p", math.inf)
        check(self)
        if not self.strategy:
            raise ValueError("strategy must be the name of one; got an empty one")
        if not isinstance(self.settings, Mapping):
            raise ValueError(f"settings must be a mapping of the strategy's own settings; got {shown(self.settings)}")
        object.__setattr__(self, "settings", dict(self.settings))  # a record's own kind of mapping cannot be copied
        if not self.levels or set(self.levels) - set("FCA"):
            raise ValueError(f"levels must be a non-empty subset of the letters F, C, A; got {shown(self.levels)}")
        object.__setattr__(self, "levels", "".join(c for c in "FCA" if c in self.levels))


@dataclass(frozen=True)
class DetectorConfig:
    """Where proposals come from. ``checkpoint``: a folder written by ``lightning_modules.train``; None means that the
    manifest's own boxes are the proposals, or, where it has none, a grid of windows (cold start)."""

    checkpoint: str | None = setting(None, "folder of a trained detector")
    proposals: str = setting("detections", "which boxes of a detector", choices=PROPOSALS)
    max_proposals: int = setting(10, "at most so many per image", low=1, high=10_000)
    nms_iou: float = setting(0.5, "overlap from which the weaker of two boxes goes", low=0, high=1)
    score_floor: float = setting(0.05, "lowest score of a proposal", low=0, high=1)
    batch_size: int = _batch(8, "images at once")

    def __post_init__(self) -> None:
        check(self)


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

    model: str = setting("embedded", "embedded, a folder, or a hub id")
    t: float | None = setting(None, "noise level, share of T", low=0, high=1)
    draws: int = setting(4, "noises per image, an even number", low=2, high=1024)
    noise: str = setting("shared", "one noise for all images or one each", choices=NOISE)
    steps: int = setting(1, "DDIM steps of the reconstruction", low=1, high=1000)
    reduce: str | None = setting(None, "a map's error as one number", choices=REDUCE)
    regions: str | None = setting(None, "proposals scored from crops or from the image's map", choices=REGIONS)
    crop_size: int | None = setting(None, "side of a crop", low=8, high=4096, unit="px")
    screen: float | None = setting(None, "share of the images whose crops are scored one by one", low=0, high=1)
    seed: int = _seed("of the noise")
    batch_size: int = _batch(16, "crops at once")
    vae: str | None = setting(None, "autoencoder in place of the model's own")
    precision: str = setting("fp32", "of the model", choices=PRECISION)
    channels_last: bool = setting(False, "memory layout for GPUs")
    attention_slicing: bool = setting(False, "less memory, slower")
    compile: bool = setting(False, "for long runs on a GPU")

    def __post_init__(self) -> None:
        check(self)
        if self.draws % 2:
            raise ValueError(f"draws must be even, because noise comes in antithetic pairs; got {self.draws}")
        if self.screen == 0:
            raise ValueError("screen must be above 0: estimates from maps are calibrated on crops; got 0")
        if self.screen is not None and self.screen < 1 and self.regions == "maps":
            raise ValueError(
                f'screen={self.screen:g} saves nothing with regions="maps", which scores no crops; '
                'set screen to 1 or regions to "crops"'
            )


@dataclass(frozen=True)
class ConceptConfig:
    """Concept assignment (METHOD.md section 2). ``assign`` "auto" takes CLIP or prototypes, as the labeled crops speak
    for (`concepts.auto_assign`); the run record says which and why. ``clip``: "embedded", an open_clip model name, or a
    local folder or checkpoint (``pretrained`` names the tag or file). ``encoder``: what embeds crops for
    ``assign="prototypes"``; None means the CLIP model's image tower. ``pad``: share of the box size added around a
    crop. ``floor``: lowest posterior that still counts as a match for ``assign="detector"``."""

    assign: str = setting("auto", "how proposals get their concept", choices=ASSIGN)
    clip: str = setting("embedded", "embedded, an open_clip name, or a folder")
    pretrained: str | None = setting(None, "open_clip's tag or checkpoint file")
    encoder: str | None = setting(None, "embeds crops for prototypes; none: CLIP's image tower")
    pad: float = setting(0.2, "share of a box's size added around its crop", low=0, high=10)
    floor: float = setting(0.3, "lowest posterior that is a match, for assign detector", low=0, high=1)
    batch_size: int = _batch(64, "crops at once")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class TrainConfig:
    """Detector training. ``backbone``: "embedded", "mobilenet_v2:PATH" or another encoder of
    ``lightning_modules.nets`` for "small"; "default" (torchvision's weights), "none", or a safetensors path for the
    others. ``size``: short side in pixels, None for the architecture's own. ``lr`` None: 1e-3 (AdamW) for "small",
    0.02 per 16 images (SGD, the paper) for the rest. ``batch_size``: images of a step, over all processes.
    ``checkpoint_s``: seconds between two checkpoints."""

    arch: str = setting("small", "the detector's architecture", choices=ARCHITECTURES)
    backbone: str = setting("embedded", "what the detector starts from")
    steps: int = setting(300, "optimizer steps", low=1, high=MOST_STEPS)
    batch_size: int = _batch(4, "images per step")
    lr: float | None = setting(None, "learning rate", low=0, high=10)
    size: int | None = setting(None, "short side of an image", low=32, high=8192, unit="px")
    seed: int = _seed("of weights, order and augmentation")
    checkpoint_s: float = setting(60.0, "seconds between checkpoints", low=0, high=3600)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ScoreConfig:
    """All that one scoring run of the worker depends on; ``graph`` is the concept graph file's absolute path."""

    graph: str = setting("", "concept graph file")
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    concepts: ConceptConfig = field(default_factory=ConceptConfig)
    workers: int = setting(0, "loader processes", low=0, high=256)
    precision: str = setting("32-true", "of Lightning")
    cache: str | None = setting(None, "folder of known statistics")

    def __post_init__(self) -> None:
        check(self)
        for name, kind in NESTED.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} must be a mapping of settings; got {shown(getattr(self, name))}")


NESTED = {"detector": DetectorConfig, "diffusion": DiffusionConfig, "concepts": ConceptConfig}


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
    if unknown := sorted(shown(k).strip('"') for k in set(values) - set(names)):
        raise ValueError(f"{kind.__name__} has no setting {', '.join(unknown[:3])}; it has {', '.join(sorted(names))}")
    built: dict[str, Any] = {
        k: from_dict(NESTED[k], v) if kind is ScoreConfig and k in NESTED and isinstance(v, Mapping) else v
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
