"""Feature space: a frozen encoder's maps as the latent of a diffusion model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.nets.base import Encoder, Frozen
from lightning_modules.nets.encoders import load_encoder
from lightning_modules.nets.files import read_safetensors

PADDINGS = ("zeros", "replicate")


class FeatureSpace(Frozen):
    """Frozen encoder maps as a latent: stages on one grid, standardized per channel, rotated to their main axes.

    Args:
        encoder: where the maps come from.
        stages: names of the encoder's stages, joined in this order.
        stride: pixels per latent cell: an input of side S gives ``S / stride`` cells.
        mean, std: (D,) per channel of the joined stages.
        components: (C, D) unit principal axes of the standardized features.
        scale: (C,) what each component is divided by.
        padding: how the encoder's convolutions go on beyond the border, "zeros" or "replicate"; set in the encoder.
    """

    mean: Tensor
    std: Tensor
    components: Tensor
    scale: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        stages: list[str],
        stride: int,
        mean: Tensor,
        std: Tensor,
        components: Tensor,
        scale: Tensor,
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        if unknown := [s for s in stages if s not in encoder.stages]:
            raise ValueError(f"the encoder has no stage {unknown}; it has {list(encoder.stages)}")
        width = sum(encoder.stages[s][0] for s in stages)
        if mean.shape != (width,) or std.shape != (width,) or components.shape[1:] != (width,):
            raise ValueError(
                f"stages {stages} have {width} channels; the feature space was fitted on {components.shape[-1]}"
            )
        self.encoder, self.stages, self.stride, self.padding = encoder, stages, stride, padding
        pad_with(encoder, padding)
        for key, value in (("mean", mean), ("std", std), ("components", components), ("scale", scale)):
            self.register_buffer(key, value.float())

    def features(self, x: Tensor) -> Tensor:
        """Joined maps (B, D, h, w) of RGB images (B, 3, H, W) in [0, 1]."""
        return joined_maps(self.encoder, x, self.stages, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w)."""
        z = (self.features(x) - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
        return torch.einsum("bdhw,cd->bchw", z, self.components) / self.scale.view(1, -1, 1, 1)


def joined_maps(encoder: Encoder, x: Tensor, stages: list[str], stride: int) -> Tensor:
    """The encoder's maps (B, D, h, w), resized to ``side / stride`` cells and joined over channels."""
    height, width = (side - side % 32 if side >= 32 else 32 for side in x.shape[-2:])
    if (height, width) != tuple(x.shape[-2:]):
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True, align_corners=False)
    grid = (max(1, height // stride), max(1, width // stride))
    # Under autocast maps come in bfloat16, which antialiased resizing does not take on a CPU.
    maps = {name: map_.float() for name, map_ in encoder.maps(x, stages).items()}
    parts = [
        maps[s]
        if maps[s].shape[-2:] == grid
        else F.interpolate(maps[s], grid, mode="bilinear", antialias=True, align_corners=False)
        for s in stages
    ]
    return torch.cat(parts, 1)


def pad_with(encoder: Encoder, padding: str) -> None:
    """Set how the encoder's convolutions go on beyond the border of their input.

    Zeros, which networks are trained with, are a texture of their own: on steel a cell of the outer ring had 3.5 times
    the power of one inside, and 85 % of the images had their largest E there (chance: 23 %). A border that repeats
    leaves 1.6 times (docs/difficulty.md). Convolutions only; a transformer's tokens see no padding.

    Raises ValueError for another name.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {', '.join(PADDINGS)}; got {padding!r}")
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.padding not in ("valid", (0, 0)):  # else it would copy its input
            module.padding_mode = padding  # type: ignore[assignment]


def read_feature_space(folder: Path, about: Mapping[str, Any]) -> FeatureSpace:
    if missing := [k for k in ("encoder", "stages", "stride", "input_size") if k not in about]:
        raise ValueError(f"{folder}/gsal.json lacks {missing}; fit the model again")
    encoder = load_encoder(str(about["encoder"]))
    if about.get("encoder_digest") not in (None, encoder.digest):
        raise ValueError(
            f"{folder} was fitted on the features of other weights of {about['encoder']}; fit it again on this encoder"
        )
    stored, _ = read_safetensors(folder / "features.safetensors")
    if missing := [k for k in ("mean", "std", "components", "scale") if k not in stored]:
        raise ValueError(f"{folder}/features.safetensors lacks {missing}; fit the model again")
    picked = {k: stored[k] for k in ("mean", "std", "components", "scale")}
    padding = str(about.get("padding", "zeros"))  # a folder without the key is older than the choice
    return FeatureSpace(encoder, stages=list(about["stages"]), stride=int(about["stride"]), padding=padding, **picked)
