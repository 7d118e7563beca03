"""torchvision's MobileNetV2, from its own weights or a file of any origin."""

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.nets.base import IMAGENET_MEAN, IMAGENET_STD, Encoder, resized_to
from lightning_modules.nets.files import read_safetensors

MOBILENET_STAGES = OrderedDict(  # name -> (channels, stride, last module of the stage)
    {"features.3": (24, 4, 3), "features.6": (32, 8, 6), "features.13": (96, 16, 13), "features.18": (1280, 32, 18)}
)
MOBILENET_INPUT = 96  # px; on steel crops prototypes were right as often as at 128 and 224, at a third of the cost


class MobileNetEncoder(Encoder):
    """torchvision's MobileNetV2: its inverted-residual stages, and the pooled last one as embedding."""

    features: nn.Sequential

    def __init__(self, net: Any, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.features = net.features
        self.stages = {name: (c, stride) for name, (c, stride, _) in MOBILENET_STAGES.items()}
        self.embed_dim, self.input_size = MOBILENET_STAGES["features.18"][0], MOBILENET_INPUT
        self._normalize_by(mean, std)
        self._seal(self.features, ["mobilenet_v2", MOBILENET_INPUT])

    def maps(self, x: Tensor, stages: Collection[str] | None = None) -> dict[str, Tensor]:
        x = self.normalized(x)
        out: dict[str, Tensor] = {}
        start = 0
        for name, (_, _, last) in MOBILENET_STAGES.items():
            x = self.features[start : last + 1](x)
            out[name], start = x, last + 1
            if stages is not None and out.keys() >= set(stages):
                break
        return out

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.features(self.normalized(resized_to(x, self.input_size))).mean((2, 3)), dim=1)


def load_mobilenet(which: str) -> MobileNetEncoder:
    """``which``: "default", "none" or a safetensors file, as ``load_encoder`` says."""
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    if which == "default":
        try:
            net = mobilenet_v2(weights=MobileNet_V2_Weights.DEFAULT)
        except OSError as error:
            raise ValueError(
                f"torchvision's MobileNetV2 weights cannot be downloaded ({error}); give "
                "mobilenet_v2:<file.safetensors> or use embedded"
            ) from error
        return MobileNetEncoder(net, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if which == "none":
        with torch.random.fork_rng(devices=[]):  # the same in every process, and no trace in the caller's generator
            torch.manual_seed(0)
            return MobileNetEncoder(mobilenet_v2(), mean=(0.5,) * 3, std=(0.5,) * 3)
    net = mobilenet_v2()
    weights, about = read_safetensors(Path(which))
    # The classifier is not used: a file without it is as good.
    missing, unexpected = net.load_state_dict(weights, strict=False)  # half precision is cast to the net's float32
    if lost := [k for k in missing if not k.startswith("classifier.") and not k.endswith("num_batches_tracked")]:
        raise ValueError(f"{which}: no MobileNetV2 weights, {len(lost)} tensors are missing, such as {lost[0]}")
    if unexpected:
        raise ValueError(f"{which}: no MobileNetV2 weights, unknown tensor {unexpected[0]}")
    if about.get("input") == "imagenet":
        return MobileNetEncoder(net, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return MobileNetEncoder(net, mean=(0.5,) * 3, std=(0.5,) * 3)
