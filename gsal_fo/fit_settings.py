"""Every constant of ``gsal fit``: which space, which U-Net, how long, and when to stop."""

from dataclasses import dataclass
from typing import Any

from gsal_fo.settings import check, setting
from gsal_fo.user_files import shown

SPACES = ("features", "pixels", "vae")
UNET_SIZES = ("tiny", "small", "base")
PREDICTIONS = ("v_prediction", "epsilon", "sample")
PRECISIONS = ("auto", "fp32", "bf16")
STRIDES = (4, 8, 16, 32)
INPUT_SIZES = {"features": 256, "pixels": 64, "vae": 256}  # px, unless the user says otherwise
PIXEL_SIDES = (32, 128)  # px; above, a U-Net over pixels takes hours on a CPU
FEWEST_CELLS = 4
MOST_SIDE = 4096  # px or cells
MOST_STEPS = 10**7
A_YEAR = 365 * 24 * 60.0  # minutes

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

    space: str = setting("features", "what is modeled", choices=SPACES)
    encoder: str = setting(
        "mobilenet_v2:default", "of feature space: embedded, mobilenet_v2:default, mobilenet_v2:FILE"
    )
    vae: str | None = setting(None, "of autoencoder space: its folder or hub id", shown="none")
    stages: tuple[str, ...] | None = None
    input_size: int | None = setting(
        None, "px to which images are resized", low=1, high=MOST_SIDE, shown="256; pixel space 64"
    )
    stride: int = setting(16, "px per cell of feature space", choices=STRIDES)
    components: int = setting(32, "channels of feature space (PCA)", low=1, high=4096)
    whiten: float = setting(0.0, "how far components get equal variance", low=0, high=1)
    size: str = setting("small", "of the U-Net", choices=UNET_SIZES)
    window: int | None = setting(
        None,
        "cells a side of what one training example shows",
        low=1,
        high=MOST_SIDE,
        shown="all; 32 of more than 32",
    )
    prediction: str = setting("v_prediction", "what the U-Net says", choices=PREDICTIONS)
    steps: int = setting(700, "at most so many steps", low=1, high=MOST_STEPS)
    epochs: int | None = setting(None, "passes over the images, instead of steps", low=1, high=MOST_STEPS, shown="none")
    minutes: float = setting(10.0, "at most so long", low=0, high=A_YEAR)
    batch: int = setting(32, "images per step", low=1, high=2**16)
    lr: float = setting(8e-4, "peak of the learning rate", low=0, high=10)
    ema: float = setting(0.995, "decay of the average of weights", low=0, high=0.99999)
    guard: float | None = setting(
        None, "noise level, share of T, that decides what is kept", low=0.01, high=0.99, shown="the scores' own"
    )
    check: int = setting(50, "steps between two looks at held-out images", low=1, high=MOST_STEPS)
    patience: int = setting(6, "looks without a better one before the fit ends", low=1, high=MOST_STEPS)
    checkpoint_s: float = setting(30.0, "seconds between checkpoints", low=0, high=3600)
    precision: str = setting("auto", "of training", choices=PRECISIONS)
    seed: int = setting(0, "of weights, order, windows and noise", low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        check(self)
        stages = self.stages or ()
        if isinstance(stages, str) or not all(isinstance(s, str) for s in stages):
            raise ValueError(f"stages must be a list of names; got {shown(stages)}")
        for name in ("minutes", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)!r}")
        _fill(self, "stages", tuple(stages) or None)
        _fill(self, "input_size", INPUT_SIZES[self.space] if self.input_size is None else self.input_size)
        _fill(self, "guard", SCORE_DEFAULTS[self.space]["t"] if self.guard is None else self.guard)
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
