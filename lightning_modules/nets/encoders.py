"""``load_encoder``: a frozen image encoder by name."""

from pathlib import Path

from lightning_modules.nets.base import EMBEDDED, Encoder
from lightning_modules.nets.clip import Clip, load_clip
from lightning_modules.nets.mobilenet import load_mobilenet


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
    return load_mobilenet(which)


def _tower(clip: Clip) -> Encoder:
    if clip.encoder is None:
        raise ValueError(
            f"the image tower of {clip.name} has no feature maps (it is no ResNet); choose another encoder"
        )
    return clip.encoder
