"""Every file of a run folder, altered in every way: what is read is as it was, or one sentence names the file."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import STAGES, graph, image

from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.audit import entries, ledger
from gsal_fo.audit import verify as audit
from gsal_fo.config import GsalParams
from gsal_fo.run_folder import cache, embeddings, error_maps, shards, tables

LABELS = {"crack": 5, "dent": 9, "void": 1}
LONGEST = 700  # letters of a sentence, the path of the folder included
SEED = 0
FLIPS = 12  # bytes changed per file

Outcome = tuple[str, Any]


def make(folder: Path, *, seed: int = 0, images: int = 9, name: str = "run") -> Path:
    """A scored run as the product writes it: pool and labeled rows, embeddings, maps, one selection."""
    rng = np.random.default_rng(seed)
    rows = [image(f"s{i:02}", rng.integers(-2, 3, 1 + i % 4).tolist(), rng=rng) for i in range(images)]
    rows[3] |= {"error": "the file is truncated or damaged"}
    for row in rows:
        row |= {"map": np.float16(rng.random(6)), "map_width": 3, "screened": True, "source": "detector"}
        row |= {"posterior": rng.dirichlet(np.ones(4), len(row["fine"])).ravel().tolist()}
        row |= {"embeddings": rng.random(4 * len(row["fine"])).tolist(), "image": rng.random(4).tolist(), "dim": 4}
    config = {"kind": "score", "identity": "0123", "run_key": "gsal_score_001", "run_id": name}
    shards.write_record({**config, "config": {"seed": 0}}, folder / shards.CONFIG)
    known = {"filepath": "x.png", "boxes": [0.1, 0.1, 0.5, 0.5], "labels": ["void"]}
    listed = [{"id": "labeled", "role": "labeled", **known}]
    listed += [{"id": r["id"], "role": "pool", "filepath": f"{r['id']}.png"} for r in rows]
    shards.write_manifest(pa.Table.from_pylist(listed, schema=shards.MANIFEST), folder / shards.MANIFEST_NAME)
    for stage in (*STAGES, "concepts"):
        for start in range(0, len(rows), 4):
            some = rows[start : start + 4]
            if stage == "concepts":
                some = [r for r in some if not r["error"]]
            shards.write_part(folder, stage, some, digest="d" * 16)
    shards.write_record({"assign": "detector", "unknown": {"scratch": {"crack": 2}}}, folder / "assigned.json")
    shards.write_record({"timings": {"detect": 0.5}, "diffusion": {"digest": "e"}}, folder / "result.json")
    table = load_pool(folder)
    ranking = rank(table, graph(), LABELS)
    about = {"tag": "gsal_round_001", "round": 1}
    ledger.append(folder, entries.selection(folder, graph(), ranking, pick(ranking, 3), **about))
    return folder


def _selected(run: Path, table: Any = None) -> Any:
    ranking = rank(load_pool(run) if table is None else table, graph(), LABELS, GsalParams())
    rows = pick(ranking, len(ranking.order))
    return [(str(ranking.table.ids[r]), ranking.score[r].tobytes(), ranking.sentence(r)) for r in rows]


def _vectors(run: Path) -> Any:
    found = embeddings.read(run)
    return sorted((i, v.tobytes(), c.tobytes()) for i, v, c in zip(found.ids, found.image, found.crops, strict=True))


READERS: dict[str, Callable[[Path], Any]] = {
    "selection": _selected,
    "failed": lambda run: dict(load_pool(run).failed),
    "cache": lambda run: _selected(run, cache.load(run)),
    "embeddings": _vectors,
    "maps": lambda run: sorted((i, m.tobytes()) for i, m in error_maps.read(run)),
    "done": lambda run: [sorted(shards.done_ids(run, stage, digest="d" * 16)) for stage in (*STAGES, "concepts")],
    "facts": lambda run: [shards.run_facts(run, n) for n in ("config.json", "assigned.json", "result.json")],
    "manifest": lambda run: shards.read_manifest(run).to_pylist(),
    "run": shards.check_run,
}
# What these say of a part that is gone is right: its images are not done, and have no map.
MISSING_IS_TOLD_BY_OTHERS = {"done", "maps"}


def outcomes(run: Path) -> dict[str, Outcome]:
    """What each reader makes of a run folder; a sentence where it refuses. Anything else is an error of the test."""
    out: dict[str, Outcome] = {}
    for name, read in READERS.items():
        try:
            out[name] = ("read", read(run))
        except ValueError as error:
            out[name] = ("refused", str(error))
        for stale in (run / cache.COLUMNS, run / f"{cache.COLUMNS}.mark"):
            stale.unlink(missing_ok=True)
    try:
        out["verify"] = ("read", audit.verify(run))
    except ValueError as error:
        out["verify"] = ("refused", str(error))
    return out


def check(run: Path, path: Path, before: dict[str, Outcome], what: str) -> None:
    now = outcomes(run)
    gone = not path.exists()
    name = path.relative_to(run).as_posix()
    for reader in READERS:
        kind, value = now[reader]
        if kind == "refused":
            told = value.replace(str(run), "")
            assert "\n" not in value and len(told) < LONGEST, f"{what}, {reader}: {value}"
            place = path.parent.name if path.parent != run else name  # a part that is gone: its stage is named
            named = path.name in told or (gone and place in told)
            assert named, f"{what}, {reader}: names no file: {value}"
        elif not (gone and reader in MISSING_IS_TOLD_BY_OTHERS):
            assert value == before[reader][1], f"{what}, {reader}: read silently as something else"
    kind, problems = now["verify"]
    if name != ledger.NAME and any(now[r] != before[r] for r in ("selection", "failed")):
        assert kind == "refused" or any(name in text for text in problems), f"{what}: verify says {problems}"
    for text in problems if kind == "read" else [problems]:
        assert "\n" not in text and len(text.replace(str(run), "")) < 2 * LONGEST, f"{what}: {text}"


def files(run: Path) -> list[Path]:
    found = [run / n for n in ("manifest.parquet", "config.json", "assigned.json", "result.json", ledger.NAME)]
    return found + [sorted((run / stage).glob("part-*"))[0] for stage in (*STAGES, "concepts")]


def bytes_changed(path: Path) -> Iterator[tuple[str, bytes]]:
    raw, rng = path.read_bytes(), np.random.default_rng(SEED)
    yield "empty", b""
    yield "noise", rng.bytes(100)
    yield "cut", raw[: len(raw) // 2]
    yield "without its last byte", raw[:-1]
    yield "zeros", bytes(len(raw))
    for at in rng.choice(len(raw), FLIPS, replace=False):
        changed = bytearray(raw)
        changed[at] ^= 1 << int(rng.integers(8))
        yield f"bit of byte {at}", bytes(changed)


def other_value(value: Any) -> Any:
    """Something else of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return {"pool": "labeled", "labeled": "pool"}.get(value, value + "x")
    if isinstance(value, list):
        return [other_value(value[0]), *value[1:]] if value else [0.5]
    if isinstance(value, dict):
        return {**value, "x": 1}
    return 0.25 if value is None else value + 1


