"""The columns in one file are those of the parts, and never older."""

import dataclasses
import shutil

import numpy as np
import pytest

from gsal_fo.run_folder import cache, shards
from gsal_fo.run_folder.pool_columns import load_pool
from tests.core.runs import image, write_run


def same(one, two):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


@pytest.fixture
def run(tmp_path):
    rng = np.random.default_rng(0)
    rows = [image(f"s{i}", rng.integers(-2, 3, 1 + i % 3).tolist(), rng=rng) for i in range(7)]
    rows[2]["error"] = "the file is missing"
    return write_run(tmp_path / "run", rows)


def test_the_cache_is_the_table(run):
    same(cache.load(run), load_pool(run))
    assert (run / cache.COLUMNS).is_file()
    same(cache.load(run), load_pool(run))
    assert all(type(i) is str for i in cache.load(run).ids)


def test_a_changed_part_is_read_again(run):
    before = cache.load(run)
    rng = np.random.default_rng(9)
    for stage in cache.READ:
        shutil.rmtree(run / stage)
    write_run(run, [image(str(i), [0], rng=rng) for i in before.ids])
    same(cache.load(run), load_pool(run))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_a_damaged_cache_is_made_again(run, content):
    cache.load(run)
    (run / cache.COLUMNS).write_bytes(content)
    same(cache.load(run), load_pool(run))


def test_image_vectors_are_in_the_order_of_the_table(run):
    table = load_pool(run)
    assert cache.image_vectors(run, table) is None  # the detector assigned: no embeddings
    vectors = {str(i): np.full(3, k, dtype=np.float16) for k, i in enumerate(table.ids)}
    lost = str(table.ids[4])
    rows = [
        {"id": i, "role": "pool", "embeddings": np.zeros(3), "image": [] if i == lost else v, "dim": 3}
        for i, v in reversed(vectors.items())
    ]
    shards.write_part(run, "concepts", [*rows, {**rows[0], "id": "labeled", "role": "labeled"}], digest="d")
    for _ in range(2):  # made, then read
        found = cache.image_vectors(run, table)
        assert found.dtype == np.float16 and np.isnan(found[4]).all()
        assert [float(v[0]) for k, v in enumerate(found) if k != 4] == [0, 1, 2, 3, 5]
