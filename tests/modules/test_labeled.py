"""What a detector's step sees: turns of the labeled images, boxes that move with the pixels, anchors drawn by image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from lightning_modules.detectors.training import DrawnSampler
from lightning_modules.labeled import LabeledImages, content_digest, read_labeled


def labeled(folder, count: int = 5):
    rows = []
    for k in range(count):
        pixels = np.full((20, 30, 3), 10 * k, np.uint8)
        pixels[5:15, 6:12] = 200  # the box [0.2, 0.25, 0.2, 0.5]
        Image.fromarray(pixels).save(folder / f"{k}.png")
        row = {"id": str(k), "filepath": str(folder / f"{k}.png"), "labels": ["void"]}
        rows.append({**row, "boxes": np.array([0.2, 0.25, 0.2, 0.5], np.float32)})
    return rows


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=40)
def test_every_turn_takes_each_image_once_in_an_order_of_its_own(count, size, seed):
    images = LabeledImages([None] * count, ["void"], seed=seed, batch=size)
    steps = [images.batch(step) for step in range(3 * count)]  # whole turns: size * 3 of them
    assert all(len(batch) == size for batch in steps)
    seen = [example for batch in steps for example in batch]
    assert [turn for _, turn in seen] == [turn for turn in range(3 * size) for _ in range(count)]
    for turn in range(3 * size):
        assert sorted(index for index, t in seen if t == turn) == list(range(count))
    assert LabeledImages([None] * count, ["void"], seed=seed, batch=size).batch(2) == steps[2]


def test_orders_differ_from_turn_to_turn_and_from_seed_to_seed():
    def first(seed: int, turn: int) -> list[int]:
        return [i for i, _ in LabeledImages([None] * 30, ["void"], seed=seed, batch=30).batch(turn)]

    orders = [first(0, 0), first(0, 1), first(1, 0)]
    assert len({tuple(order) for order in orders}) == 3


def test_a_box_moves_with_its_pixels_and_chance_goes_by_seed_turn_and_content(tmp_path):
    found = read_labeled(labeled(tmp_path), lambda *_: pytest.fail("all can be read"))
    images = LabeledImages(found, ["crack", "void"], seed=0, batch=2)
    examples = {(i, turn): images.load(i, turn) for i in range(5) for turn in range(4)}
    sides = set()
    for example in examples.values():
        (x1, y1, x2, y2) = example.target["boxes"][0].round().int().tolist()
        assert example.target["labels"].tolist() == [2] and (y1, y2) == (5, 15)
        bright = example.image[0] > example.image[0].float().mean()
        assert bright[y1:y2, x1:x2].all() and not bright[:, :x1].any() and not bright[:, x2:].any()
        sides.add(x1)
    assert sides == {6, 18}  # as it is, and flipped
    again = LabeledImages(found, ["crack", "void"], seed=0, batch=2).load(3, 2)
    assert torch.equal(again.image, examples[3, 2].image)
    drawn = {e.draws.initial_seed() for e in examples.values()}
    assert len(drawn) == 20 and again.draws.initial_seed() in drawn
    assert images.load(0, 9).draws.initial_seed() not in drawn


def test_rows_come_in_the_order_of_their_content_and_a_broken_one_is_named(tmp_path):
    rows = labeled(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"x")
    bad = {"id": "bad", "filepath": str(tmp_path / "broken.png"), "labels": [], "boxes": []}
    failed = []
    one = read_labeled([*rows, bad], lambda i, why: failed.append(i))
    two = read_labeled(rows[::-1], lambda *_: pytest.fail("all can be read"))
    assert failed == ["bad"] and [i.filepath for i in one] == [i.filepath for i in two]
    assert [i.digest for i in one] == sorted(i.digest for i in one) and len({i.digest for i in one}) == 5
    assert content_digest(one) == content_digest(two) != content_digest(one[1:])


def test_two_files_of_the_same_bytes_are_told_apart_by_their_labels(tmp_path):
    rows = labeled(tmp_path, 1)
    twice = [{**rows[0], "id": name, "labels": [name]} for name in ("b", "a")]
    assert [i.labels for i in read_labeled(twice, print)] == [("a",), ("b",)]
    assert [i.labels for i in read_labeled(twice[::-1], print)] == [("a",), ("b",)]


@given(st.integers(0, 99), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=40)
def test_the_sampler_takes_as_many_as_torchvisions_and_by_the_images_own_generator(seed, positive, negative):
    matched = torch.cat([torch.ones(positive), torch.zeros(negative), -torch.ones(5)]).long()
    matched = matched[torch.randperm(len(matched), generator=torch.Generator().manual_seed(seed))]
    ours, theirs = DrawnSampler(16, 0.25), BalancedPositiveNegativeSampler(16, 0.25)

    def drawn(*seeds: int) -> list[tuple[list[bool], list[bool]]]:
        ours.draws = [torch.Generator().manual_seed(s) for s in seeds]
        return [(p.bool().tolist(), n.bool().tolist()) for p, n in zip(*ours([matched] * len(seeds)), strict=True)]

    both, (alone,) = drawn(seed, seed + 1), drawn(seed + 1)
    assert both[1] == alone  # the image before it draws from a generator of its own
    wanted = theirs([matched])
    for mask, want, value in zip(both[0], wanted, (1, 0), strict=True):
        assert sum(mask) == int(want[0].sum()) and (matched[torch.tensor(mask)] == value).all()
