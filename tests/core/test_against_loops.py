"""METHOD.md sections 3 to 5 against ``slow``: what the files of each module do not cover; and names as mere names."""

import numpy as np
import pytest
import slow
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import GRAPH, graph
from test_acquisition import arrays
from test_acquisition import pool as images_of
from test_picking import table

from gsal_fo import diffusion
from gsal_fo.acquisition.normalize import z_score, z_score_by_group
from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import rank
from gsal_fo.acquisition.strategies.gsal.scores import gsal_scores
from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.config import GsalParams

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(0, 3), st.sampled_from([0.0, 1.0, 10.0]))
def test_normalizing_by_concept_is_the_loops(seed, kinds, shrink):
    rng = np.random.default_rng(seed)
    values, groups = rng.gamma(1.5, size=20), rng.integers(-1, kinds + 1, 20)
    expected = slow.z_by_group(values.tolist(), groups.tolist(), shrink)
    np.testing.assert_allclose(z_score_by_group(values, groups, shrink=shrink), expected, atol=1e-7)


@given(SEEDS)
@settings(max_examples=25)
def test_scores_normalized_by_concept_use_those_z_scores(seed):
    images = images_of(seed)
    rng = np.random.default_rng(seed)
    e, v, owner, e_ij, v_ij, b = arrays(images)
    image_group, proposal_group = rng.integers(-1, 2, len(e)), rng.integers(-1, 2, len(b))
    params = GsalParams(normalize="concept", shrink=5)
    got = gsal_scores(e, v, owner, e_ij, v_ij, b, params, image_group=image_group, proposal_group=proposal_group)

    def half(error, variance, group):
        z = [slow.z_by_group(s.tolist(), group.tolist(), 5) for s in (error, variance)]
        return slow.z([(x + y) / 2 for x, y in zip(*z, strict=True)])

    np.testing.assert_allclose(got.image, half(e, v, image_group), atol=1e-6)
    np.testing.assert_allclose(got.proposal, half(e_ij, v_ij, proposal_group), atol=1e-6)


@given(SEEDS, st.integers(1, 7), st.integers(1, 99))
@settings(max_examples=40)
def test_ddim_steps_are_the_loops(seed, steps, t):
    steps = min(steps, t)
    alpha_bar = np.linspace(0.995, 0.005, 100)
    rng = np.random.default_rng(seed)
    z, eps = rng.normal(size=3), rng.normal(size=2)
    gain = rng.uniform(0.2, 0.9)

    def model(x, now):
        return gain * x + 0.01 * now

    got = diffusion.denoise(
        torch.from_numpy(z).view(3, 1, 1, 1),
        torch.from_numpy(eps).view(2, 1, 1, 1),
        t=t, steps=steps, alpha_bar=torch.from_numpy(alpha_bar), predict_x0=model,
    )  # fmt: skip
    expected = [[slow.ddim(a, e, t, steps, alpha_bar.tolist(), model) for e in eps] for a in z]
    np.testing.assert_allclose(got.view(3, 2).numpy(), expected, rtol=1e-9)


@given(SEEDS, st.sampled_from(["mean", "max", "topk"]))
@settings(max_examples=60)
def test_maps_in_boxes_are_the_loops(seed, how):
    rng = np.random.default_rng(seed)
    cells = rng.gamma(1.5, size=(int(rng.integers(2, 12)), int(rng.integers(2, 12))))
    corner = rng.uniform(0, 0.8, (4, 2))
    boxes = np.concatenate([corner, rng.uniform(0.02, 1, (4, 2)) * (1 - corner)], axis=1)
    expected = [slow.region(cells.tolist(), box.tolist(), how) for box in boxes]
    np.testing.assert_allclose(diffusion.region_statistics(cells, boxes, how), expected, rtol=1e-5)


@given(SEEDS)
@settings(max_examples=25)
def test_raising_one_proposals_error_never_lowers_its_value_before_normalizing(seed):
    """E alone, so that Z(d) is affine in E: of the proposals of an image the raised one gains on all the others."""
    images, params = images_of(seed), GsalParams(alpha=1, beta=0, gamma=0)
    e, v, owner, e_ij, v_ij, b = arrays(images)
    before = gsal_scores(e, v, owner, e_ij, v_ij, b, params)
    more = e_ij.copy()
    more[3] += 2.0
    after = gsal_scores(e, v, owner, more, v_ij, b, params)
    others = np.delete(np.arange(len(b)), 3)
    gain = after.proposal[3] - after.proposal[others], before.proposal[3] - before.proposal[others]
    assert (np.sign(gain[0]) >= np.sign(gain[1])).all()
    order = np.argsort(before.proposal[others], kind="stable")
    assert (np.diff(after.proposal[others][order]) >= -1e-9).all(), "the others keep their order"


@given(SEEDS, st.sampled_from(["quantile", "graded"]), st.sampled_from(["static", "greedy"]))
@settings(max_examples=25)
def test_the_names_of_nodes_are_mere_names(seed, rarity, batch):
    """Other names sort otherwise and so move every index; scores, picks and bonuses stay."""
    rename = {"crack": "zz", "dent": "aa", "void": "mm", "surface": "q", "subsurface": "b", "dark": "x", "round": "a1",
              "linear": "n"}  # fmt: skip
    other = ConceptGraph.from_dict(
        {
            "concepts": {
                rename[f]: {"coarse": rename[v["coarse"]], "abstract": [rename[a] for a in v["abstract"]]}
                for f, v in GRAPH["concepts"].items()
            }
        }
    )
    move = np.array([*(other.fine.index(rename[f]) for f in graph().fine), -2, -1], dtype=np.int16)
    pool = table(seed)
    moved = pool.__class__(**{**pool.__dict__, "fine": move[pool.fine]})
    labels = {"crack": 9, "dent": 4, "void": 1}
    params = GsalParams(rarity=rarity, batch=batch)
    one = rank(pool, graph(), labels, params)
    two = rank(moved, other, {rename[k]: n for k, n in labels.items()}, params)
    np.testing.assert_allclose(two.scores.score, one.scores.score, atol=1e-12)
    assert pick(two, 5) == pick(one, 5)


def test_noise_pairs_cancel_for_a_linear_model():
    """Antithetic pairs: with a linear model the mean prediction has no noise left, whatever the draws."""
    z = torch.full((1, 1, 2, 2), 0.7, dtype=torch.float64)
    noise = diffusion.shared_noise(4, (1, 2, 2), seed=3).double()
    alpha_bar = torch.linspace(0.99, 0.01, 50, dtype=torch.float64)
    z_hat = diffusion.denoise(z, noise, t=20, steps=1, alpha_bar=alpha_bar, predict_x0=lambda x, t: 0.5 * x)
    torch.testing.assert_close(z_hat.mean(1), 0.5 * alpha_bar[20].sqrt() * z)
    assert float(diffusion.reconstruction_statistics(z, z_hat)[1]) > 0


@given(SEEDS)
@settings(max_examples=10)
def test_z_is_the_loops(seed):
    values = np.random.default_rng(seed).gamma(1.5, size=30)
    assert z_score(values).tolist() == pytest.approx(slow.z(values.tolist()))