def tables_changed(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Rewritten by somebody who keeps the metadata: one thing of the content differs."""
    rows, facts = table.to_pylist(), table.schema.metadata or {}
    for k, field in enumerate(table.schema):
        yield f"drop {field.name}", table.drop_columns([field.name])
        yield f"rename {field.name}", table.rename_columns([*table.column_names[:k], "x", *table.column_names[k + 1 :]])
        text = pa.array([str(v) for v in table[field.name].to_pylist()])
        yield f"type {field.name}", table.set_column(k, pa.field(field.name, text.type), text)
        for way, change in (("value", other_value), ("null", lambda value: None)):
            for row in (0, 2):
                if (was := rows[row][field.name]) is None and (way == "null" or not pa.types.is_floating(field.type)):
                    continue
                values = [r[field.name] for r in rows]
                values[row] = change(was)
                changed = table.set_column(k, field, pa.array(values, field.type))
                yield f"{way} {field.name} of row {row}", changed
    yield "one row less", table.slice(1)
    yield "a row twice", pa.concat_tables([table, table.slice(0, 1)])
    yield "rows turned round", table.take(list(range(table.num_rows))[::-1])
    yield "no rows", table.slice(0, 0)
    unchecked = {k: v for k, v in facts.items() if k != tables.CHECKSUMS.encode()}
    yield "no checksums", table.replace_schema_metadata(unchecked)
    ids = table.set_column(0, table.schema.field(0), pa.array([other_value(v) for v in table[0].to_pylist()]))
    yield "other ids and no checksums", ids.replace_schema_metadata(unchecked)
    yield "no metadata", table.replace_schema_metadata(None)
    for key in facts:
        yield f"other {key.decode()}", table.replace_schema_metadata({**facts, key: b"0" * 16})


def json_changed(value: Any) -> Iterator[tuple[str, Any]]:
    yield from ((f"is {other!r}", other) for other in (None, [], "text", 1, {}))
    for key in value:
        yield f"drop {key}", {k: v for k, v in value.items() if k != key}
        inner = value[key]
        for nested in [(k, {**inner, k: other_value(inner[k])}) for k in inner] if isinstance(inner, dict) else []:
            if not isinstance(inner[nested[0]], dict):
                yield f"value {key}.{nested[0]}", {**value, key: nested[1]}
        if not isinstance(inner, dict):
            yield f"value {key}", {**value, key: other_value(inner)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, Outcome]]:
    run = make(tmp_path_factory.mktemp("runs") / "run")
    before = outcomes(run)
    assert all(kind == "read" for kind, _ in before.values()) and before["verify"][1] == []
    return run, before


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "run"))


NAMES = (
    "manifest.parquet",
    "config.json",
    "assigned.json",
    "result.json",
    ledger.NAME,
    *(f"{stage}/part-000-000000.parquet" for stage in (*STAGES, "concepts")),
)


@pytest.mark.parametrize("name", NAMES)
def test_changed_bytes_are_told_or_change_nothing(made, run, name):
    path = run / name
    raw = path.read_bytes()
    for what, content in bytes_changed(path):
        path.write_bytes(content)
        check(run, path, made[1], f"{name}: {what}")
        path.write_bytes(raw)


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(".parquet")])
def test_changed_tables_are_told(made, run, name):
    path = run / name
    table = pq.ParquetFile(path).read()
    for what, changed in tables_changed(table):
        pq.write_table(changed, path)
        check(run, path, made[1], f"{name}: {what}")


@pytest.mark.parametrize("name", ["config.json", "assigned.json", "result.json"])
def test_changed_facts_are_told(made, run, name):
    path = run / name
    value = json.loads(path.read_text())
    for what, changed in json_changed(value):
        path.write_text(json.dumps(changed))
        check(run, path, made[1], f"{name}: {what}")
        assert outcomes(run)["facts"][0] == "refused", what
        if name == "config.json":
            break


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_gone_or_a_folder_is_told(made, run, name):
    path = run / name
    path.unlink()
    if name != ledger.NAME:
        check(run, path, made[1], f"{name}: gone")
    path.mkdir()
    check(run, path, made[1], f"{name}: a folder")


def test_a_part_of_another_run_stage_or_place_is_told(made, run, tmp_path):
    other = make(tmp_path / "other", seed=1, name="other")
    twin = make(tmp_path / "twin", name="twin")
    for stage in (*STAGES, "concepts"):
        path = run / stage / "part-000-000000.parquet"
        raw = path.read_bytes()
        for what, source in (
            ("of another run", other / stage / path.name),
            ("that comes later", run / stage / "part-000-000001.parquet"),
            ("of the same images and settings", twin / stage / path.name),
        ):
            path.write_bytes(source.read_bytes())
            check(run, path, made[1], f"{stage}: a part {what}")
            assert any(kind == "refused" for kind, _ in outcomes(run).values()), f"{stage}: a part {what}"
        path.write_bytes(raw)
    for stage, wrong in (("difficulty", "screening"), ("concepts", "trial_clip")):
        target = run / wrong / "part-000-000000.parquet"
        target.parent.mkdir()
        shutil.copyfile(run / stage / target.name, target)
        with pytest.raises(shards.ShardError, match=f"{target} is a copy of {stage}/{target.name}"):
            shards.parts(run, wrong)
    shutil.copyfile(other / "manifest.parquet", run / "manifest.parquet")
    with pytest.raises(shards.ShardError, match=r"part-000-000000.parquet is of another run than .*manifest.parquet"):
        load_pool(run)
    with pytest.raises(shards.ShardError, match=r"manifest.parquet is of another run than .*config.json"):
        shards.check_run(run)


def test_a_part_that_names_another_configuration_is_told_where_it_is_the_only_one(tmp_path):
    path = shards.write_part(tmp_path, "crops", [{"id": "a", "proposal_error": [1.0]}], digest="c" * 16)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"gsal_digest": b"e" * 16}), path)
    with pytest.raises(shards.ShardError, match=f"{path} was altered: what it says of itself does not fit"):
        shards.parts(tmp_path, "crops")


def test_a_run_of_before_checksums_is_read_as_it_is(made, run):
    """Everything that this version adds is taken away, from all files."""
    (run / "config.json").unlink()
    for path in [run / "manifest.parquet", *run.glob("*/part-*")]:
        table = pq.ParquetFile(path).read()
        keep = {} if path.name == "manifest.parquet" else {"gsal_digest": table.schema.metadata[b"gsal_digest"]}
        pq.write_table(table.replace_schema_metadata(keep), path)
    for name in ("assigned.json", "result.json"):
        value = json.loads((run / name).read_text())
        del value["checksum"]
        (run / name).write_text(json.dumps(value))
    now = outcomes(run)
    for reader in ("selection", "failed", "cache", "embeddings", "maps", "done", "manifest"):
        assert now[reader] == made[1][reader]
    path = shards.write_part(run, "crops", [{"id": "a", "proposal_error": [1.0]}], digest="c" * 16)
    assert shards.parts(run, "crops") == [path]


def test_what_an_unchecked_run_holds_is_refused_where_it_cannot_be(made, run):
    """Without checksums a value may be anything; what cannot be a value is a sentence all the same."""
    (run / "config.json").unlink()
    shutil.rmtree(run / "concepts")
    paths = [run / "manifest.parquet", *(run / stage / "part-000-000000.parquet" for stage in STAGES)]
    for path in [run / "manifest.parquet", *run.glob("*/part-*")]:
        table = pq.ParquetFile(path).read()
        keep = {} if path.name == "manifest.parquet" else {"gsal_digest": table.schema.metadata[b"gsal_digest"]}
        pq.write_table(table.replace_schema_metadata(keep), path)
    for path in paths:
        raw = path.read_bytes()
        for what, changed in tables_changed(pq.ParquetFile(path).read()):
            pq.write_table(changed, path)
            try:
                load_pool(run)
            except ValueError as error:
                assert "\n" not in str(error) and len(str(error).replace(str(run), "")) < LONGEST, what
                assert str(run) in str(error), f"{path.name}: {what}: names no file: {error}"
            path.write_bytes(raw)
