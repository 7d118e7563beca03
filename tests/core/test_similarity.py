"""Eq. 3 by hand and against loops: CLIP, prototypes, detector."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.concepts.similarity import (
    Prototypes,
    assign_clip,
    assign_detector,
    background_embeddings,
    text_embeddings,
    unit,
)

SEEDS = st.integers(0, 2**32 - 1)
TEMPLATED = ConceptGraph.from_dict(
    {
        "templates": ["a {}", "the {}"],
        "background": ["film", "edge"],
        "concepts": {"void": {"coarse": "s", "prompts": ["void", "hole"]}, "crack": {"coarse": "s"}},
    }
)
TEXTS = {
    "a crack": [2, 0, 0],
    "the crack": [1, 0, 0],
    "a void": [0, 3, 0],
    "the void": [0, 1, 0],
    "a hole": [0, 0, 1],
    "the hole": [0, 0, 5],
    "a film": [1, 0, 0],
    "the film": [0, 1, 0],
    "a edge": [0, 0, 2],
    "the edge": [0, 0, 2],
}


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_a_concept_is_the_mean_of_its_unit_prompts_scaled_to_one(kind):
    def encode(texts):
        return kind([[float(v) for v in TEXTS[t]] for t in texts])

    half = 0.5**0.5
    # crack: x alone. void: the mean of y, y, z, z. Fine nodes are sorted: crack first.
    np.testing.assert_allclose(text_embeddings(TEMPLATED, encode), [[1, 0, 0], [0, half, half]], atol=1e-6)
    np.testing.assert_allclose(background_embeddings(TEMPLATED, encode), [[half, half, 0], [0, 0, 1]], atol=1e-6)


def test_a_graph_without_background_prompts_has_no_background():
    graph = ConceptGraph.from_dict({"concepts": {"void": {"coarse": "s"}}})
    assert background_embeddings(graph, lambda texts: np.ones((len(texts), 2))) is None


@given(SEEDS, st.integers(1, 5), st.integers(0, 3), st.sampled_from([1.0, 10.0, 100.0]))
def test_clip_assignment_is_the_softmax_in_loops(seed, fine, background, scale):
    rng = np.random.default_rng(seed)
    x, text, back = (rng.normal(size=(n, 4)) for n in (6, fine, background))
    got = assign_clip(x, unit(text), unit(back) if background else None, scale)
    for i in range(6):
        logits = [scale * float(np.dot(x[i], t) / math.dist(x[i], [0] * 4) / math.dist(t, [0] * 4)) for t in text]
        names = list(range(fine))
        if background:
            logits.append(max(scale * float(np.dot(x[i], b) / math.hypot(*x[i]) / math.hypot(*b)) for b in back))
            names.append(-1)
        p = [math.exp(v - max(logits)) for v in logits]
        p = [v / sum(p) for v in p]
        best, *rest = sorted(p, reverse=True)
        assert got.fine[i] == names[p.index(best)]
        assert got.prob[i] == pytest.approx(best, abs=1e-6)
        assert got.margin[i] == pytest.approx(best - (rest[0] if rest else 0), abs=1e-6)


@given(SEEDS)
def test_the_length_of_an_embedding_plays_no_part(seed):
    rng = np.random.default_rng(seed)
    x, text = rng.normal(size=(6, 4)), unit(rng.normal(size=(3, 4)))
    np.testing.assert_array_equal(assign_clip(x * 37, text).fine, assign_clip(x, text).fine)


def test_a_background_prompt_lets_a_crop_abstain():
    text, back = np.eye(3)[:2], np.eye(3)[2:]
    assert assign_clip(np.eye(3), text, back).fine.tolist() == [0, 1, -1]
    assert assign_clip(np.eye(3)[:2] + 0.1, text, None).fine.tolist() == [0, 1]


def test_crops_that_are_not_finite_abstain_and_say_so():
    x = np.array([[1.0, 0], [np.nan, 1], [np.inf, 0]])
    for got in (assign_clip(x, np.eye(2)), Prototypes.fit(np.eye(2), ["a", "b"], ["a", "b"]).assign(x)):
        assert got.fine.tolist() == [0, -1, -1]
        assert np.isnan(got.prob).tolist() == np.isnan(got.margin).tolist() == [False, True, True]


def test_types_and_the_empty_pool():
    for got in (assign_clip(np.empty((0, 3)), np.eye(3)), assign_detector(np.empty((0, 2)), ["a"], ["a"], 0.1)):
        assert got.fine.dtype == np.int16 and got.prob.dtype == got.margin.dtype == np.float32
        assert len(got.fine) == len(got.prob) == len(got.margin) == 0


def turn(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane."""
    return np.array([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_prototypes_by_hand():
    # Class a at 0 and 10 degrees, class b at 88 and 92. Each crop is measured against the other one of its class:
    # 1 - cos 10 twice and 1 - cos 4 twice. Sorted l, l, h, h, the 95 % quantile lies at position 2.85: h.
    fitted = Prototypes.fit(turn(0, 10, 88, 92), ["a", "a", "b", "b"], ["a", "b", "c"])
    np.testing.assert_allclose(fitted.vectors, turn(5, 90), atol=1e-9)
    assert fitted.fine.tolist() == [0, 1] and fitted.counts.tolist() == [2, 2]
    assert fitted.limit == pytest.approx(1 - math.cos(math.radians(10)))
    got = fitted.assign(turn(5, 14.9, 15.2, 47, 95, 270))
    assert got.fine.tolist() == [0, 0, -2, -2, 1, -2]
    odds = math.exp(
        (math.cos(math.radians(42)) - math.cos(math.radians(43))) / 0.05
    )  # 47 degrees: 42 from a, 43 from b
    assert got.prob[3] == pytest.approx(odds / (1 + odds), abs=1e-5)
    assert got.margin[3] == pytest.approx((odds - 1) / (1 + odds), abs=1e-5)


def test_prototypes_are_the_same_to_the_bit_whatever_the_order_of_the_crops():
    rng = np.random.default_rng(0)
    crops = rng.normal(size=(60, 32)).astype(np.float16)
    labels = [["a", "b", "c"][k] for k in rng.integers(0, 3, 60)]
    one = Prototypes.fit(crops, labels, ["a", "b", "c"])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(60)
        other = Prototypes.fit(crops[order], [labels[k] for k in order], ["a", "b", "c"])
        assert np.array_equal(one.vectors, other.vectors) and one.limit == other.limit


def test_the_limit_expects_of_labeled_crops_what_it_expects_of_new_ones():
    """Four crops a class, spread widely: against their own mean they look near, and new ones of the class would not
    match."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(6, 64))

    def crops(per_class):
        return np.concatenate([c + 0.7 * rng.normal(size=(per_class, 64)) for c in centers])

    fitted = Prototypes.fit(crops(4), [f"c{i}" for i in range(6) for _ in range(4)], [f"c{i}" for i in range(6)])
    unmatched = (fitted.assign(crops(200)).fine == -2).mean()
    assert 0 < unmatched < 0.12  # meant: 5 %
    own = 1 - (unit(crops(4)) * fitted.vectors[np.repeat(np.arange(6), 4)]).sum(1)
    assert np.isfinite(own).all() and (fitted.assign(rng.normal(size=(200, 64))).fine == -2).all()


def test_classes_of_one_crop():
    fitted = Prototypes.fit(turn(0, 40, 90), ["a", "b", "c"], ["a", "b", "c"])
    assert fitted.limit == pytest.approx(1 - math.cos(math.radians(40)))  # the nearest two prototypes
    assert fitted.assign(turn(-39, -41)).fine.tolist() == [0, -2]
    alone = Prototypes.fit(turn(0), ["a"], ["a", "b"])
    assert alone.limit == math.inf and alone.assign(turn(0, 180)).fine.tolist() == [0, 0]
    assert alone.assign(turn(90)).margin.tolist() == [1.0]


def test_a_copy_of_a_labeled_crop_matches_in_spite_of_rounding():
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 512)), 5, 0)
    fitted = Prototypes.fit(x, ["a"] * 5, ["a"])
    assert fitted.assign(x.astype(np.float32)).fine.tolist() == [0] * 5


def test_labels_outside_the_graph_and_broken_crops_are_left_out():
    x = np.concatenate([turn(0, 90, 45), [[np.nan, 0]]])
    fitted = Prototypes.fit(x, ["a", "defect", "b", "a"], ["a", "b"])
    assert fitted.counts.tolist() == [1, 1]
    np.testing.assert_allclose(fitted.vectors, turn(0, 45), atol=1e-9)
    with pytest.raises(ValueError, match="no labeled crop"):
        Prototypes.fit(turn(0), ["defect"], ["a"])
    with pytest.raises(ValueError, match="one label per crop"):
        Prototypes.fit(turn(0, 1), ["a"], ["a"])


def test_detector_posteriors_by_hand():
    #            background, void, other, crack
    posterior = [[0.1, 0.6, 0.1, 0.2], [0.7, 0.1, 0.05, 0.15], [0.1, 0.2, 0.5, 0.2], [0.0, 0.3, 0.1, 0.6]]
    got = assign_detector(np.array(posterior), ["void", "other", "crack"], ["crack", "dent", "void"], 0.3)
    # void; nothing above the floor; a class that the graph lacks; crack
    assert got.fine.tolist() == [2, -2, -2, 0]
    np.testing.assert_allclose(got.prob, [0.6, 0.15, 0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(got.margin, [0.4, 0.05, 0.3, 0.3], rtol=1e-5)
    bad = assign_detector(np.array([[0.1, np.nan]]), ["void"], ["void"], 0.3)
    assert bad.fine.tolist() == [-1] and np.isnan(bad.prob[0])


@pytest.mark.parametrize("shape", [(2, 2), (2, 4), (6,)])
def test_a_posterior_without_its_columns_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(P, 3\), background first"):
        assign_detector(np.zeros(shape), ["a", "b"], ["a"], 0.3)
