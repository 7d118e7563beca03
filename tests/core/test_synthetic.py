"""The synthetic pool keeps what it promises: rarity, box sizes, clean images, determinism, names that say nothing."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.synthetic.thin_film import CLASSES, COMMON, RARE, TEXTURES, make_pool, plan, render


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(
        b"".join(p.relative_to(folder).as_posix().encode() + p.read_bytes() for p in files)
    ).hexdigest()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("pool"), images=120, seed=3)


def test_each_rare_class_is_in_exactly_its_share_of_the_images_and_in_at_most_two_percent(pool):
    truth = json.loads(pool.truth.read_text())
    name = {c["id"]: c["name"] for c in truth["categories"]}
    images = {n: {a["image_id"] for a in truth["annotations"] if name[a["category_id"]] == n} for n in CLASSES}
    for rare in RARE:
        assert len(images[rare]) == round(0.0175 * 120) == 2 <= 0.02 * 120
    assert {n: len(i) for n, i in images.items()} == pool.image_counts
    assert all(len(images[n]) > 5 for n in COMMON)
    assert 0.4 <= pool.clean / 120 <= 0.55
    assert pool.clean == 120 - len(set.union(*images.values()))


def test_every_box_is_inside_its_image_and_below_two_percent_of_it(pool):
    for a in json.loads(pool.truth.read_text())["annotations"]:
        x, y, w, h = a["bbox"]
        assert min(x, y) >= 0 and x + w <= 256 and y + h <= 256 and 4 < w * h < 0.02 * 256 * 256


def test_files_are_gray_and_their_names_and_order_reveal_no_class(pool):
    truth = json.loads(pool.truth.read_text())
    files = sorted((pool.root / "images").iterdir())
    assert (
        [f.name for f in files]
        == [i["file_name"] for i in truth["images"]]
        == [f"slice_{i:05d}.png" for i in range(120)]
    )
    with Image.open(files[0]) as image:
        assert image.mode == "L" and image.size == (256, 256)
    defective = {a["image_id"] for a in truth["annotations"]}
    rows = [i in defective for i in range(1, 121)]
    assert 15 <= sum(rows[:60]) <= 45  # shuffled: mean about 31, more than 5 sigma inside


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_pool(tmp_path / name, images=6, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_the_packaged_graph_names_the_pool_s_classes(pool):
    assert ConceptGraph.load(pool.concepts).fine == sorted(CLASSES)


@pytest.mark.parametrize("name", ["neu_det", "bccd", "thin_film"])
def test_packaged_graphs_load_and_describe_their_background(name):
    graph = ConceptGraph.load(Path(__file__).parents[2] / "gsal_fo" / "graphs" / f"{name}.yaml")
    assert graph.background and all(len(graph.abstract_of(f)) >= 2 for f in graph.fine)


def test_a_box_surrounds_the_pixels_that_a_defect_changed():
    for name in CLASSES:
        got = render(np.random.default_rng(8), want=[name])
        (x, y, w, h), *_ = got.boxes.astype(int)
        inside = got.image[y : y + h + 1, x : x + w + 1].astype(float)
        assert got.labels == [name] and inside.std() > 6, name  # film noise alone has a std of about 5
    assert len(render(np.random.default_rng(8), want=["void"] * 3).boxes) == 3


def test_defects_scale_with_the_size_of_the_slice():
    small, large = (render(np.random.default_rng(1), size, want=["petal"]).boxes[0] / size for size in (128, 512))
    assert 0.5 < small[2] / large[2] < 2


def test_about_fifteen_percent_of_a_large_pool_shows_each_harmless_texture_equally_often():
    counts = Counter(t for _, textures in plan(4000, seed=1) for t in textures)
    assert set(counts) == set(TEXTURES)
    assert all(abs(n - 200) < 5 * np.sqrt(200) for n in counts.values())  # binomial(4000, 0.05)


def test_a_small_pool_has_no_rare_class_rather_than_too_many(tmp_path):
    assert not any(d in RARE for defects, _ in plan(49, seed=0) for d in defects)


@pytest.mark.parametrize("wrong", [{"want": ["scratch"]}, {"textures": ["void"]}, {"size": 32}])
def test_unknown_classes_and_tiny_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"unknown|at least 64"):
        render(np.random.default_rng(0), **wrong)
    with pytest.raises(ValueError, match="at least 1"):
        make_pool(Path("unused"), images=0)
