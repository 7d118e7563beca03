"""Detectors: proposals and posteriors against torchvision's own post-processing, training, checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gsal_fo.boxes import iou
from gsal_fo.config import DetectorConfig, TrainConfig, to_dict
from gsal_fo.images import read_image
from gsal_fo.run_folder import shards
from lightning_modules.data import to_float
from lightning_modules.detectors import faster_rcnn as D
from lightning_modules.detectors.given import thinned
from lightning_modules.detectors.training import DetectorTrainer
from lightning_modules.labeled import LabeledImages
from lightning_modules.passes import Crew
from tests.modules.helpers import BOXES, run_here, write_images, write_run

LOOSE = DetectorConfig(score_floor=0.05, nms_iou=0.5, max_proposals=10)


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return [torch.rand(3, 96, 128), torch.rand(3, 96, 128)]


@pytest.mark.parametrize(
    ("arch", "size"), [("small", 96), ("mobilenet_v3_320", 96), ("r50_fpn", 64), ("r50_fpn_v2", 64)]
)
def test_detections_equal_torchvisions_own_post_processing(arch, size, images):
    torch.manual_seed(0)
    model = D.build(arch, classes=3, backbone="none", size=size).eval()
    model.roi_heads.score_thresh, model.roi_heads.nms_thresh = LOOSE.score_floor, LOOSE.nms_iou
    model.roi_heads.detections_per_img = LOOSE.max_proposals
    model.rpn.score_thresh = 0.0
    model.rpn._post_nms_top_n = {"training": 60, "testing": 60}  # v2's box head is slow on a CPU
    with torch.inference_mode():
        theirs, ours = model(images), D.propose(model, images, LOOSE)
    for want, got in zip(theirs, ours, strict=True):
        assert len(want["boxes"]) > 0
        scale = torch.tensor([128, 96, 128, 96])
        torch.testing.assert_close(got["boxes"] * scale, want["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(got["scores"], want["scores"], atol=1e-6, rtol=0)
        assert got["labels"].tolist() == want["labels"].tolist()
        # The posterior row is the one that the score was read from, and it is a distribution.
        torch.testing.assert_close(got["posterior"].gather(1, got["labels"][:, None])[:, 0], got["scores"])
        torch.testing.assert_close(got["posterior"].sum(1), torch.ones(len(got["scores"])))


def test_objectness_proposals_are_torchvisions_rpn_boxes_refined_and_thinned_out(images):
    """Against the network's own forward: its RPN's boxes in its order, each refined by its own box head."""
    torch.manual_seed(0)
    model = D.build("small", classes=3, backbone="none", size=64).eval()
    config = DetectorConfig(proposals="objectness", score_floor=0.0, nms_iou=1.0, max_proposals=10_000)
    with torch.inference_mode():
        ours = D.propose(model, images, config)
        batch, _ = model.transform(images)
        features = model.backbone(batch.tensors)
        boxes, _ = model.rpn(batch, features)
        heads = model.roi_heads
        logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, boxes, batch.image_sizes)))
    start = 0
    for own, size, got in zip(boxes, batch.image_sizes, ours, strict=True):
        p, shift = logits[start : start + len(own)].softmax(1), deltas[start : start + len(own)]
        start += len(own)
        expected = []
        for row, box in enumerate(own):  # Girshick 2015: centers move by a share of the box, sizes by an exponent
            best = int(p[row, 1:].argmax()) + 1
            dx, dy, dw, dh = (shift[row, 4 * best : 4 * best + 4] / torch.tensor([10.0, 10.0, 5.0, 5.0])).tolist()
            (x1, y1, x2, y2) = box.tolist()
            w, h = x2 - x1, y2 - y1
            cx, cy = x1 + w / 2 + dx * w, y1 + h / 2 + dy * h
            w, h = w * np.exp(min(dw, np.log(1000 / 16))), h * np.exp(min(dh, np.log(1000 / 16)))
            x = np.clip([cx - w / 2, cx + w / 2], 0, size[1]) / size[1]
            y = np.clip([cy - h / 2, cy + h / 2], 0, size[0]) / size[0]
            if (x[1] - x[0]) * size[1] >= 1 and (y[1] - y[0]) * size[0] >= 1:
                expected.append([x[0], y[0], x[1], y[1]])
        assert len(expected) > 20 and (got["scores"].diff() <= 0).all()
        np.testing.assert_allclose(np.sort(got["boxes"].numpy(), 0), np.sort(np.array(expected), 0), atol=2e-5)


def test_the_papers_recipe_is_the_large_detectors_default():
    """METHOD.md section 8: short side 600, SGD 0.02 with momentum 0.9 at batch 16; smaller batches in proportion."""
    model = D.build("r50_fpn", classes=1, backbone="none", size=None)
    assert model.transform.min_size == (600,)
    for batch, rate in ((16, 0.02), (4, 0.005)):
        config = TrainConfig(arch="r50_fpn", backbone="none", batch_size=batch)
        module = DetectorTrainer(model, config, LabeledImages([], [], seed=0, batch=batch), Crew())
        optimizer = module.configure_optimizers()["optimizer"]
        group = optimizer.param_groups[0]
        assert type(optimizer) is torch.optim.SGD and (group["initial_lr"], group["momentum"]) == (rate, 0.9)


def test_objectness_proposals_are_best_first_and_apart(images):
    torch.manual_seed(0)
    model = D.build("small", classes=2, backbone="none", size=96).eval()
    with torch.inference_mode():
        got = D.propose(model, images, DetectorConfig(proposals="objectness", max_proposals=5))
    for one in got:
        assert 0 < len(one["boxes"]) <= 5 and (one["scores"].diff() <= 0).all()
        xywh = np.concatenate([one["boxes"][:, :2], one["boxes"][:, 2:] - one["boxes"][:, :2]], 1)
        assert (iou(xywh, xywh)[~np.eye(len(xywh), dtype=bool)] <= 0.5 + 1e-6).all()


def test_an_image_proposes_the_same_alone_and_in_a_batch(images):
    torch.manual_seed(0)
    model = D.build("small", classes=2, backbone="none", size=96).eval()
    with torch.inference_mode():
        together = D.propose(model, images, LOOSE)
        alone = D.propose(model, images[1:], LOOSE)
    torch.testing.assert_close(together[1]["posterior"], alone[0]["posterior"], rtol=1e-4, atol=1e-6)


def test_backbone_weights_come_from_a_file_and_a_wrong_one_is_refused(tmp_path):
    from safetensors.torch import save_file
    from torchvision.models import resnet18, resnet50

    net = resnet50()
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path / "r50.safetensors")
    model = D.build("r50_fpn", classes=1, backbone=str(tmp_path / "r50.safetensors"), size=64)
    torch.testing.assert_close(model.backbone.body.layer4[2].conv3.weight, net.layer4[2].conv3.weight)
    save_file({k: v.contiguous() for k, v in resnet18().state_dict().items()}, tmp_path / "r18.safetensors")
    with pytest.raises(ValueError, match=r"lacks .* tensors of this backbone"):
        D.build("r50_fpn", classes=1, backbone=str(tmp_path / "r18.safetensors"), size=64)
    with pytest.raises(ValueError, match="do not exist"):
        D.build("r50_fpn", classes=1, backbone=str(tmp_path / "none.safetensors"), size=64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("train")
    images = write_images(place / "images", 16)
    write_run(place / "run", images, model=Path("unused"), labeled=12)
    config = TrainConfig(arch="small", backbone="embedded", steps=60, batch_size=4, size=96)
    job = {"kind": "train", "config": to_dict(config), "out": str(place / "detector")}
    shards.write_json(job, place / "run" / "config.json")
    done = run_here(place / "run", module="lightning_modules.train")
    assert done.returncode == 0, done.stdout + done.stderr
    return place, [json.loads(line) for line in done.stdout.splitlines()]


def test_training_finds_the_disk_that_it_was_shown(trained):
    place, events = trained
    steps = [e["done"] for e in events if e["event"] == "progress"]
    assert steps == sorted(steps) and steps[-1] == 60
    model, facts = D.load(place / "detector")
    assert facts["classes"] == ["bar", "disk"] and facts["images"] == 12 and facts["boxes"] == 12
    held_out = write_images(place / "fresh", 8, seed=7)
    hits = []
    for i, path in enumerate(held_out):
        if i % 2:
            with torch.inference_mode():
                x = to_float(torch.from_numpy(read_image(path)[0]).permute(2, 0, 1))
                found = D.propose(model, [x], DetectorConfig(proposals="objectness"))[0]
            corners = found["boxes"].numpy()
            boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
            hits.append(iou(np.array([BOXES[1]]), boxes).max() > 0.4)
    assert np.mean(hits) >= 0.5  # of 4 disks; an untrained head finds none


def test_a_trained_folder_is_not_trained_again(trained):
    place, _ = trained
    before = (place / "detector" / "model.safetensors").stat().st_mtime_ns
    done = run_here(place / "run", module="lightning_modules.train")
    assert done.returncode == 0 and "already" in done.stdout
    assert (place / "detector" / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a detector checkpoint"):
        D.load(tmp_path)


@pytest.mark.parametrize(
    ("facts", "weights"),
    [
        ("[1]", b""),
        ("[" * 10**5, b""),
        ("{}", b""),
        ('{"arch": "small", "backbone": "none", "classes": 3, "size": 64}', b""),
        ('{"arch": ["small"], "backbone": "none", "classes": ["a"], "size": 64}', b""),
        ('{"arch": "small", "backbone": "none", "classes": ["a"], "size": 64}', b"\xff" * 64),
        ('{"arch": "small", "backbone": "none", "classes": ["a"], "size": 1e400}', b""),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_a_sentence(tmp_path, facts, weights):
    (tmp_path / "detector.json").write_text(facts)
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"is not a detector checkpoint \(.*\); make one with `gsal train`"):
        D.load(tmp_path)


def test_training_without_a_box_says_so(tmp_path):
    images = write_images(tmp_path / "images", 2)
    write_run(tmp_path / "run", images, model=Path("unused"), labeled=0)
    job = {"kind": "train", "config": to_dict(TrainConfig(steps=1)), "out": str(tmp_path / "out")}
    shards.write_json(job, tmp_path / "run" / "config.json")
    done = run_here(tmp_path / "run", module="lightning_modules.train")
    assert done.returncode == 1 and "label some images first" in json.loads(done.stdout.splitlines()[-1])["message"]


def thin(boxes, scores=None, labels=None, size=(100, 100), **named):
    got, left = thinned(np.array(boxes, np.float32), scores, labels, size, DetectorConfig(**named))
    return got.astype(float).round(3).tolist(), left.astype(float).round(3).tolist()


SAME = [0.1, 0.1, 0.4, 0.4]


def test_given_boxes_that_repeat_one_another_count_once():
    """Ten times the same box, and one that shares 2/3 of it: (0.32 x 0.4) / (2 x 0.16 - 0.128)."""
    shifted, apart = [0.18, 0.1, 0.4, 0.4], [0.6, 0.6, 0.2, 0.2]
    boxes = [SAME] * 10 + [shifted, apart]
    scores = np.array([0.9 - 0.01 * i for i in range(10)] + [0.95, 0.3], np.float32)
    assert thin(boxes, scores) == ([shifted, apart], [0.95, 0.3])
    assert thin(boxes, scores, nms_iou=0.7) == ([shifted, SAME, apart], [0.95, 0.9, 0.3])


def test_given_boxes_of_two_labels_stand_side_by_side_only_for_detections():
    boxes, scores, labels = [SAME] * 3, np.array([0.5, 0.6, 0.7], np.float32), ["void", "crack", "void"]
    assert thin(boxes, scores, labels) == ([SAME, SAME], [0.7, 0.6])
    assert thin(boxes, scores, labels, proposals="objectness") == ([SAME], [0.7])


def test_given_boxes_have_the_floor_the_limit_and_the_smallest_size_of_a_detector():
    places = [[0.01 + 0.09 * i, 0.1, 0.05, 0.05] for i in range(10)]
    scores = np.array([0.05, 0.04, 0.5, 0.6, 0.7, 0.1, 0.2, 0.3, 0.4, 0.8], np.float32)
    assert thin(places, scores)[1] == [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    assert thin(places, scores, max_proposals=3)[1] == [0.8, 0.7, 0.6]
    assert thin(places, scores, score_floor=0.65)[1] == [0.8, 0.7]
    assert thin([[0, 0, 0.005, 0.5], [0.5, 0.5, 0.5, 0.01]])[0] == [[0.5, 0.5, 0.5, 0.01]], "0.5 px wide, and 1 px high"
    assert thin([], None) == ([], []) and thin([SAME, SAME]) == ([SAME], [1.0])
