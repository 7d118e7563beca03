"""Eq. 7 to 10 and 2: by hand, against loops, and what must not change a score."""

import numpy as np
import pytest
import slow
from hypothesis import given, settings
from hypothesis import strategies as st

from gsal_fo.acquisition.strategies.gsal.scores import best_first, gsal_scores, power_mean
from gsal_fo.config import GsalParams

SEEDS = st.integers(0, 2**32 - 1)
PARAMS = st.builds(
    GsalParams,
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
    beta=st.sampled_from([0.3, 0.5]),
    gamma=st.sampled_from([0.0, 0.5, 3.0]),
    eta=st.sampled_from([0.0, 0.5, 1.0]),
    lam=st.sampled_from([0.0, 1.0, 2.5]),
    p=st.sampled_from([1.0, 2.0, 3.0, 7.5]),
    image_rarity=st.sampled_from(["mean", "max"]),
)


def pool(seed: int, images: int = 12, most: int = 5) -> list[slow.Image]:
    """Random images; continuous, so that no z-score divides by a std of rounding errors."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(images):
        k = int(rng.integers(1, most + 1))
        e, v, b = *rng.gamma(1.5, size=(2, k)), rng.integers(0, 6, k) / 2
        proposals = list(zip(e.tolist(), v.tolist(), b.tolist(), strict=True))
        out.append((float(rng.gamma(1.5)), float(rng.gamma(1.5)), proposals))
    return out


def arrays(images: list[slow.Image]) -> tuple[np.ndarray, ...]:
    """The six arrays of ``gsal_scores``."""
    flat = np.array([p for _, _, proposals in images for p in proposals], dtype=np.float64).reshape(-1, 3)
    owner = np.array([i for i, (_, _, proposals) in enumerate(images) for _ in proposals], dtype=np.int64)
    e, v = (np.array([image[j] for image in images], dtype=np.float64) for j in (0, 1))
    return e, v, owner, flat[:, 0], flat[:, 1], flat[:, 2]


def test_two_images_worked_by_hand():
    images = [(1, 7, [(1, 0, 2)]), (3, 7, [(3, 0, 0)])]
    got = gsal_scores(*arrays(images), GsalParams(lam=2))
    # Two values always have z-scores -1 and 1, a constant 0. u = Z(d) + 0.5 Z(b) + 4 = -1 + 0.5 + 4 and 1 - 0.5 + 4.
    np.testing.assert_allclose(got.value, [3.5, 4.5], atol=1e-6)
    for values in (got.image, got.local, got.difficulty, got.proposal, -got.rarity):
        np.testing.assert_allclose(values, [-1, 1], atol=1e-6)
    np.testing.assert_allclose(got.score, [-1 + 2, 1 - 2], atol=1e-6)
    assert got.order.tolist() == [0, 1] and got.decisive.tolist() == [0, 1]


def test_a_power_mean_by_hand_and_clipping():
    # 17 calm proposals and one far out: z = sqrt(17) = 4.12 sd, clipped to u = 8; the calm ones have 4 - 1/sqrt(17).
    images = [(0, 0, [(0, 0, 0)] * 9), (0, 0, [(0, 0, 0)] * 8 + [(1, 0, 0)])]
    got = gsal_scores(*arrays(images), GsalParams())
    calm = 4 - 17**-0.5
    np.testing.assert_allclose(got.value, [calm] * 17 + [8], atol=1e-6)
    assert got.value.max() == 8.0
    pooled = power_mean(got.value, np.array([0, 9]), 3)
    np.testing.assert_allclose(pooled, [calm, ((8 * calm**3 + 512) / 9) ** (1 / 3)], atol=1e-6)
    assert got.decisive[1] == 17


@given(SEEDS, PARAMS)
def test_scores_are_the_formulas_in_loops(seed, params):
    images = pool(seed)
    p = params
    expected = slow.scores(
        images, alpha=p.alpha, beta=p.beta, gamma=p.gamma, eta=p.eta, lam=p.lam, p=p.p, rarity=p.image_rarity
    )
    got = gsal_scores(*arrays(images), params)
    best = [expected["value"][j] for j in expected.pop("decisive")]  # several proposals may share the clipped maximum
    np.testing.assert_allclose(got.value[got.decisive], best, atol=1e-6)
    assert (arrays(images)[2][got.decisive] == np.arange(len(images))).all()
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(got, name), values, rtol=1e-6, atol=1e-6, err_msg=name)
    assert got.order.tolist() == sorted(range(len(images)), key=lambda i: -got.score[i])


SWITCHES = [
    (GsalParams(strategy="diffusion_only"), {"gamma": 0, "lam": 0}),
    (GsalParams(strategy="no_rarity"), {"gamma": 0, "lam": 0}),
    (GsalParams(strategy="image_only"), {"eta": 0}),
    (GsalParams(strategy="proposal_only"), {"eta": 1}),
]


@pytest.mark.parametrize(("params", "same"), SWITCHES)
def test_switches_are_those_constants(params, same):
    images = pool(5)
    expected = slow.scores(images, **same)["score"]
    np.testing.assert_allclose(gsal_scores(*arrays(images), params).score, expected, atol=1e-6)


def test_symbolic_only_is_the_rarity_alone():
    images = pool(5)
    got = gsal_scores(*arrays(images), GsalParams(strategy="symbolic_only", lam=3))
    np.testing.assert_allclose(got.score, slow.scores(images)["rarity"], atol=1e-6)


@given(SEEDS, st.integers(0, 2), st.floats(0.5, 50), st.floats(-100, 100))
def test_shift_and_scale_of_a_raw_statistic_change_nothing(seed, which, scale, shift):
    given_arrays = list(arrays(pool(seed)))
    before = gsal_scores(*given_arrays, GsalParams())
    position = [0, 1, 3][which]
    given_arrays[position] = given_arrays[position] * scale + shift
    np.testing.assert_allclose(gsal_scores(*given_arrays, GsalParams()).score, before.score, atol=1e-5)


@given(SEEDS)
def test_the_order_of_images_and_proposals_changes_nothing(seed):
    e, v, owner, e_ij, v_ij, b = arrays(pool(seed))
    ids = [f"id{i}" for i in range(len(e))]
    before = gsal_scores(e, v, owner, e_ij, v_ij, b, GsalParams(), ids=ids)
    rng = np.random.default_rng(seed)
    rows, positions = rng.permutation(len(e)), rng.permutation(len(b))
    place = np.argsort(rows)
    after = gsal_scores(
        e[rows], v[rows], place[owner[positions]], e_ij[positions], v_ij[positions], b[positions], GsalParams(),
        ids=[ids[row] for row in rows],
    )  # fmt: skip
    np.testing.assert_allclose(after.score, before.score[rows], atol=1e-9)
    np.testing.assert_array_equal(positions[after.decisive], before.decisive[rows])
    assert [ids[rows[r]] for r in after.order] == [ids[r] for r in before.order]


@given(SEEDS, st.integers(0, 11), st.sampled_from(["E", "V"]), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_an_image_that_is_not_finite_is_unranked_and_changes_nobody_else(seed, bad, which, value):
    images = pool(seed)
    broken = [(value if which == "E" else e, value if which == "V" else v, p) if i == bad else (e, v, p)
              for i, (e, v, p) in enumerate(images)]  # fmt: skip
    got = gsal_scores(*arrays(broken), GsalParams())
    without = gsal_scores(*arrays(images[:bad] + images[bad + 1 :]), GsalParams())
    assert got.unranked.tolist() == [bad] and bad not in got.order
    assert np.isnan([got.score[bad], got.difficulty[bad], got.rarity[bad], got.local[bad], got.image[bad]]).all()
    assert got.decisive[bad] == -1
    np.testing.assert_allclose(np.delete(got.score, bad), without.score, atol=1e-9)


@given(SEEDS, st.integers(0, 11), st.integers(0, 2), st.sampled_from([np.nan, np.inf]))
def test_a_proposal_that_is_not_finite_is_as_if_it_were_not_there(seed, image, column, value):
    images = pool(seed)
    bad = list(images[image][2][0])
    bad[column] = value
    e, v, proposals = images[image]
    broken = [*images[:image], (e, v, [tuple(bad), *proposals]), *images[image + 1 :]]
    position = sum(len(p) for _, _, p in images[:image])
    got, without = gsal_scores(*arrays(broken), GsalParams()), gsal_scores(*arrays(images), GsalParams())
    assert got.left_out.tolist() == [position] and not len(got.unranked)
    np.testing.assert_allclose(got.score, without.score, atol=1e-9)
    np.testing.assert_allclose(np.delete(got.value, position), without.value, atol=1e-9)


def test_an_image_whose_proposals_are_all_bad_is_unranked():
    images = pool(1)
    images[3] = (1.0, 1.0, [(np.nan, 0.0, 0.0), (0.0, np.inf, 0.0)])
    got = gsal_scores(*arrays(images), GsalParams())
    without = gsal_scores(*arrays(images[:3] + images[4:]), GsalParams())
    assert got.unranked.tolist() == [3]
    np.testing.assert_allclose(np.delete(got.score, 3), without.score, atol=1e-9)


def test_nothing_finite_ranks_nothing():
    got = gsal_scores(*arrays([(np.nan, 0, [(0, 0, 0)]), (0, 0, [(np.nan, 0, 0)])]), GsalParams())
    assert not len(got.order) and got.unranked.tolist() == [0, 1] and np.isnan(got.score).all()
    assert not len(gsal_scores(*arrays([]), GsalParams()).order)


def test_a_pool_of_equal_images_is_all_zero():
    got = gsal_scores(*arrays([(0.1, 0.3, [(0.7, 0.1, 2.5)] * 3)] * 7), GsalParams())
    assert got.score.tolist() == [0.0] * 7 and got.order.tolist() == list(range(7))


@given(SEEDS, st.integers(0, 11), st.floats(0, 30))
def test_one_more_proposal_moves_other_images_through_the_pool_statistics_alone(seed, image, error):
    """With beta = 0 an image's Z(d) is affine in its raw E: others keep their order and spacing, and Z(D) does not
    move."""
    images, params = pool(seed), GsalParams(alpha=1, beta=0)
    e, v, proposals = images[image]
    more = [*images[:image], (e, v, [*proposals, (error, 1.0, 0.0)]), *images[image + 1 :]]
    before, after = gsal_scores(*arrays(images), params), gsal_scores(*arrays(more), params)
    np.testing.assert_array_equal(after.image, before.image)
    added = sum(len(p) for _, _, p in images[: image + 1])
    kept = np.delete(after.proposal, added)
    a, b = np.polyfit(before.proposal, kept, 1)
    np.testing.assert_allclose(kept, a * before.proposal + b, atol=1e-6)
    assert a > 0


RUNS = st.lists(st.lists(st.floats(0, 8), min_size=1, max_size=6), min_size=1, max_size=5)


def pooled(runs: list[list[float]], p: float) -> np.ndarray:
    starts = np.cumsum([0, *(len(run) for run in runs[:-1])])
    return power_mean(np.array([v for run in runs for v in run]), starts, p)


@given(RUNS)
def test_p_one_is_the_mean_and_large_p_the_maximum(runs):
    np.testing.assert_allclose(pooled(runs, 1), [np.mean(run) for run in runs], atol=1e-12)
    for p in (1e4, 1e300, np.inf):
        np.testing.assert_allclose(pooled(runs, p), [max(run) for run in runs], rtol=1e-3, atol=1e-12)


@given(RUNS, st.sampled_from([1.0, 2.0, 3.0, 50.0, 1000.0]), st.floats(0, 8))
def test_pooling_rises_with_each_proposal_and_with_p_and_stays_inside(runs, p, more):
    base = pooled(runs, p)
    run = runs[0]
    for j in range(len(run)):
        raised = [[*run[:j], max(run[j], more), *run[j + 1 :]], *runs[1:]]
        assert (pooled(raised, p) >= base - 1e-9).all()
    assert (pooled(runs, p + 1) >= base - 1e-9).all()
    assert all(min(r) - 1e-9 <= value <= max(r) + 1e-9 for r, value in zip(runs, base, strict=True))


def test_of_proposals_that_the_clip_makes_equal_the_farther_one_is_decisive():
    # With b = 9 in these two alone and gamma = 1, both lie more than 4 sd out: Z(b) of 2 in 60 is sqrt(29) = 5.4.
    calm = [(0.0, 0.0, 0.0)] * 58
    got = gsal_scores(*arrays([(0, 0, [(6.0, 0, 9), (10.0, 0, 9)]), (0, 0, calm)]), GsalParams(gamma=1))
    assert got.value[:2].tolist() == [8.0, 8.0] and got.decisive[0] == 1


def test_equal_scores_are_ordered_by_id_whatever_the_row_order():
    score = np.array([1.0, 2.0, 1.0, np.nan, 2.0, 1.0])
    assert best_first(score).tolist() == [1, 4, 0, 2, 5]
    assert best_first(score, ["c", "z", "b", "a", "y", "a"]).tolist() == [4, 1, 5, 2, 0]
    images = [pool(0)[0]] * 5 + pool(0)[1:]
    ids = ["e", "b", "d", "a", "c", *(f"x{i}" for i in range(11))]
    got = gsal_scores(*arrays(images), GsalParams(), ids=ids)
    assert [ids[row] for row in got.order if row < 5] == ["a", "b", "c", "d", "e"]


def test_groups_make_an_image_hard_for_its_kind():
    # Two kinds far apart: pool-wide the second kind leads; for its kind the odd one of the first does.
    rng = np.random.default_rng(0)
    e = np.concatenate([rng.normal(1, 0.1, 50), rng.normal(10, 0.1, 50)])
    e[7] = 2.0
    kind = np.repeat([0, 1], 50)
    data = (e, np.zeros(100), np.arange(100), e, np.zeros(100), np.zeros(100))
    assert gsal_scores(*data, GsalParams()).order[0] >= 50
    params = GsalParams(normalize="concept", shrink=0)
    assert gsal_scores(*data, params, image_group=kind, proposal_group=kind).order[0] == 7
    with pytest.raises(ValueError, match="needs image_group"):
        gsal_scores(*data, params)


@settings(max_examples=5)
@given(SEEDS)
def test_float32_and_lists_are_taken_too(seed):
    given_arrays = arrays(pool(seed))
    as_lists = [a.tolist() for a in given_arrays]
    np.testing.assert_array_equal(gsal_scores(*as_lists, GsalParams()).score, gsal_scores(*given_arrays).score)


BAD = {
    "image without proposal": (([1, 2], [0, 0], [0, 0], [1, 2], [0, 0], [0, 0]), "row 1 has no proposal"),
    "owner too large": (([1], [0], [0, 1], [1, 2], [0, 0], [0, 0]), r"rows in \[0, 1\)"),
    "owner negative": (([1], [0], [0, -1], [1, 2], [0, 0], [0, 0]), r"rows in \[0, 1\)"),
    "owner no whole number": (([1], [0], [0.0], [1], [0], [0]), r"rows in \[0, 1\)"),
    "lengths": (([1, 2], [0], [0, 1], [1, 2], [0, 0], [0, 0]), "image arrays must all be"),
    "bonus length": (([1], [0], [0], [1], [0], [0, 0]), "proposal arrays all"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_do_not_fit_are_refused(case):
    given_arrays, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        gsal_scores(*(np.array(a) for a in given_arrays), GsalParams())


def test_one_id_per_row():
    with pytest.raises(ValueError, match="one id per row, 12 in all; got 2"):
        gsal_scores(*arrays(pool(0)), GsalParams(), ids=["a", "b"])
