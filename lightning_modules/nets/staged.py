"""Encoders over any network that returns several feature maps: torchvision's, timm's, a trained detector's backbone."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from lightning_modules.nets.base import Encoder, resized_to
from lightning_modules.nets.files import first_line, read_safetensors

PROBE = (224, 192)  # pixels, unequal so that a map's axes can be told apart; both are multiples of 32
STRIDES = (4, 8, 16, 32)
HALF = (0.5, 0.5, 0.5)


class StagedEncoder(Encoder):
    """Feature maps of ``net``: images to {stage: (B, C, H / stride, W / stride)}. The embedding is the mean over the
    cells of the coarsest stage, which for a torchvision or timm CNN is what its classifier reads."""

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int,
        settings: Any,
        probe: tuple[int, int] = PROBE,
    ) -> None:
        super().__init__()
        self.net, self.input_size = net, input_size
        self._shorter: dict[tuple[str, ...], nn.Module] = {}  # by stages; they share the layers of ``net``
        self._normalize_by(tuple(mean), tuple(std))
        self._seal(net, settings)
        with torch.no_grad():
            found = net(torch.zeros(1, 3, *probe))
        self.stages = {k: (m.shape[1], probe[0] // m.shape[2]) for k, m in found.items()}
        self.embed_dim = self.stages[next(reversed(self.stages))][0]

    def maps(self, x: Tensor, stages: Collection[str] | None = None) -> dict[str, Tensor]:
        net = self.net
        if stages is not None and isinstance(net, GraphModule):
            wanted = tuple(s for s in self.stages if s in stages)
            if wanted not in self._shorter:
                self._shorter[wanted] = shortened(net, wanted)
            net = self._shorter[wanted]
        return dict(net(self.normalized(x)))

    def embed(self, x: Tensor) -> Tensor:
        maps = self.net(self.normalized(resized_to(x, self.input_size)))
        return F.normalize(maps[next(reversed(self.stages))].mean((2, 3)), dim=1)


def shortened(net: GraphModule, stages: Sequence[str]) -> GraphModule:
    """A traced network of several maps without the layers that none of ``stages`` needs; it shares those that stay."""
    graph = Graph()
    found: Any = graph.graph_copy(net.graph, {})
    graph.output({name: found[name] for name in stages})
    short = GraphModule(net, graph)
    short.graph.eliminate_dead_code()
    short.recompile()
    short.delete_all_unused_submodules()
    return short.eval()


class TimmMaps(nn.Module):
    """A ``features_only`` timm model with its maps named and channels first, as its ``feature_info`` describes them."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.names, self.widths = net, net.feature_info.module_name(), net.feature_info.channels()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.net(x)
        # Some window transformers give (B, H, W, C).
        first = (m if m.shape[1] == c else m.permute(0, 3, 1, 2) for m, c in zip(maps, self.widths, strict=True))
        return dict(zip(self.names, first, strict=True))


