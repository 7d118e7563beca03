"""``assign="auto"``: who is chosen, why, and what must not change the choice."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import graph

from gsal_fo.concepts.auto_assign import CONFIDENCE, TRIAL_IMAGES, choose, sign_test, trial_images
from gsal_fo.run_folder import shards

AXES = np.eye(3, dtype=np.float32)  # crack along x, dent along y, void along z
NAMES = ("crack", "dent", "void")
BLIND = AXES[[0, 0, 0]]  # text of a CLIP that finds all alike: ties go to crack


def labeled(kinds: list[list[int]], noise: float = 0.1, seed: int = 0):
    """Images of these kinds of crops: (labels, crops), each crop near its axis."""
    rng = np.random.default_rng(seed)
    ids = [f"i{n:02d}" for n in range(len(kinds))]
    labels = {i: [NAMES[k] for k in own] for i, own in zip(ids, kinds, strict=True)}
    crops = {i: (AXES[own] + noise * rng.normal(size=(len(own), 3))) for i, own in zip(ids, kinds, strict=True)}
    return labels, crops


TEN = [[0], [0], [0], [0], [1], [1], [1], [2], [2], [2]]


def test_clip_is_chosen_where_it_names_more_than_the_most_frequent_label():
    labels, crops = labeled(TEN)
    got = choose(graph(), labels, crops, crops, AXES)
    # By hand: crack is the best constant, right in 4 of 10; CLIP leads in the other 6 images, behind in none.
    assert got.assign == "clip" and got.trial.clip_beats_constant == 1 - 1 / 2**6
    assert (got.trial.constant, got.trial.constant_right, got.trial.clip_right) == ("crack", 0.4, 1.0)
    assert got.trial.prototypes_right == 1.0 and got.trial.prototypes_beat_clip == 0.0
    assert got.why == (
        'concepts by CLIP: it knows this domain (of 10 labeled crops in 10 images CLIP names 100%, always "crack" 40%, '
        "prototypes 100%; confidence 98.4%)"
    )


def test_prototypes_are_chosen_where_clip_is_not_told_apart_from_chance():
    labels, crops = labeled(TEN)
    got = choose(graph(), labels, crops, crops, BLIND)
    assert got.assign == "prototypes" and got.trial.clip_beats_constant == 0 and "not told apart" in got.why
    # Four right images are too few to tell: 1 - 1/16 = 93.75 %.
    labels, crops = labeled([[0], [0], [0], [0], [0], [1], [1], [2], [2]])
    got = choose(graph(), labels, crops, crops, AXES)
    assert got.assign == "prototypes" and got.trial.clip_beats_constant == 0.9375 < CONFIDENCE


def test_prototypes_are_chosen_where_they_name_more_than_a_clip_that_is_better_than_chance():
    labels, crops = labeled([[0]] * 8 + [[1]] * 7 + [[2]] * 8, noise=0.05)
    half_blind = AXES[[0, 1, 1]]  # dents and voids are all dents to it
    got = choose(graph(), labels, crops, crops, half_blind)
    # CLIP leads "crack" in 7 images (1 - 2^-7 sure); prototypes lead CLIP in 8.
    assert got.trial.clip_beats_constant >= CONFIDENCE
    assert got.assign == "prototypes" and got.trial.prototypes_beat_clip == 1 - 1 / 2**8
    assert "they name more than CLIP" in got.why


def test_crops_of_one_image_have_one_vote():
    labels, crops = labeled([[0] * 30, [1] * 12, [2] * 12])
    got = choose(graph(), labels, crops, crops, AXES)
    assert got.trial.crops == 54 and got.trial.clip_beats_constant == 1 - 1 / 2**2 and got.assign == "prototypes"
    # No other image has their label, so prototypes are right nowhere.
    assert got.trial.prototypes_right == 0


def test_without_labels_of_the_graph_it_is_a_cold_start():
    for labels in ({}, {"a": ["defect"]}, {"a": []}):
        got = choose(graph(), labels, dict.fromkeys(labels, AXES[:1]), dict.fromkeys(labels, AXES[:1]), AXES)
        assert got.assign == "clip" and got.trial is None and "yet" in got.why


def slow_trial(labels, crops, text):
    """Shares right of CLIP and of prototypes without the image, in loops."""

    def nearest(v, rows):
        cos = {k: float(v @ r) / math.sqrt(float(v @ v) * float(r @ r)) for k, r in rows.items()}
        return min(cos, key=lambda k: (-cos[k], k))

    clip = prototypes = total = 0
    for i, names in labels.items():
        means = {}
        for k, name in enumerate(NAMES):
            others = [
                c / np.linalg.norm(c)
                for j in labels if j != i
                for c, other in zip(crops[j], labels[j], strict=True) if other == name
            ]  # fmt: skip
            if others:
                means[k] = np.sum(others, axis=0)
        for v, name in zip(crops[i], names, strict=True):
            total += 1
            clip += NAMES[nearest(v, dict(enumerate(text)))] == name
            prototypes += bool(means) and NAMES[nearest(v, means)] == name
    return clip / total, prototypes / total


IMAGES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=9)


@given(IMAGES, st.integers(0, 99))
def test_the_trial_is_the_loops(kinds, seed):
    labels, crops = labeled(kinds, noise=0.8, seed=seed)
    got = choose(graph(), labels, crops, crops, AXES).trial
    assert (got.clip_right, got.prototypes_right) == pytest.approx(slow_trial(labels, crops, AXES))


@given(IMAGES, st.integers(0, 99), st.randoms())
def test_the_order_of_images_and_crops_changes_nothing(kinds, seed, random):
    labels, crops = labeled(kinds, noise=0.8, seed=seed)
    ids, after = list(labels), {}
    random.shuffle(ids)
    for i in ids:
        turn = list(range(len(labels[i])))
        random.shuffle(turn)
        after[i] = ([labels[i][k] for k in turn], crops[i][turn])
    other = {i: c for i, (_, c) in after.items()}
    got = choose(graph(), {i: names for i, (names, _) in after.items()}, other, other, AXES)
    assert got == choose(graph(), labels, crops, crops, AXES)


def test_an_image_without_embeddings_and_a_broken_one_take_no_part():
    labels, crops = labeled([*TEN, [2], [2]])
    del crops["i11"]
    crops["i10"][:] = np.nan
    got = choose(graph(), labels, crops, crops, AXES).trial
    assert got.images == 11 and got.clip_right == pytest.approx(10 / 11) == got.prototypes_right


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (0, 3), (3, 0), (7, 2), (40, 60), (300, 200)])
def test_the_sign_test_is_scipys(wins, losses):
    from scipy.stats import binomtest

    n = wins + losses
    expected = binomtest(wins, n, alternative="greater").pvalue if n else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected)


def test_the_trial_takes_labeled_images_of_the_graph_and_not_too_many(tmp_path):
    def write(name, rows):
        shards.write_table(pa.Table.from_pylist(rows, schema=shards.MANIFEST), tmp_path / name / "manifest.parquet")
        return trial_images(tmp_path / name, graph())

    rows = [
        {"id": "a", "role": "labeled", "labels": ["void", "defect"]},
        {"id": "b", "role": "labeled", "labels": ["defect"]},
        {"id": "c", "role": "pool", "labels": None},
        {"id": "d", "role": "labeled", "labels": []},
    ]
    assert write("few", rows) == {"a"}


def test_which_labeled_images_are_tried_hangs_on_annotations_and_files_not_on_ids_names_or_order(tmp_path):
    """Half of the images have a box of their own, half are annotated alike, and one of those cannot be read."""
    rng, count, taken = np.random.default_rng(0), TRIAL_IMAGES + 50, []
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder, order in (("a", np.arange(count)), ("b", rng.permutation(count))):
        rows = []
        for place, k in enumerate(order.tolist()):
            file = tmp_path / folder / str(place)
            if k < count - 1:
                file.write_text(f"picture {k}")
            box = [k / count, 0.0, 0.1, 0.1] if k % 2 else [0.0, 0.0, 1.0, 1.0]
            row = {"id": f"{folder}{place}", "filepath": str(file), "boxes": box, "labels": ["dent"]}
            rows.append({**row, "role": "labeled"})
        manifest = pa.Table.from_pylist(rows, schema=shards.MANIFEST)
        shards.write_table(manifest, tmp_path / folder / "manifest.parquet")
        got = trial_images(tmp_path / folder, graph())
        taken.append({int(order[int(i[1:])]) for i in got})
    assert taken[0] == taken[1] and len(taken[0]) == TRIAL_IMAGES
