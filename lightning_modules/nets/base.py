"""What every network here shares: frozen, digested, and for encoders one interface."""

import hashlib
import json
from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDED = "embedded"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights_digest(module: nn.Module, config: Any) -> str:
    """16 hex characters of a network's parameters, buffers and ``config``; equal networks have equal digests."""
    h = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        h.update(name.encode())
        h.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()[:16]


class Frozen(nn.Module):
    """A module that stays in eval mode, so that batch statistics never move, whoever calls ``train()`` above it."""

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)


class Encoder(Frozen):
    """A frozen image encoder.

    Attributes:
        stages: name -> (channels, stride), fine to coarse.
        embed_dim: length of an embedding.
        input_size: side in pixels at which ``embed`` works.
        digest: 16 hex characters of weights and settings.
    """

    stages: dict[str, tuple[int, int]]
    embed_dim: int
    input_size: int
    digest: str
    mean: Tensor
    std: Tensor

    def _normalize_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def _seal(self, net: nn.Module, settings: Any) -> None:
        self.digest = weights_digest(net, [settings, self.mean.flatten().tolist(), self.std.flatten().tolist()])
        self.requires_grad_(False).eval()

    def normalized(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] as the network expects them."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"expected RGB images (B, 3, H, W) in [0, 1]; got shape {tuple(x.shape)}")
        return (x - self.mean) / self.std

    def maps(self, x: Tensor, stages: Collection[str] | None = None) -> dict[str, Tensor]:
        """Maps {stage: (B, C, H / stride, W / stride)} of RGB images (B, 3, H, W) in [0, 1], sides multiples of 32.

        ``stages``: at least these are wanted; what lies beyond the last of them need not be computed. None: all.
        """
        raise NotImplementedError

    def embed(self, x: Tensor) -> Tensor:
        """Unit rows (B, D) of RGB images (B, 3, H, W) in [0, 1], resized to ``input_size`` where they are not."""
        raise NotImplementedError


def resized_to(x: Tensor, size: int) -> Tensor:
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)


def side_of(size: Any) -> int:
    return int(size[0] if isinstance(size, tuple | list) else size)
