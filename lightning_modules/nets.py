"""Pretrained networks behind three doors: ``load_encoder``, ``load_clip``, ``load_denoiser``.

The only file that knows hub ids, local paths and file formats. Everything comes back frozen, in eval mode, in float32.
"""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

EMBEDDED = "embedded"
DEFAULTS = {"t": 0.4, "reduce": "mean", "regions": "crops", "crop_size": 256, "draws": 4}  # METHOD.md, literal
FEATURE_DEFAULTS = {"t": 0.7, "reduce": "max", "regions": "maps"}  # measured there; a folder's own choice goes first
MOBILENET_STAGES = OrderedDict(  # name -> (channels, stride, last module of the stage)
    {"features.3": (24, 4, 3), "features.6": (32, 8, 6), "features.13": (96, 16, 13), "features.18": (1280, 32, 18)}
)
MOBILENET_INPUT = 96  # px; on steel crops prototypes were right as often as at 128 and 224, at a third of the cost
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HUB_FILES = [
    "*.json",
    "*/*.json",
    "features.safetensors",
    "*/diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "tokenizer/*",
]


def embedded_folder(kind: str) -> Path:
    """The packaged folder of ``kind`` ("clip" or "diffusion"); raises ValueError when the installation lacks it."""
    folder = Path(str(resources.files("gsal_fo"))) / "embedded" / kind
    if not folder.is_dir():
        raise ValueError(f"the embedded {kind} model is missing at {folder}; reinstall gsal-fo or name another model")
    return folder


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

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Maps {stage: (B, C, H / stride, W / stride)} of RGB images (B, 3, H, W) in [0, 1], sides multiples of 32."""
        raise NotImplementedError

    def embed(self, x: Tensor) -> Tensor:
        """Unit rows (B, D) of RGB images (B, 3, H, W) in [0, 1], resized to ``input_size`` where they are not."""
        raise NotImplementedError


def _fit(x: Tensor, size: int) -> Tensor:
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)


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

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        x = self.normalized(x)
        out: dict[str, Tensor] = {}
        start = 0
        for name, (_, _, last) in MOBILENET_STAGES.items():
            x = self.features[start : last + 1](x)
            out[name], start = x, last + 1
        return out

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.features(self.normalized(_fit(x, self.input_size))).mean((2, 3)), dim=1)


class ClipTower(Encoder):
    """The ResNet image tower of an open_clip model: its four layers, and the pooled projection as embedding."""

    tower: Any

    def __init__(self, clip: Any) -> None:
        super().__init__()
        tower = clip.visual
        self.tower = tower
        layers = ("layer1", "layer2", "layer3", "layer4")
        self.stages = {name: (getattr(tower, name)[-1].conv3.out_channels, 4 * 2**i) for i, name in enumerate(layers)}
        self.embed_dim, self.input_size = tower.output_dim, _side(tower.image_size)
        self._normalize_by(tuple(tower.image_mean), tuple(tower.image_std))
        self._seal(tower, ["open_clip", self.input_size])

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        x = self.tower.stem(self.normalized(x))
        out: dict[str, Tensor] = {}
        for name in self.stages:
            out[name] = x = getattr(self.tower, name)(x)
        return out

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(self.tower(self.normalized(_fit(x, self.input_size))), dim=1)


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
        self.input_size = _side(model.visual.image_size)
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
        x = (_fit(x, self.input_size) - self.mean) / self.std
        return F.normalize(self.model.encode_image(x).float(), dim=1)


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, tuple | list) else size)


def load_encoder(name: str = EMBEDDED) -> Encoder:
    """A frozen image encoder.

    Args:
        name: "embedded" (the embedded CLIP's image tower); "mobilenet_v2:default" or "default" (torchvision's ImageNet
            weights, downloaded once); "mobilenet_v2:none" or "none" (random weights); "mobilenet_v2:<file>" or a
            ``.safetensors`` file with weights of ``torchvision.models.mobilenet_v2``; or the folder of an open_clip
            model with a ResNet tower.

    A weights file may say in its metadata how inputs are scaled (``input``: "imagenet" or "minus1_1"). Without it
    [-1, 1] is taken, which TensorFlow's MobileNets and weights converted from them expect; torchvision's own enum is
    normalized by ImageNet's mean and std.

    Raises:
        ValueError: when the weights are missing, do not fit, or cannot be downloaded.
    """
    if name == EMBEDDED:
        return _tower(load_clip(EMBEDDED))
    kind, _, which = name.partition(":")
    if kind != "mobilenet_v2":
        if Path(name).is_dir():
            return _tower(load_clip(name))
        if name not in ("default", "none") and not name.endswith(".safetensors"):
            raise ValueError(
                f"unknown encoder {name!r}; give embedded, mobilenet_v2:default, mobilenet_v2:<file.safetensors> or "
                "the folder of an open_clip ResNet"
            )
        which = name
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
        with torch.random.fork_rng(
            devices=[]
        ):  # the same random features in every process, and no trace in the caller's
            torch.manual_seed(0)
            return MobileNetEncoder(mobilenet_v2(), mean=(0.5,) * 3, std=(0.5,) * 3)
    net = mobilenet_v2()
    weights, about = _read_safetensors(Path(which))
    # The classifier is not used: a file without it is as good.
    missing, unexpected = net.load_state_dict(weights, strict=False)  # half precision is cast to the net's float32
    if lost := [k for k in missing if not k.startswith("classifier.") and not k.endswith("num_batches_tracked")]:
        raise ValueError(f"{which}: no MobileNetV2 weights, {len(lost)} tensors are missing, such as {lost[0]}")
    if unexpected:
        raise ValueError(f"{which}: no MobileNetV2 weights, unknown tensor {unexpected[0]}")
    if about.get("input") == "imagenet":
        return MobileNetEncoder(net, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return MobileNetEncoder(net, mean=(0.5,) * 3, std=(0.5,) * 3)


def _tower(clip: Clip) -> Encoder:
    if clip.encoder is None:
        raise ValueError(
            f"the image tower of {clip.name} has no feature maps (it is no ResNet); choose another encoder"
        )
    return clip.encoder


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    if not path.is_file():
        raise ValueError(f"weights file {path} does not exist; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as f:
            about = f.metadata() or {}
        return load_file(path), about
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable safetensors file ({error}); download or export it again") from error


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
            f"CLIP model {name} cannot be loaded ({_first_line(error)}); give a local model's folder, or use embedded"
        ) from error
    return Clip(model.float(), tokenizer, name=name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class FeatureSpace(Frozen):
    """Frozen encoder maps as a latent: stages on one grid, standardized per channel, rotated to their main axes.

    Args:
        encoder: where the maps come from.
        stages: names of the encoder's stages, joined in this order.
        stride: pixels per latent cell: an input of side S gives ``S / stride`` cells.
        mean, std: (D,) per channel of the joined stages.
        components: (C, D) unit principal axes of the standardized features.
        scale: (C,) what each component is divided by.
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
    ) -> None:
        super().__init__()
        if unknown := [s for s in stages if s not in encoder.stages]:
            raise ValueError(f"the encoder has no stage {unknown}; it has {list(encoder.stages)}")
        width = sum(encoder.stages[s][0] for s in stages)
        if mean.shape != (width,) or std.shape != (width,) or components.shape[1:] != (width,):
            raise ValueError(
                f"stages {stages} have {width} channels; the feature space was fitted on {components.shape[-1]}"
            )
        self.encoder, self.stages, self.stride = encoder, stages, stride
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
    maps = encoder.maps(x)
    parts = [
        maps[s]
        if maps[s].shape[-2:] == grid
        else F.interpolate(maps[s], grid, mode="bilinear", antialias=True, align_corners=False)
        for s in stages
    ]
    return torch.cat(parts, 1)


class Denoiser(Frozen):
    """A frozen diffusion model: its latent and its clean prediction.

    Attributes:
        space: "vae" (autoencoder latents), "features" (encoder maps) or "pixels".
        input_size: side in pixels of a whole image as fed to ``latent``; crops use ``defaults["crop_size"]``.
        alphas_cumprod: (T,) cumulative product of 1 - beta.
        defaults: t (share of T), reduce, regions, crop_size, draws.
        digest: 16 hex characters of all weights and settings that a score depends on.
    """

    alphas_cumprod: Tensor
    prompt: Tensor | None
    unet: Any
    coder: Any

    def __init__(
        self,
        unet: Any,
        *,
        space: str,
        alphas_cumprod: Tensor,
        prediction: str,
        input_size: int,
        defaults: Mapping[str, Any],
        coder: Any = None,
        prompt: Tensor | None = None,
        clip_range: float | None = None,
    ) -> None:
        super().__init__()
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"the scheduler's prediction_type must be epsilon, v_prediction or sample; got {prediction!r}"
            )
        self.unet, self.coder, self.space, self.prediction = unet, coder, space, prediction
        self.input_size, self.clip_range = input_size, clip_range
        self.defaults = {**DEFAULTS, **(FEATURE_DEFAULTS if space == "features" else {}), **defaults}
        self.register_buffer("alphas_cumprod", alphas_cumprod.float())
        self.register_buffer("prompt", prompt)
        encoder_digest = coder.encoder.digest if isinstance(coder, FeatureSpace) else None
        self.digest = weights_digest(self, [space, prediction, input_size, clip_range, encoder_digest])
        self.requires_grad_(False).eval()

    def latent(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w) of RGB images (B, 3, H, W) in [0, 1]: posterior mean, scaled (METHOD.md section 4)."""
        if self.space == "features":
            return self.coder(x)
        x = x * 2 - 1
        if self.space == "pixels":
            return x.mean(1, keepdim=True) if self.unet.config.in_channels == 1 else x
        return autoencoder_latent(self.coder, x)

    def predict_x0(self, z_t: Tensor, t: int) -> Tensor:
        """The clean prediction from noised latents (N, C, h, w) at step ``t`` in [0, T).

        Source: Ho et al. 2020 (arXiv:2006.11239) Eq. 15 for epsilon; Salimans & Ho 2022 (arXiv:2202.00512) for v.
        """
        a = self.alphas_cumprod[t]
        times = torch.full((len(z_t),), t, device=z_t.device, dtype=torch.long)
        if self.prompt is None:
            out = self.unet(z_t, times).sample
        else:
            out = self.unet(z_t, times, encoder_hidden_states=self.prompt.expand(len(z_t), -1, -1)).sample
        out = out[:, : z_t.shape[1]]  # a model that also predicts its variance has twice the channels
        if self.prediction == "epsilon":
            out = (z_t - (1 - a).sqrt() * out) / a.sqrt()
        elif self.prediction == "v_prediction":
            out = a.sqrt() * z_t - (1 - a).sqrt() * out
        return out if self.clip_range is None else out.clamp(-self.clip_range, self.clip_range)


def load_denoiser(name: str = EMBEDDED) -> Denoiser:
    """A frozen diffusion model from a diffusers folder.

    Args:
        name: "embedded", a folder, or a hub id ("owner/name", fetched once into the hub's cache). Layout: ``unet/`` and
            ``scheduler/`` (or a bare unconditional pipeline with the U-Net's files on top), optional ``vae/``,
            ``text_encoder/`` with ``tokenizer/``; and, for a model made by ``fit_diffusion``, ``gsal.json`` with
            ``features.safetensors``. Weights are safetensors only.

    Raises:
        ValueError: when it is missing, incomplete, of a kind that has no clean prediction, or cannot be downloaded.
    """
    folder = _folder_of(name)
    about: dict[str, Any] = {}
    if (folder / "gsal.json").is_file():
        about = _read_json(folder / "gsal.json")
    unet = _unet(folder)
    alphas, prediction, clip_range = _schedule(folder)
    defaults = {k: v for k, v in about.get("defaults", {}).items() if k in DEFAULTS}
    space, prompt = about.get("space"), None
    coder: Any = None
    if space is None:
        space = "vae" if (folder / "vae").is_dir() else "pixels"
    if space == "features":
        coder = _feature_space(folder, about)
        size = int(about["input_size"])
    elif space == "vae":
        coder = _autoencoder(folder)
        # The autoencoder halves once per level after the first.
        factor = 2 ** (len(getattr(coder.config, "block_out_channels", (1,) * 4)) - 1)
        if hasattr(coder.config, "encoder_block_out_channels"):
            factor = 2 ** (len(coder.config.encoder_block_out_channels) - 1)
        size = int(about.get("input_size") or _side(unet.config.sample_size or 64) * factor)
    elif space == "pixels":
        size = int(about.get("input_size") or _side(unet.config.sample_size or 256))
    else:
        raise ValueError(f"{folder}/gsal.json: space must be vae, features or pixels; got {space!r}")
    if space == "pixels" and unet.config.in_channels not in (1, 3):
        raise ValueError(f"{folder}: a U-Net of {unet.config.in_channels} input channels needs its autoencoder in vae/")
    if getattr(unet.config, "cross_attention_dim", None):
        prompt = _empty_prompt(folder)
    return Denoiser(
        unet,
        space=space,
        alphas_cumprod=alphas,
        prediction=prediction,
        input_size=size,
        defaults={"crop_size": min(size, 256), **defaults},
        coder=coder,
        prompt=prompt,
        clip_range=clip_range if space == "pixels" else None,
    )


def _folder_of(name: str) -> Path:
    if name == EMBEDDED:
        return embedded_folder("diffusion")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        raise ValueError(f'no diffusion model {name!r}: give "embedded", an existing folder, or a hub id "owner/name"')
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*.fp16.*", "safety_checker/*"]))
    except Exception as error:  # the hub raises what its HTTP back ends raise
        raise ValueError(
            f"diffusion model {name} is neither a folder nor reachable on the hub ({_first_line(error)}); give a local "
            'folder, or leave the model at "embedded"'
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); save the model again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(values).__name__}; save the model again")
    return values


def _from_folder(kind: Any, folder: Path, sub: str | None) -> Any:
    """``kind.from_pretrained`` on a local folder, safetensors only, float32."""
    where = folder / sub if sub else folder
    try:
        # Random initialization of what is then overwritten must leave no trace in the caller's generator.
        with torch.random.fork_rng(devices=[]):
            model = kind.from_pretrained(where, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32)
    except Exception as error:  # diffusers and transformers raise OSError, ValueError, RuntimeError and their own
        raise ValueError(
            f"{where}: no usable {kind.__name__} ({_first_line(error)}); it needs config.json and safetensors weights"
        ) from error
    return model.float()


def _unet(folder: Path) -> Any:
    import diffusers

    sub = "unet" if (folder / "unet").is_dir() else None
    config = folder / (sub or "") / "config.json"
    if not config.is_file():
        raise ValueError(
            f"{folder} is no diffusers folder: it has no unet/config.json; give a folder saved by diffusers"
        )
    name = _read_json(config).get("_class_name", "UNet2DModel")
    if name not in ("UNet2DModel", "UNet2DConditionModel"):
        raise ValueError(f"{config}: the denoiser must be a UNet2DModel or UNet2DConditionModel; got {name}")
    return _from_folder(getattr(diffusers, name), folder, sub)


def _schedule(folder: Path) -> tuple[Tensor, str, float | None]:
    """``alphas_cumprod``, the prediction type, and the range that clean predictions are clipped to, if any."""
    from diffusers import DDPMScheduler

    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        path = folder / "scheduler_config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no scheduler/scheduler_config.json; save the model with its scheduler")
    config = _read_json(path)
    if "beta_schedule" not in config and "beta_start" not in config and "trained_betas" not in config:
        raise ValueError(
            f"{path}: {config.get('_class_name')} has no betas; only DDPM-like schedules have a clean prediction"
        )
    if config.get("thresholding"):
        raise ValueError(
            f"{path}: dynamic thresholding makes a prediction depend on its batch; set thresholding to false"
        )
    # The betas, not the sampler, are needed: any DDPM-like scheduler's file describes them in the same words.
    known = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    scheduler = DDPMScheduler(**{k: config[k] for k in known if config.get(k) is not None})
    clips = bool(config.get("clip_sample", config.get("_class_name") == "DDPMScheduler"))
    clip_range = float(config.get("clip_sample_range") or 1.0) if clips else None
    return scheduler.alphas_cumprod, str(config.get("prediction_type", "epsilon")), clip_range


def _autoencoder(folder: Path, sub: str | None = "vae") -> Any:
    import diffusers

    where = folder / (sub or "")
    name = _read_json(where / "config.json").get("_class_name", "AutoencoderKL")
    if name not in ("AutoencoderKL", "AutoencoderTiny"):
        raise ValueError(f"{where}: the autoencoder must be an AutoencoderKL or AutoencoderTiny; got {name}")
    return _from_folder(getattr(diffusers, name), folder, sub)


@torch.no_grad()
def _empty_prompt(folder: Path) -> Tensor:
    """The empty prompt's embedding (1, L, D), from the folder's own text encoder, which is then dropped."""
    saved = folder / "empty_prompt.safetensors"
    if saved.is_file():
        return _read_safetensors(saved)[0]["prompt"].float()
    if not (folder / "text_encoder").is_dir() or not (folder / "tokenizer").is_dir():
        raise ValueError(f"{folder}: a conditional U-Net needs text_encoder/ and tokenizer/ for its empty prompt")
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except Exception as error:
        raise ValueError(
            f"{folder}/tokenizer: no usable CLIPTokenizer ({_first_line(error)}); save it again"
        ) from error
    encoder = _from_folder(CLIPTextModel, folder, "text_encoder").eval()
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    ids = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return encoder(ids)[0].float()


def _feature_space(folder: Path, about: Mapping[str, Any]) -> FeatureSpace:
    if missing := [k for k in ("encoder", "stages", "stride", "input_size") if k not in about]:
        raise ValueError(f"{folder}/gsal.json lacks {missing}; fit the model again")
    encoder = load_encoder(str(about["encoder"]))
    if about.get("encoder_digest") not in (None, encoder.digest):
        raise ValueError(
            f"{folder} was fitted on the features of other weights of {about['encoder']}; fit it again on this encoder"
        )
    stored, _ = _read_safetensors(folder / "features.safetensors")
    if missing := [k for k in ("mean", "std", "components", "scale") if k not in stored]:
        raise ValueError(f"{folder}/features.safetensors lacks {missing}; fit the model again")
    picked = {k: stored[k] for k in ("mean", "std", "components", "scale")}
    return FeatureSpace(encoder, stages=list(about["stages"]), stride=int(about["stride"]), **picked)


def load_autoencoder(name: str) -> Any:
    """A frozen AutoencoderKL or AutoencoderTiny: its own folder, a diffusers folder with ``vae/``, or a hub id.

    Raises ValueError where it is missing, of another kind, or cannot be downloaded.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
            raise ValueError(f'no autoencoder {name!r}: give an existing folder, or a hub id "owner/name"')
        folder = _folder_of(name)
    if not (folder / "vae").is_dir() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no autoencoder: it has neither vae/ nor config.json; give one that diffusers saved"
        )
    sub = "vae" if (folder / "vae").is_dir() else None
    return _autoencoder(folder, sub).requires_grad_(False).eval()


def autoencoder_latent(coder: Any, x: Tensor) -> Tensor:
    """Latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]: posterior mean, scaled."""
    out = coder.encode(x)
    z = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latents
    return (z - (getattr(coder.config, "shift_factor", None) or 0.0)) * coder.config.scaling_factor


def autoencoder_picture(coder: Any, z: Tensor) -> Tensor:
    """Images (B, 3, H, W), about [-1, 1], of scaled latents."""
    return coder.decode(z / coder.config.scaling_factor + (getattr(coder.config, "shift_factor", None) or 0.0)).sample
