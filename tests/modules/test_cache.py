"""The statistics cache: whatever happens to its files, a value is right or is not there, and nothing stops."""

import sqlite3

import numpy as np
import pytest

from lightning_modules.cache import StatisticsCache, is_damaged

VALUES = {f"{i:032x}:{i}-0-9-9": np.array([i, np.nan, -i / 3], np.float32) for i in range(900)}


def cache(folder, rank=0):
    return StatisticsCache(folder, scorer="s", rank=rank)


def filled(folder, rank=0):
    one = cache(folder, rank)
    one.put(VALUES)
    one.close()
    return one.path


def right(found):
    for key, value in found.items():
        np.testing.assert_array_equal(value, VALUES[key])
    return len(found)


def mended(folder):
    """What a scoring does: look up, compute what is not there, store it; then a later one finds all of it."""
    one = cache(folder)
    known = one.get(list(VALUES))
    right(known)
    one.put({k: v for k, v in VALUES.items() if k not in known})
    told = one.tell()
    one.remove_damaged()
    assert one.tell() == []
    return len(known), told


def damages(raw):
    rng = np.random.default_rng(0)
    yield "noise", rng.bytes(100)
    yield "empty", b""
    yield "cut", raw[: len(raw) // 2]
    yield "text", b"no database\n" * 1000
    yield "noise behind the header", raw[:100] + rng.bytes(len(raw) - 100)
    for at in [*range(0, 110, 10), *rng.choice(len(raw), 25, replace=False)]:
        changed = bytearray(raw)
        changed[at] ^= 1 << int(rng.integers(8))
        yield f"bit of byte {at}", bytes(changed)


def test_a_damaged_file_is_a_miss_told_once_and_written_anew(tmp_path):
    path = filled(tmp_path)
    raw = path.read_bytes()
    for what, content in damages(raw):
        for name in path.parent.iterdir():
            name.unlink()
        path.write_bytes(content)
        known, told = mended(tmp_path)
        assert len(told) <= 1 and all(str(path) in text and "\n" not in text for text in told), (what, told)
        # A changed bit may hide a key or two, which nobody can tell from keys that never were there.
        assert told or "bit" in what or (what, known) == ("empty", 0), what
        assert not (told and is_damaged(path)), what
        kept = cache(tmp_path)
        assert right(kept.get(list(VALUES))) == len(VALUES) or what not in ("noise", "text", "empty"), what
        kept.close()
        mended(tmp_path)  # where a damaged file was removed last, this fills it
        again = cache(tmp_path)
        assert right(again.get(list(VALUES))) == len(VALUES), what
        again.close()


def test_a_value_that_was_altered_is_computed_again(tmp_path):
    path = filled(tmp_path)
    keys = list(VALUES)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE checked SET value = ? WHERE key = ?", (np.float32([1, 2, 3]).tobytes(), keys[0]))
        db.execute("UPDATE checked SET value = ? WHERE key = ?", ("text", keys[1]))
        db.execute("UPDATE checked SET checksum = NULL WHERE key = ?", (keys[2],))
        other = db.execute("SELECT value, checksum FROM checked WHERE key = ?", (keys[4],)).fetchone()
        db.execute("UPDATE checked SET value = ?, checksum = ? WHERE key = ?", (*other, keys[3]))
    db.close()
    known, told = mended(tmp_path)
    assert known == len(VALUES) - 4 and told == [f"{path} holds a value that was altered; it is computed again"]
    assert right(cache(tmp_path).get(keys)) == len(VALUES)


def test_another_ranks_damaged_file_costs_its_values_alone_and_goes(tmp_path):
    halves = [dict(list(VALUES.items())[k::2]) for k in (0, 1)]
    paths = []
    for rank, half in enumerate(halves):
        one = cache(tmp_path, rank)
        one.put(half)
        one.close()
        paths.append(one.path)
    paths[1].write_bytes(b"x" * 5000)
    known, told = mended(tmp_path)
    assert known == len(halves[0]) and f"{paths[1]} is damaged" in told[0]
    assert not paths[1].exists()
    assert right(cache(tmp_path).get(list(VALUES))) == len(VALUES)


def test_a_cache_that_cannot_be_written_is_told_and_does_without(tmp_path):
    (tmp_path / "s").write_text("a file where the folder should be")
    one = cache(tmp_path)
    assert one.get(list(VALUES)) == {}
    one.put(VALUES)
    one.put(VALUES)
    (told,) = one.tell()
    assert "cannot be written" in told and str(one.path) in told
    path = tmp_path / "t" / "s" / "rank-000.sqlite"
    path.mkdir(parents=True)
    other = cache(tmp_path / "t")
    assert other.get(list(VALUES)) == {}
    other.put(VALUES)
    assert len(other.tell()) == 1 and path.is_dir()


def test_a_file_without_checksums_is_not_read(tmp_path):
    """Version 0.1 wrote such: its values cannot be told from altered ones."""
    one = cache(tmp_path)
    one.folder.mkdir(parents=True)
    with sqlite3.connect(one.path) as db:
        db.execute("CREATE TABLE statistics (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        db.execute("INSERT INTO statistics VALUES (?, ?)", (next(iter(VALUES)), b"\0" * 12))
    db.close()
    assert mended(tmp_path) == (0, [])
    assert right(cache(tmp_path).get(list(VALUES))) == len(VALUES)


def test_a_file_with_another_table_of_that_name_is_begun_anew(tmp_path):
    one = cache(tmp_path)
    one.folder.mkdir(parents=True)
    with sqlite3.connect(one.path) as db:
        db.execute("CREATE TABLE checked (something TEXT)")
    db.close()
    assert mended(tmp_path)[0] == 0
    assert right(cache(tmp_path).get(list(VALUES))) == len(VALUES)


@pytest.mark.parametrize("hurt", [lambda path: path.write_bytes(b"y" * 9000), lambda path: path.unlink()])
def test_what_happens_while_it_is_open_stops_nothing(tmp_path, hurt):
    path = filled(tmp_path)
    one = cache(tmp_path)
    one.get(list(VALUES)[:3])
    hurt(path)
    right(one.get(list(VALUES)))
    one.put(VALUES)
    one.close()
    assert mended(tmp_path)[0] in (0, len(VALUES))
