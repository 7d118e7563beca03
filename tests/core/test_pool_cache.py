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


def damages(path):
    raw, rng = path.read_bytes(), np.random.default_rng(0)
    yield from ((b"", "empty"), (b"no archive", "text"), (b"PK\x03\x04 cut short", "head"), (raw[:-20], "cut"))
    yield rng.bytes(len(raw)), "noise"
    for at in rng.choice(len(raw), 40, replace=False):
        changed = bytearray(raw)
        changed[at] ^= 1 << int(rng.integers(8))
        yield bytes(changed), f"bit of byte {at}"


def test_a_damaged_cache_is_told_and_made_again(run, caplog):
    table, path = cache.load(run), run / cache.COLUMNS
    raw = path.read_bytes()
    for content, what in damages(path):
        path.write_bytes(content)
        caplog.clear()
        same(cache.load(run), table)
        assert [r.message for r in caplog.records if f"{path} is damaged" in r.message], what
        caplog.clear()
        same(cache.load(run), table)
        assert not caplog.records and path.read_bytes() == raw, what


def test_values_that_somebody_wrote_into_the_cache_are_not_read(run):
    table, path = cache.load(run), run / cache.COLUMNS
    with np.load(path) as stored:
        columns = {name: stored[name] for name in stored.files}
    columns["image_error"] = columns["image_error"][::-1]
    np.savez(path, **columns)
    same(cache.load(run), table)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"made from": 3}'])
def test_a_cache_whose_mark_is_damaged_is_made_again(run, content):
    table = cache.load(run)
    (run / f"{cache.COLUMNS}.mark").write_text(content)
    same(cache.load(run), table)
    assert "checksum" in (run / f"{cache.COLUMNS}.mark").read_text()


@pytest.fixture
def embedded(run):
    """The same run with embeddings: image k has k in every place; one image has none, and one labeled image has one."""
    table = load_pool(run)
    lost = str(table.ids[4])
    rows = [
        {"id": str(i), "role": "pool", "embeddings": np.zeros(3), "image": np.full(3, k, dtype=np.float16), "dim": 3}
        for k, i in enumerate(table.ids)
    ]
    rows[4] = {"id": lost, "role": "pool", "error": "its crops cannot be cut"}
    shards.write_part(run, "concepts", [*rows[::-1], {**rows[0], "id": "labeled", "role": "labeled"}], digest="d")
    return run


def test_image_vectors_are_those_of_the_rows_asked_for(run):
    assert cache.image_vectors(run, load_pool(run), [0]) is None  # the detector assigned: no embeddings


def test_image_vectors_are_in_the_order_of_the_table(embedded):
    table = load_pool(embedded)
    for _ in range(2):  # made, then read
        found = cache.image_vectors(embedded, table, [5, 0, 4])
        assert found.dtype == np.float16 and found.shape == (3, 3)
        np.testing.assert_array_equal(found, np.float16([[5] * 3, [0] * 3, [np.nan] * 3]))
    assert cache.image_vectors(embedded, table, []).shape == (0, 3)


def test_damaged_vectors_are_told_and_made_again(embedded, caplog):
    table, path = load_pool(embedded), embedded / cache.VECTORS
    rows = list(range(len(table.ids)))
    right = cache.image_vectors(embedded, table, rows)
    raw = path.read_bytes()
    for content, what in damages(path):
        path.write_bytes(content)
        caplog.clear()
        np.testing.assert_array_equal(cache.image_vectors(embedded, table, rows), right, err_msg=what)
        assert [r.message for r in caplog.records] == [f"{path} is damaged; it is made again from the parts"], what
        assert path.read_bytes() == raw, what
    changed = np.frombuffer(raw, np.uint8).reshape(len(rows), -1)
    path.write_bytes(changed[::-1].tobytes())  # whole rows, of other images
    np.testing.assert_array_equal(cache.image_vectors(embedded, table, rows), right)
