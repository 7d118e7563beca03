"""Parts on disk: whole or absent, one configuration, resumed by id; a disk that is really full."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import image

from gsal_fo.run_folder import shards
from gsal_fo.run_folder.shards import ShardError

REPO = Path(__file__).parents[2]


def python(code: str, *args: object, **options: object) -> subprocess.Popen:
    """A Python process in the repository, its standard output as text."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_rows_come_back_from_parts_of_several_ranks(tmp_path: Path):
    rows = [image(f"s{i}", [i % 3] * (i % 4)) | {"map": np.float16([i, 2]), "map_width": 2} for i in range(6)]
    rows[5] |= {"error": "broken", "proposal_error": None}
    for rank, part in ((0, rows[:2]), (1, rows[2:4]), (0, rows[4:])):
        shards.write_part(tmp_path, "difficulty", part, digest="a" * 16, rank=rank)
    names = [path.name for path in shards.parts(tmp_path, "difficulty", digest="a" * 16)]
    assert names == ["part-000-000000.parquet", "part-000-000001.parquet", "part-001-000000.parquet"]
    read = {row["id"]: row for row in shards.iter_rows(tmp_path, "difficulty")}
    assert set(read) == shards.done_ids(tmp_path, "difficulty", digest="a" * 16) == {f"s{i}" for i in range(6)}
    for row in rows[:5]:
        np.testing.assert_array_equal(read[row["id"]]["proposal_error"], np.float32(row["proposal_error"]))
        np.testing.assert_array_equal(read[row["id"]]["map"], row["map"])
        assert read[row["id"]]["error"] is None
    assert read["s5"]["proposal_error"] is None and read["s5"]["error"] == "broken"
    table = shards.read_stage(tmp_path, "difficulty", columns=["id", "image_error"])
    assert table.column_names == ["id", "image_error"] and table.num_rows == 6


LISTS = st.lists(st.none() | st.lists(st.integers(-9, 9), max_size=4), max_size=8)


@given(LISTS, st.integers(0, 8), st.integers(0, 8))
def test_list_columns_come_back_sliced_and_chunked(values, a, b):
    whole = pa.array(values, pa.list_(pa.float32()))
    column = pa.chunked_array([whole.slice(a), whole.slice(0, b)], type=whole.type)
    got = shards.column_values(column)
    expected = values[a:] + values[:b]
    assert [None if v is None else v.tolist() for v in got] == expected


def test_a_stage_without_parts_is_empty(tmp_path: Path):
    assert shards.parts(tmp_path, "proposals") == [] and shards.done_ids(tmp_path, "proposals", digest="a") == set()
    table = shards.read_stage(tmp_path, "proposals", columns=["id", "boxes"])
    assert table.num_rows == 0 and table.column_names == ["id", "boxes"]


def test_two_configurations_are_never_mixed(tmp_path: Path):
    shards.write_part(tmp_path, "difficulty", [image("a", [0])], digest="a" * 16)
    with pytest.raises(
        ShardError, match=rf"part-000-000000.parquet was made with configuration {'a' * 16}, not {'b' * 16}"
    ):
        shards.done_ids(tmp_path, "difficulty", digest="b" * 16)
    shards.write_part(tmp_path, "difficulty", [image("b", [0])], digest="b" * 16)
    for read in (shards.parts, shards.read_stage):
        with pytest.raises(ShardError, match="never mixed; use another run folder or delete"):
            read(tmp_path, "difficulty")
    with pytest.raises(ShardError, match="never mixed"):
        list(shards.iter_rows(tmp_path, "difficulty"))


def test_a_part_of_unknown_make_and_a_broken_part_are_refused_by_name(tmp_path: Path):
    (tmp_path / "difficulty").mkdir()
    path = tmp_path / "difficulty" / "part-000-000000.parquet"
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(ShardError, match="configuration unknown"):
        shards.parts(tmp_path, "difficulty", digest="a" * 16)
    for content in (b"", b"PAR1 cut off"):
        path.write_bytes(content)
        with pytest.raises(ShardError, match=rf"{path} is not a readable Parquet file .*; delete it"):
            shards.parts(tmp_path, "difficulty")


