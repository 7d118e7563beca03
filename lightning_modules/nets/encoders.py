"""``load_encoder``: a frozen image encoder by name."""

from pathlib import Path

from lightning_modules.nets.base import EMBEDDED, Encoder
from lightning_modules.nets.clip import Clip, load_clip
from lightning_modules.nets.mobilenet import load_mobilenet
from lightning_modules.nets.staged import load_detector, load_timm, load_torchvision

NAMES = (
    "embedded, torchvision:<model>:default, timm:<model>:pretrained, open_clip:<model>:<tag>, detector:<folder>, "
    "mobilenet_v2:<file.safetensors>, or the folder of an open_clip model"
)


def load_encoder(name: str = EMBEDDED) -> Encoder:
    """A frozen image encoder.

    Args:
        name: one of

            - "embedded": the embedded CLIP's image tower;
            - "torchvision:<model>[:default|none|<file>]": the last feature map at each stride of any torchvision
              classifier that has some, with published weights (downloaded once), random ones, or a safetensors file;
            - "timm:<model>[:pretrained|none|<file>]": the same of any timm model with ``features_only``;
            - "open_clip:<model>:<tag or checkpoint file>", "hf-hub:<id>", or the folder of an open_clip model: its
              image tower, a ResNet's layers or a ViT's patch tokens as a map;
            - "detector:<folder>": the feature pyramid of a detector that ``gsal train`` wrote;
            - "mobilenet_v2:default", "mobilenet_v2:none", "mobilenet_v2:<file>" or a ``.safetensors`` file alone:
              torchvision's MobileNetV2, embedding at 96 px, which is cheap.

    Inputs are normalized as the weights expect. A file of torchvision weights may say so in its metadata (``input``:
    "imagenet" or "minus1_1"); without it ImageNet's mean and std are taken, except for "mobilenet_v2:", where [-1, 1]
    is: TensorFlow's MobileNets and weights converted from them expect that.

    Raises:
        ValueError: when the name or the model is unknown, the weights are missing, do not fit, or cannot be downloaded,
            or the model has no feature maps.
    """
    if name == EMBEDDED or name.startswith("hf-hub:") or (":" not in name and Path(name).is_dir()):
        return _tower(load_clip(name))
    if name in ("default", "none") or (":" not in name and name.endswith(".safetensors")):
        return load_mobilenet(name)
    kind, _, rest = name.partition(":")
    model, _, which = rest.partition(":")
    if not rest:
        raise ValueError(f"unknown encoder {name!r}; give {NAMES}")
    if kind == "mobilenet_v2":
        return load_mobilenet(rest)
    if kind == "torchvision":
        return load_torchvision(model, which or "default")
    if kind == "timm":
        return load_timm(model, which or "pretrained")
    if kind == "open_clip":
        return _tower(load_clip(model, which or None))
    if kind == "detector":
        return load_detector(Path(rest).expanduser())
    raise ValueError(f"unknown kind of encoder {kind!r} in {name!r}; give {NAMES}")


def untrained(name: str) -> str:
    """The encoder of the same architecture that needs no weights file, where there is one; else ``name``.

    A folder that holds trained weights of the whole encoder is loaded into it.
    """
    kind, _, rest = name.partition(":")
    if kind in ("torchvision", "timm"):
        return f"{kind}:{rest.partition(':')[0]}:none"
    if kind == "mobilenet_v2" or name in ("default", "none") or (not rest and name.endswith(".safetensors")):
        return "mobilenet_v2:none"
    return name


def _tower(clip: Clip) -> Encoder:
    if clip.encoder is None:
        raise ValueError(
            f"the image tower of {clip.name} gives no feature maps: it is neither open_clip's ResNet nor its ViT; "
            "take the timm model inside by timm:<model>"
        )
    return clip.encoder
