"""Every constant of ``gsal fit``: which space, which U-Net, how long, and when to stop."""

from dataclasses import dataclass, field
from typing import Any

SPACES = ("features", "pixels", "vae")
UNET_SIZES = ("tiny", "small", "base")
PREDICTIONS = ("v_prediction", "epsilon", "sample")
PRECISIONS = ("auto", "fp32", "bf16")
STRIDES = (4, 8, 16, 32)
INPUT_SIZES = {"features": 256, "pixels": 64, "vae": 256}  # px, unless the user says otherwise
PIXEL_SIDES = (32, 128)  # px; above, a U-Net over pixels takes hours on a CPU
FEWEST_CELLS = 4

# What a fitted folder says about how to score with it, by space: as measured (docs/difficulty.md), pixels on steel and
# synthetic slices, vae on steel alone. In feature space a defect is a few cells that a model cannot guess from their
# surroundings once most of them is noise: at 0.7 T those cells must come from what the model knows of the pool, at
# 0.1 T they are still readable in the input. In pixel space at 0.7 T nothing of a faint defect is left to be missed.
# Maps, because crops are worse on steel: boxes against background AUROC 0.68, maps 0.78 (docs/difficulty.md).
# alpha and beta of Eq. 7: E alone, because V of a model fitted on the pool hardly repeats between draws, is chance in
# pixel space, and costs more than it gives (the same page).
SCORE_DEFAULTS: dict[str, dict[str, Any]] = {
    "features": {"t": 0.7, "reduce": "max", "regions": "maps", "alpha": 1.0, "beta": 0.0},
    "pixels": {"t": 0.2, "reduce": "max", "regions": "maps", "alpha": 1.0, "beta": 0.0},
    "vae": {"t": 0.4, "reduce": "max", "regions": "maps"},
}


def _said(text: str, default: Any, shown: str | None = None) -> Any:
    """A field with its line of ``gsal fit --help``; ``shown``: what stands there for a default of None."""
    return field(default=default, metadata={"help": text, **({"default": shown} if shown else {})})


@dataclass(frozen=True)
class FitSettings:
    """Constants of one fit.

    Attributes:
        space: what is modeled: a frozen encoder's feature maps, pixels, or an autoencoder's latents.
        encoder: of feature space, any name that ``load_encoder`` takes.
        vae: of autoencoder space, a folder or hub id of an AutoencoderKL or AutoencoderTiny.
        stages: the encoder's maps to join; None: those at strides 8 and 16.
        input_size: side in pixels to which an image is resized; None: 256, in pixel space 64.
        stride: pixels per cell of feature space.
        components: channels of feature space (PCA).
        whiten: in [0, 1], how far the components are brought to equal variance.
        size: of the U-Net.
        window: side in cells of the squares that are trained on, drawn at random; None: the whole map up to 32 cells,
            squares of 32 beyond. It bounds time and memory at fine strides.
        prediction: what the U-Net says: the velocity, the noise, or the clean latent.
        steps: at most so many optimizer steps. epochs: the same as passes over the images; goes before ``steps``.
        minutes: at most so long.
        batch: images per step, over all processes.
        lr: peak of the learning rate. ema: decay of the average of weights.
        guard: noise level, as a share of T, at which held-out images decide which weights are kept; None: the level
            that scores use.
        check: steps between two looks at the held-out images. patience: looks without a better one before the fit ends.
        checkpoint_s: seconds between two checkpoints.
        precision: auto is bf16 on a GPU that has it, else fp32 (bf16 training is 13 times slower on a CPU).
        seed: of weights, order, windows and noise.
    """

    space: str = _said("features, pixels or vae", "features")
    encoder: str = _said("of feature space: embedded, mobilenet_v2:default, mobilenet_v2:FILE", "mobilenet_v2:default")
    vae: str | None = _said("of autoencoder space: its folder or hub id", None, "none")
    stages: tuple[str, ...] | None = None
    input_size: int | None = _said("px to which images are resized", None, "256; pixel space 64")
    stride: int = _said("px per cell of feature space: 4, 8, 16 or 32", 16)
    components: int = _said("channels of feature space (PCA)", 32)
    whiten: float = _said("0 to 1: how far components get equal variance", 0.0)
    size: str = _said("of the U-Net: tiny, small or base", "small")
    window: int | None = _said("cells a side of what one training example shows", None, "all; 32 of more than 32")
    prediction: str = _said("v_prediction, epsilon or sample", "v_prediction")
    steps: int = _said("at most so many steps", 700)
    epochs: int | None = _said("passes over the images, instead of steps", None, "none")
    minutes: float = _said("at most so long", 10.0)
    batch: int = _said("images per step", 32)
    lr: float = _said("peak of the learning rate", 8e-4)
    ema: float = _said("decay of the average of weights", 0.995)
    guard: float | None = _said("noise level, share of T, that decides what is kept", None, "the scores' own")
    check: int = _said("steps between two looks at held-out images", 50)
    patience: int = _said("looks without a better one before the fit ends", 6)
    checkpoint_s: float = _said("seconds between checkpoints", 30.0)
    precision: str = _said("auto, fp32 or bf16", "auto")
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("space", SPACES),
            ("size", UNET_SIZES),
            ("prediction", PREDICTIONS),
            ("precision", PRECISIONS),
        ):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        _fill(self, "stages", tuple(self.stages) if self.stages else None)
        _fill(self, "input_size", INPUT_SIZES[self.space] if self.input_size is None else self.input_size)
        _fill(self, "guard", SCORE_DEFAULTS[self.space]["t"] if self.guard is None else self.guard)
        for name in ("input_size", "components", "steps", "batch", "check", "patience", "epochs", "window"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number above 0; got {value!r}")
        for name in ("minutes", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)!r}")
        for name, low, high in (
            ("whiten", 0, 1),
            ("checkpoint_s", 0, 3600),
            ("guard", 0.01, 0.99),
            ("ema", 0, 0.99999),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in [{low}, {high}]; got {getattr(self, name)!r}")
        self._check_grid()

    def _check_grid(self) -> None:
        side = self.side
        if self.space == "pixels" and (side % 8 or not PIXEL_SIDES[0] <= side <= PIXEL_SIDES[1]):
            raise ValueError(f"input_size of pixel space must be a multiple of 8 px from 32 to 128; got {side}")
        if self.space != "pixels" and (side % 32 or side < 64):
            raise ValueError(f"input_size must be a multiple of 32 px, at least 64; got {side}")
        if self.space == "features" and (self.stride not in STRIDES or side // self.stride < FEWEST_CELLS):
            raise ValueError(f"stride must be 4, 8, 16 or 32 px with at least 4 cells a side; got {self.stride}")
        if self.space == "vae" and not self.vae:
            raise ValueError("autoencoder space needs vae: the folder or hub id of an AutoencoderKL or AutoencoderTiny")
        if self.window is not None and (self.window < FEWEST_CELLS or self.window % 2):
            raise ValueError(f"window must be an even number of at least 4 cells; got {self.window}")

    @property
    def side(self) -> int:
        """``input_size``, once filled in."""
        assert self.input_size is not None
        return self.input_size


def _fill(settings: FitSettings, name: str, value: Any) -> None:
    object.__setattr__(settings, name, value)  # frozen: once, at birth
