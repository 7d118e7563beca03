"""CLIP through open_clip, and its image tower as an encoder."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.nets.base import EMBEDDED, Encoder, Frozen, resized_to, side_of, weights_digest
from lightning_modules.nets.files import embedded_folder, first_line


class ClipTower(Encoder):
    """The ResNet image tower of an open_clip model: its four layers, and the pooled projection as embedding."""

    tower: Any

    def __init__(self, clip: Any) -> None:
        super().__init__()
        tower = clip.visual
        self.tower = tower
        layers = ("layer1", "layer2", "layer3", "layer4")
        self.stages = {name: (getattr(tower, name)[-1].conv3.out_channels, 4 * 2**i) for i, name in enumerate(layers)}
        self.embed_dim, self.input_size = tower.output_dim, side_of(tower.image_size)
        self._normalize_by(tuple(tower.image_mean), tuple(tower.image_std))
        self._seal(tower, ["open_clip", self.input_size])

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        x = self.tower.stem(self.normalized(x))
        out: dict[str, Tensor] = {}
        for name in self.stages:
            out[name] = x = getattr(self.tower, name)(x)
        return out

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.tower(self.normalized(resized_to(x, self.input_size))), dim=1)


class Clip(Frozen):
    """A frozen open_clip model. ``encoder`` is its image tower's Encoder where that has feature maps, else None;
    ``logit_scale`` the inverse temperature of its softmax; ``input_size`` in pixels."""

    model: Any
    encoder: ClipTower | None
    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        super().__init__()
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.input_size = side_of(model.visual.image_size)
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.register_buffer("mean", torch.tensor(model.visual.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(model.visual.image_std).view(1, 3, 1, 1), persistent=False)
        self.digest = weights_digest(
            model, [self.input_size, self.mean.flatten().tolist(), self.std.flatten().tolist()]
        )
        self.requires_grad_(False).eval()
        # No submodule of its own: the tower is already inside `model`.
        self.__dict__["encoder"] = ClipTower(model) if hasattr(model.visual, "layer4") else None

    def _apply(self, fn: Any, recurse: bool = True) -> "Clip":
        if self.encoder is not None:  # it shares the weights; its own buffers must move with them
            self.encoder._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @property
    def embed_dim(self) -> int:
        """Length of an embedding."""
        return int(self.model.visual.output_dim)

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Unit rows (n, D) of n texts."""
        device = next(self.model.parameters()).device
        return F.normalize(self.model.encode_text(self.tokenizer(texts).to(device)).float(), dim=1)

    def embed(self, x: Tensor) -> Tensor:
        """Unit rows (B, D) of RGB images (B, 3, H, W) in [0, 1], resized to ``input_size`` where they are not."""
        x = (resized_to(x, self.input_size) - self.mean) / self.std
        return F.normalize(self.model.encode_image(x).float(), dim=1)


def load_clip(name: str = EMBEDDED, pretrained: str | None = None) -> Clip:
    """A frozen CLIP.

    Args:
        name: "embedded"; a folder with ``open_clip_config.json`` and ``open_clip_model.safetensors`` (the embedded one
            is such a folder); "hf-hub:<id>"; or an open_clip model name, with ``pretrained`` a tag or checkpoint file.
        pretrained: tag or file, for a model name only.

    Raises:
        ValueError: when the model is unknown, incomplete, or cannot be downloaded.
    """
    import open_clip

    folder = embedded_folder("clip") if name == EMBEDDED else Path(name).expanduser()
    if folder.is_dir():
        for needed in ("open_clip_config.json", "open_clip_model.safetensors"):
            if not (folder / needed).is_file():
                raise ValueError(
                    f"{folder} has no {needed}; save the model with open_clip's config and safetensors weights"
                )
        source = f"local-dir:{folder}"
    elif name.startswith("hf-hub:"):
        source = name
    elif name.replace("/", "-") in open_clip.list_models():
        source = name
        if not pretrained:
            tags = open_clip.list_pretrained_tags_by_model(name)
            raise ValueError(
                f"CLIP model {name} needs pretrained weights: a checkpoint file, or one of {', '.join(tags[:8])}"
            )
    else:
        raise ValueError(
            f'no CLIP model {name!r}: give "embedded", a folder, hf-hub:<id>, or a name that open_clip lists'
        )
    try:
        model = open_clip.create_model(source, pretrained=pretrained if source == name else None, weights_only=True)
        tokenizer = open_clip.get_tokenizer(source)
    except Exception as error:  # open_clip raises what its many back ends raise
        raise ValueError(
            f"CLIP model {name} cannot be loaded ({first_line(error)}); give a local model's folder, or use embedded"
        ) from error
    return Clip(model.float(), tokenizer, name=name)
