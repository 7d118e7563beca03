"""The U-Nets that are fitted, by size and grid, and their noise schedule."""

from typing import Any

from gsal_fo.fit_settings import FitSettings

WIDTHS = {"tiny": (32, 1, 8), "small": (64, 1, 16), "base": (128, 2, 32)}  # channels, layers per block, norm groups
WHOLE = 32  # cells a side: maps up to this are trained on whole
TRAIN_STEPS = 1000  # T


def window_of(settings: FitSettings, cells: int) -> int:
    """Side in cells of what one training example shows of a map of ``cells`` a side."""
    return min(cells, settings.window or (cells if cells <= WHOLE or settings.space != "features" else WHOLE))


def build_unet(settings: FitSettings, channels: int, cells: int) -> Any:
    """A UNet2DModel over latents (B, channels, cells, cells), weights set by torch's generator.

    Two levels up to 32 cells, three up to 64, four beyond. Attention, on the coarsest level, only where training
    sees whole maps: over more cells than it was trained on it means something else.

    Raises:
        ValueError: the map cannot be halved as often as the U-Net does.
    """
    from diffusers import UNet2DModel

    width, layers, groups = WIDTHS[settings.size]
    window = window_of(settings, cells)
    levels = 2 if window <= 32 else 3 if window <= 64 else 4
    if cells % 2 ** (levels - 1) or window % 2 ** (levels - 1):
        raise ValueError(
            f"{cells} cells a side cannot be halved {levels - 1} times; choose another input_size, stride or window"
        )
    kind = "Attn" if window == cells else ""
    return UNet2DModel(
        sample_size=cells,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(width, *[2 * width] * (levels - 1)),
        down_block_types=(*["DownBlock2D"] * (levels - 1), f"{kind}DownBlock2D"),
        up_block_types=(f"{kind}UpBlock2D", *["UpBlock2D"] * (levels - 1)),
        add_attention=window == cells,
        attention_head_dim=32,
        layers_per_block=layers,
        norm_num_groups=groups,
    )


def build_scheduler(settings: FitSettings) -> Any:
    """Squared-cosine noise schedule of 1000 steps."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=settings.prediction,
        clip_sample=False,
    )
