"""CLIP through open_clip, and its image tower as an encoder."""

from collections.abc import Collection
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

    def maps(self, x: Tensor, stages: Collection[str] | None = None) -> dict[str, Tensor]:
        x = self.tower.stem(self.normalized(x))
        out: dict[str, Tensor] = {}
        for name in self.stages:
            out[name] = x = getattr(self.tower, name)(x)
            if stages is not None and out.keys() >= set(stages):
                break
        return out

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.tower(self.normalized(resized_to(x, self.input_size))), dim=1)


class ClipVitTower(Encoder):
    """The ViT image tower of an open_clip model: patch tokens after each quarter of its blocks as a map, and the
    tower's own output as embedding. Position embeddings are resized (bicubic) for inputs of another size."""

    tower: Any

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.tower = tower = clip.visual
        self.patch, depth = side_of(tower.patch_size), len(tower.transformer.resblocks)
        self.blocks = sorted({max(0, round(depth * part / 4) - 1) for part in (1, 2, 3, 4)})
        width = tower.conv1.out_channels
        self.stages = {f"blocks.{i}": (width, self.patch) for i in self.blocks}
        self.embed_dim, self.input_size = tower.output_dim, side_of(tower.image_size)
        self._normalize_by(tuple(tower.image_mean), tuple(tower.image_std))
        self._seal(tower, ["open_clip", self.input_size])

    def maps(self, x: Tensor, stages: Collection[str] | None = None) -> dict[str, Tensor]:
        grid = [max(1, side // self.patch) for side in x.shape[-2:]]
        whole = (grid[0] * self.patch, grid[1] * self.patch)
        if tuple(x.shape[-2:]) != whole:  # a patch of 14 does not divide a multiple of 32
            x = F.interpolate(x, whole, mode="bilinear", antialias=True, align_corners=False)
        patches = self.tower.conv1(self.normalized(x)).flatten(2).transpose(1, 2)  # (B, h w, C)
        head = self.tower.class_embedding.view(1, 1, -1).expand(len(x), -1, -1)
        tokens = torch.cat([head, patches], 1) + self._positions(grid)
        _, layers = self.tower.transformer.forward_intermediates(self.tower.ln_pre(tokens), indices=self.blocks)
        maps = (tokens[:, 1:].transpose(1, 2).unflatten(2, grid) for tokens in layers)
        return dict(zip(self.stages, maps, strict=True))

    def _positions(self, grid: list[int]) -> Tensor:
        positions, own = self.tower.positional_embedding, self.tower.grid_size
        if tuple(grid) == tuple(own):
            return positions
        table = positions[1:].T.unflatten(1, own)[None]  # (1, C, h, w)
        table = F.interpolate(table, grid, mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([positions[:1], table[0].flatten(1).T])

    def embed(self, x: Tensor) -> Tensor:
        out = self.tower(self.normalized(resized_to(x, self.input_size)))
        return F.normalize(out[0] if isinstance(out, tuple) else out, dim=1)


def tower_of(model: Any) -> Encoder | None:
    """The image tower of an open_clip model as an encoder; None where it has no maps that are known here."""
    if hasattr(model.visual, "layer4"):
        return ClipTower(model)
    if hasattr(model.visual, "class_embedding") and hasattr(model.visual, "transformer"):
        return ClipVitTower(model)
    return None


class Clip(Frozen):
    """A frozen open_clip model. ``encoder`` is its image tower's Encoder where that has feature maps, else None;
    ``logit_scale`` the inverse temperature of its softmax; ``input_size`` in pixels."""

    model: Any
    encoder: Encoder | None
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
        self.__dict__["encoder"] = tower_of(model)

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