def test_a_writer_killed_at_any_moment_leaves_whole_parts_alone(tmp_path: Path):
    """A process writes parts without end and is killed as soon as it wrote a few; what is left is read, and gone on
    with."""
    writer = python(
        """
        import sys
        from pathlib import Path
        from gsal_fo.run_folder import shards
        for i in range(10**9):
            row = {"id": f"s{i}", "map": [0.5] * 200_000, "map_width": 1}
            shards.write_part(Path(sys.argv[1]), "difficulty", [row], digest="a" * 16)
            print(i, flush=True)
        """,
        tmp_path,
    )
    assert writer.stdout is not None
    told = -1
    for line in writer.stdout:
        told = int(line)
        if told >= 5:
            os.kill(writer.pid, signal.SIGKILL)
            break
    told = max([told, *(int(line) for line in writer.stdout)])
    assert writer.wait() == -signal.SIGKILL
    done = shards.done_ids(tmp_path, "difficulty", digest="a" * 16)
    assert {f"s{i}" for i in range(told + 1)} <= done <= {f"s{i}" for i in range(told + 2)}
    assert all(len(row["map"]) == 200_000 for row in shards.iter_rows(tmp_path, "difficulty"))
    path = shards.write_part(tmp_path, "difficulty", [image("next", [0])], digest="a" * 16)
    assert path.name == f"part-000-{len(done):06d}.parquet"


WRITE_LARGE = """
import json, signal, sys
from pathlib import Path
import numpy as np
from gsal_fo.run_folder import shards
run = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
noise = np.random.default_rng(0).random(300_000).tolist()  # does not compress below the limit
shards.write_part(run, "difficulty", [{"id": "a"}], digest="a" * 16)
told = []
for write in (
    lambda: shards.write_part(run, "difficulty", [{"id": "b", "proposal_error": noise}], digest="a" * 16),
    lambda: shards.write_json(noise, run / "result.json"),
):
    try:
        write()
    except shards.ShardError as error:
        told.append(str(error))
left = sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
print(json.dumps({"told": told, "left": left, "done": sorted(shards.done_ids(run, "difficulty", digest="a" * 16))}))
"""


def check_full(folder: Path, out: str) -> None:
    """Both writes were refused in one sentence, and what was there before is all that is there."""
    got = json.loads(out)
    assert got["left"] == ["difficulty/part-000-000000.parquet"] and got["done"] == ["a"]
    assert len(got["told"]) == 2
    for sentence in got["told"]:
        assert sentence.startswith(f"cannot write {folder}") and "free space or choose another" in sentence
        assert "\n" not in sentence


def test_a_file_size_limit_is_told_and_leaves_nothing_behind(tmp_path: Path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    out, err = python(WRITE_LARGE, tmp_path, preexec_fn=limit).communicate(timeout=120)
    assert out, err
    check_full(tmp_path, out)


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path):
    """In a mount namespace of its own, so that the small disk is gone with the process, whatever happens."""
    mount = 'mount -t tmpfs -o size=256k tmpfs "$1" || exit 77; exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, WRITE_LARGE]
    if shutil.which("unshare") is None or os.geteuid():
        pytest.skip("a small disk of its own needs root and unshare")
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"no small disk here: {done.stderr.strip()}")
    check_full(tmp_path, done.stdout)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(ShardError, match=r"cannot write .*taken.*; free space or choose another output folder"):
        shards.write_part(tmp_path / "taken", "difficulty", [image("a", [0])], digest="a" * 16)
    with pytest.raises(ShardError, match=r"cannot write .*taken"):
        shards.write_json({}, tmp_path / "taken" / "config.json")


def test_json_comes_back_and_what_is_broken_is_named(tmp_path: Path):
    shards.write_json({"a": [1, 2.5, None, "ä"]}, tmp_path / "deep" / "x.json")
    assert shards.read_json(tmp_path / "deep" / "x.json") == {"a": [1, 2.5, None, "ä"]}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.json"]
    with pytest.raises(ShardError, match=r"is missing: .* is not a GSAL run folder"):
        shards.read_json(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ShardError, match="not readable JSON"):
        shards.read_json(tmp_path / "broken.json")
