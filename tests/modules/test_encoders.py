"""Encoders by name, each against its own library called by hand on the same weights."""

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.models import resnet18

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import assign_clip, background_embeddings, text_embeddings
from lightning_modules.detectors import faster_rcnn
from lightning_modules.nets import joined_maps, load_clip, load_encoder

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A tiny CLIP with a ViT tower under a name of its own: the model, its open_clip name and its checkpoint file."""
    folder = tmp_path_factory.mktemp("vit")
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "layers": 4, "width": 16, "head_width": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    (folder / "tiny-test-vit.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-test-vit.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-test-vit").eval()
    torch.save(model.state_dict(), folder / "weights.pt")
    return model, "tiny-test-vit", str(folder / "weights.pt")


def test_torchvision_maps_and_embedding_are_the_network_s_own(tmp_path):
    torch.manual_seed(0)
    net, x = resnet18().eval(), torch.rand(2, 3, 96, 64)
    body = {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    save_file(body, tmp_path / "w.safetensors")
    encoder = load_encoder(f"torchvision:resnet18:{tmp_path / 'w.safetensors'}")
    assert list(encoder.stages.values()) == [(64, 4), (128, 8), (256, 16), (512, 32)] and encoder.input_size == 224
    with torch.no_grad():
        y = net.maxpool(net.relu(net.bn1(net.conv1((x - MEAN) / STD))))
        maps = encoder.maps(x)
        for layer, (name, (channels, stride)) in zip("1234", encoder.stages.items(), strict=True):
            y = getattr(net, f"layer{layer}")(y)
            torch.testing.assert_close(maps[name], y, **CLOSE)
            assert y.shape[1:] == (channels, 96 // stride, 64 // stride)
        net.fc = torch.nn.Identity()
        big = torch.rand(1, 3, 224, 224)
        torch.testing.assert_close(encoder.embed(big), F.normalize(net((big - MEAN) / STD), dim=1), **CLOSE)
        assert encoder.embed(x).shape == (2, encoder.embed_dim)
        assert joined_maps(encoder, x, list(encoder.stages)[1:3], 8).shape == (2, 384, 12, 8)
    assert not any(p.requires_grad for p in encoder.parameters())
    save_file(body, tmp_path / "m.safetensors", metadata={"input": "minus1_1"})
    other = load_encoder(f"torchvision:resnet18:{tmp_path / 'm.safetensors'}")
    assert other.mean.flatten().tolist() == [0.5] * 3 and other.digest != encoder.digest


@pytest.mark.parametrize("name", ["mobilenet_v2:none", "torchvision:resnet18:none", "embedded"])
def test_a_shallow_stage_alone_is_the_same_map_without_the_layers_behind_it(name):
    encoder, x = load_encoder(name), torch.rand(2, 3, 64, 96)
    first, second, *_, last = encoder.stages
    ran = []
    for module in encoder.modules():
        module.register_forward_hook(lambda m, *_: ran.append(m))
    with torch.no_grad():
        whole = encoder.maps(x)
        every, ran[:] = len(ran), []
        shallow = encoder.maps(x, [second])
    assert 0 < len(ran) < every and last not in shallow
    torch.testing.assert_close(shallow[second], whole[second], atol=0, rtol=0)
    with torch.no_grad():
        again = encoder.maps(x, [last, first])
    assert all(torch.equal(again[s], whole[s]) for s in (first, last))


def test_timm_maps_are_those_of_the_whole_model(tmp_path):
    torch.manual_seed(1)
    plain, x = timm.create_model("resnet10t").eval(), torch.rand(1, 3, 64, 96)
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    encoder = load_encoder(f"timm:resnet10t:{tmp_path / 'w.safetensors'}")
    facts = timm.data.resolve_model_data_config(plain)
    mean, std = (torch.tensor(facts[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        maps, last = encoder.maps(x), plain.forward_features((x - mean) / std)
        torch.testing.assert_close(maps["layer4"], last, **CLOSE)
        side = encoder.input_size
        big = torch.rand(1, 3, side, side)
        head = plain.forward_head(plain.forward_features((big - mean) / std), pre_logits=True)
        torch.testing.assert_close(encoder.embed(big), F.normalize(head, dim=1), **CLOSE)
    for name, (channels, stride) in encoder.stages.items():
        assert maps[name].shape == (1, channels, 64 // stride, 96 // stride)


def test_a_timm_transformer_takes_any_size_and_equals_its_blocks(tmp_path):
    torch.manual_seed(2)
    plain, x = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval(), torch.rand(1, 3, 96, 64)
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    encoder = load_encoder(f"timm:vit_tiny_patch16_224:{tmp_path / 'w.safetensors'}")
    blocks = [int(name.removeprefix("blocks.")) for name in encoder.stages]
    with torch.no_grad():
        expected = plain.forward_intermediates(x * 2 - 1, indices=blocks, intermediates_only=True)  # mean, std 0.5
        for ours, theirs in zip(encoder.maps(x).values(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)
    assert set(encoder.stages.values()) == {(192, 16)}


def test_a_clip_vit_s_patch_tokens_are_a_map(vit):
    model, name, weights = vit
    encoder, x = load_encoder(f"open_clip:{name}:{weights}"), torch.rand(2, 3, 64, 64)
    assert encoder.stages == {f"blocks.{i}": (16, 16) for i in range(4)}
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std))
    with torch.no_grad():
        by_hand = model.visual.forward_intermediates((x - mean) / std, indices=[0, 1, 2, 3])
        for ours, theirs in zip(encoder.maps(x).values(), by_hand["image_intermediates"], strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)
        torch.testing.assert_close(encoder.embed(x), F.normalize(model.encode_image((x - mean) / std), dim=1), **CLOSE)
        assert encoder.maps(torch.rand(1, 3, 96, 128))["blocks.3"].shape == (1, 16, 6, 8)


def test_an_open_clip_name_with_a_checkpoint_file_is_that_model(vit):
    model, name, weights = vit
    clip, x, texts = load_clip(name, weights), torch.rand(2, 3, 64, 64), ["a void", "a crack"]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std))
    with torch.no_grad():
        torch.testing.assert_close(clip.embed(x), F.normalize(model.encode_image((x - mean) / std), dim=1), **CLOSE)
        text = F.normalize(model.encode_text(open_clip.get_tokenizer(name)(texts)), dim=1)
        torch.testing.assert_close(clip.encode_text(texts), text, **CLOSE)
    assert clip.encoder is not None and clip.encoder.stages


def test_a_detector_s_pyramid_is_what_the_detector_computes(tmp_path):
    torch.manual_seed(3)
    model = faster_rcnn.build("small", classes=2, backbone="none", size=128).eval()
    faster_rcnn.save(model, tmp_path, {"arch": "small", "classes": ["a", "b"], "backbone": "none", "size": 128})
    encoder, x = load_encoder(f"detector:{tmp_path}"), torch.rand(1, 3, 128, 64)
    with torch.no_grad():
        expected, maps = model.backbone(model.transform.normalize(x[0])[None]), encoder.maps(x)
        for key, m in expected.items():
            torch.testing.assert_close(maps[f"fpn.{key}"], m, **CLOSE)
    assert [stride for _, stride in encoder.stages.values()] == [8, 16, 32] and encoder.input_size == 128
    assert encoder.embed(x).norm() == pytest.approx(1, abs=1e-5)


def test_a_detector_on_any_encoder_is_loaded_without_the_encoder_s_own_file(tmp_path):
    torch.manual_seed(4)
    save_file(resnet18().state_dict(), tmp_path / "w.safetensors")
    backbone = f"torchvision:resnet18:{tmp_path / 'w.safetensors'}"
    model = faster_rcnn.build("small", classes=1, backbone=backbone, size=64).eval()
    faster_rcnn.save(model, tmp_path / "out", {"arch": "small", "classes": ["a"], "backbone": backbone, "size": 64})
    (tmp_path / "w.safetensors").unlink()
    again, x = faster_rcnn.load(tmp_path / "out")[0], torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(again.backbone(x).values(), model.backbone(x).values(), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("torchvision:resnet9000", "no classifier 'resnet9000'"),
        ("torchvision:vit_b_16:none", "no feature maps at every input size"),
        ("timm:resnet9000", "timm has no model"),
        ("timm:resnet10t:/nowhere/w.safetensors", "does not exist"),
        ("open_clip:my-clip:laion", "no CLIP model"),
        ("detector:/nowhere", "not a detector checkpoint"),
        ("tensorhub:resnet18", "unknown kind of encoder 'tensorhub'"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_refused_with_a_cure(name, says):
    with pytest.raises(ValueError, match=says):
        load_encoder(name)


@pytest.mark.parametrize("kind", ["torchvision:resnet18", "timm:resnet10t"])
def test_a_file_of_other_weights_is_refused(tmp_path, kind):
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="tensors missing, 1 unknown"):
        load_encoder(f"{kind}:{tmp_path / 'w.safetensors'}")


@pytest.mark.parametrize("kind", ["torchvision:resnet18", "timm:resnet10t"])
def test_random_weights_are_the_same_in_every_process(kind):
    assert load_encoder(f"{kind}:none").digest == load_encoder(f"{kind}:none").digest


def test_prompts_templates_synonyms_and_background_give_open_clip_s_own_softmax(vit):
    model, name, weights = vit
    graph = ConceptGraph.from_dict(
        {
            "templates": ["a photo of a {}", "the {}"],
            "background": ["plain film"],
            "concepts": {"void": {"coarse": "s", "prompts": ["void", "dark hole"]}, "crack": {"coarse": "s"}},
        }
    )
    clip, crops = load_clip(name, weights), torch.rand(12, 3, 64, 64) * torch.rand(12, 3, 1, 1)
    with torch.no_grad():
        embedded = clip.embed(crops).numpy()
    text, back = (f(graph, clip.encode_text) for f in (text_embeddings, background_embeddings))
    got = assign_clip(embedded, text, back, clip.logit_scale)
    # open_clip by hand, its zero-shot recipe: one classifier column per concept, then the softmax of scaled cosines.
    tokenize, columns = open_clip.get_tokenizer(name), []
    for prompts in (["crack"], ["void", "dark hole"], ["plain film"]):  # fine nodes are sorted
        with torch.no_grad():
            texts = [template.format(p) for p in prompts for template in ("a photo of a {}", "the {}")]
            columns.append(F.normalize(model.encode_text(tokenize(texts), normalize=True).mean(0), dim=0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std))
    with torch.no_grad():
        image = model.encode_image((crops - mean) / std, normalize=True)
        p = (model.logit_scale.exp() * image @ torch.stack(columns, 1)).softmax(1)
    top = p.topk(2, dim=1)
    assert got.fine.tolist() == [(0, 1, -1)[i] for i in top.indices[:, 0]]
    np.testing.assert_allclose(got.prob, top.values[:, 0], atol=1e-5)
    np.testing.assert_allclose(got.margin, top.values[:, 0] - top.values[:, 1], atol=1e-5)