class DetectorMaps(nn.Module):
    """A detector's feature pyramid without its pooled extra level."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {f"fpn.{k}": m for k, m in self.backbone(x).items() if k != "pool"}


def load_torchvision(name: str, which: str) -> Encoder:
    """Any torchvision classifier with feature maps; ``which`` is "default", "none" or a safetensors file.

    The stages are the last maps at strides 4, 8, 16 and 32, named by their nodes in torchvision's feature extraction.
    """
    import torchvision
    from torchvision.models import get_model, get_model_weights, list_models
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    if name not in list_models(module=torchvision.models):
        raise ValueError(f"torchvision has no classifier {name!r}; see torchvision.models.list_models()")
    best: Any = get_model_weights(name)
    preset: Any = best.DEFAULT.transforms()
    mean, std, size = preset.mean, preset.std, int(preset.crop_size[0])
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # "none" is the same in every process
            net = get_model(name, weights=best.DEFAULT if which == "default" else None).eval()
    except OSError as error:
        raise ValueError(
            f"torchvision's {name} weights cannot be downloaded ({error}); give torchvision:{name}:<file.safetensors>"
        ) from error
    if which not in ("default", "none"):
        weights, about = read_safetensors(Path(which))
        _load_weights(net, weights, f"{which}: no weights of torchvision's {name}", head=_head_of(net))
        if about.get("input") == "minus1_1":
            mean, std = HALF, HALF
    try:
        nodes = [n for n in get_graph_node_names(net)[1] if n != "x"]
        with torch.no_grad():
            found = create_feature_extractor(net, nodes).eval()(torch.zeros(1, 3, *PROBE))
    except Exception as error:  # tracing raises what the model's own checks raise
        raise ValueError(
            f"torchvision's {name} has no feature maps at every input size ({first_line(error)}); take a CNN, or timm:"
        ) from error
    last: dict[int, str] = {}
    for node, m in found.items():
        for stride in STRIDES:
            grid = (PROBE[0] // stride, PROBE[1] // stride)
            if isinstance(m, Tensor) and m.ndim == 4 and tuple(m.shape[2:]) == grid:
                last[stride] = node
    if not last:
        raise ValueError(f"torchvision's {name} has no feature map at stride {STRIDES}; take a CNN, or timm:")
    extractor = create_feature_extractor(net, [last[s] for s in sorted(last)])
    return StagedEncoder(extractor.eval(), mean=mean, std=std, input_size=size, settings=["torchvision", name])


def load_timm(name: str, which: str) -> Encoder:
    """Any timm model with ``features_only``; ``which`` is "pretrained", "none" or a safetensors file."""
    import timm

    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}; see timm.list_models('*{name.split('_')[0]}*')")
    overlay: dict[str, Any] | None = None
    if which not in ("pretrained", "none"):
        weights, _ = read_safetensors(Path(which))
        plain: Any = timm.create_model(name)
        _load_weights(plain, weights, f"{which}: no weights of timm's {name}", head=_head_of(plain))
        overlay = {"file": which}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = _timm_features(timm, name, which != "none", overlay)
    except Exception as error:  # timm raises what its hub and its builders raise
        raise ValueError(
            f"timm's {name} cannot be loaded for feature maps ({first_line(error)}); give a local file as "
            f"timm:{name}:<file.safetensors>, or another model"
        ) from error
    facts = timm.data.resolve_model_data_config(net)
    size = int(facts["input_size"][-1])
    probe = PROBE
    try:
        with torch.no_grad():
            net(torch.zeros(1, 3, *PROBE))
    except (AssertionError, RuntimeError, ValueError):
        probe = (size, size)  # a transformer of fixed size
    return StagedEncoder(
        TimmMaps(net).eval(),
        mean=facts["mean"],
        std=facts["std"],
        input_size=size,
        settings=["timm", name],
        probe=probe,
    )


def _timm_features(timm: Any, name: str, pretrained: bool, overlay: dict[str, Any] | None) -> Any:
    given = {"pretrained": pretrained, "features_only": True, "pretrained_cfg_overlay": overlay}
    try:  # vision transformers take other sizes only when told so
        return timm.create_model(name, dynamic_img_size=True, dynamic_img_pad=True, **given).eval()
    except TypeError:
        return timm.create_model(name, **given).eval()


def load_detector(folder: Path) -> Encoder:
    """The feature pyramid of a folder that ``gsal train`` wrote, as the detector itself computes it."""
    from lightning_modules.detectors import faster_rcnn  # it needs encoders itself

    model, facts = faster_rcnn.load(folder)
    scale: Any = model.transform
    return StagedEncoder(
        DetectorMaps(model.backbone).eval(),
        mean=scale.image_mean,
        std=scale.image_std,
        input_size=int(scale.min_size[-1]) // 32 * 32,
        settings=["detector", facts["arch"]],
    )


def _head_of(net: nn.Module) -> str:
    """Name prefix of the classifier, the last layer with weights."""
    return [n for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1].split(".")[0] + "."


def _load_weights(net: nn.Module, weights: Mapping[str, Tensor], what: str, *, head: str) -> None:
    """Load all but the classifier, which is not used; raises ValueError where tensors are missing or unknown."""
    try:
        used = {k: v for k, v in weights.items() if not k.startswith(head)}
        missing, unexpected = net.load_state_dict(used, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{what} ({first_line(error)}); give the matching file") from error
    lost = [k for k in missing if not k.startswith(head) and not k.endswith("num_batches_tracked")]
    if odd := [*lost, *unexpected]:
        raise ValueError(f"{what}: {len(lost)} tensors missing, {len(unexpected)} unknown, such as {odd[0]}")
