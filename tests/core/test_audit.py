"""The ledger and the proof of the picks: an untouched run agrees, and each alteration is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from runs import graph, image, write_run

from gsal_fo.acquisition.picking import pick
from gsal_fo.acquisition.ranking import load_pool, rank
from gsal_fo.audit import entries, ledger
from gsal_fo.audit import verify as audit
from gsal_fo.cli import main
from gsal_fo.config import GsalParams

LABELS = {"crack": 5, "dent": 9, "void": 1}


def select(run: Path, keep: np.ndarray, params: GsalParams, tag: str, budget: int = 3) -> list[int]:
    ranking = rank(load_pool(run), graph(), LABELS, params, keep=keep)
    rows = pick(ranking, budget)
    ledger.append(run, entries.selection(run, graph(), ranking, rows, tag=tag))
    return rows


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two rounds of three out of eleven images: GSAL, then the greedy graded rule."""
    rng = np.random.default_rng(0)
    rows = [image(f"s{i:02}", rng.integers(-2, 3, 1 + i % 4).tolist(), rng=rng) for i in range(11)]
    folder = write_run(tmp_path / "run", rows)
    keep = np.ones(11, dtype=bool)
    keep[select(folder, keep.copy(), GsalParams(), "one")] = False
    select(folder, keep, GsalParams(rarity="graded", batch="greedy"), "two")
    return folder


def lines(run: Path) -> list[str]:
    return (run / ledger.NAME).read_text().splitlines()


def rewrite(run: Path, entries: list[str]) -> None:
    (run / ledger.NAME).write_text("".join(f"{line}\n" for line in entries))


def rehashed(line: str, **changes) -> str:
    entry = {**json.loads(line), **changes}
    return json.dumps({**entry, "hash": ledger.entry_hash(entry)})


def test_an_untouched_run_agrees(run: Path, capsys):
    assert audit.verify(run) == []
    assert main(["audit", "verify", "--run-dir", str(run)]) == 0
    assert "as it was" in capsys.readouterr().out


@pytest.mark.parametrize("strategy", ["shuffled_graph", "noise_difficulty", "random", "no_rarity", "symbolic_only"])
def test_every_strategy_can_be_derived_again(tmp_path: Path, strategy: str):
    rng = np.random.default_rng(0)
    rows = [image(f"s{i}", rng.integers(-2, 3, 3).tolist(), rng=rng) for i in range(8)]
    folder = write_run(tmp_path, rows)
    select(folder, np.ones(8, dtype=bool), GsalParams(strategy=strategy, seed=4), "one")
    assert audit.verify(folder) == []


# What 0.1.0 wrote of the run below: one set of images, and a bonus for unmatched crops whatever ``levels`` says.
FIRST_RULES = {
    "params": {"levels": "CA"},
    "labels": LABELS,
    "pool": "9A==",  # 1111 01
    "picks": [
        {"id": "s0", "rank": 1, "score": 1.6633191238575291},
        {"id": "s1", "rank": 2, "score": 1.3957157729520522},
    ],
}


def test_an_entry_of_the_first_rules_is_derived_as_it_was_made(tmp_path: Path):
    rng = np.random.default_rng(3)
    folder = write_run(tmp_path, [image(f"s{i}", rng.integers(-2, 3, 2).tolist(), rng=rng) for i in range(6)])
    entry = {**FIRST_RULES, "graph": graph().to_dict()}
    ranking, rows = audit.derive(folder, entry)
    assert [str(ranking.table.ids[r]) for r in rows] == ["s0", "s1"]
    assert [float(ranking.scores.score[r]) for r in rows] == [p["score"] for p in FIRST_RULES["picks"]]
    assert ranking.free.tolist() == ranking.pickable.tolist() == [True, True, True, True, False, True]
    with pytest.raises(ValueError, match="goes by the rules 9, and this version knows those up to 3"):
        audit.derive(folder, {**entry, "rules": 9})
    # By the rules of now the two matched crops of s2 beat those that match nothing.
    assert str(ranking.table.ids[audit.derive(folder, {**entry, "rules": 2})[1][0]]) == "s2"


def test_a_selection_on_a_view_with_an_open_round_is_derived_again(tmp_path: Path):
    rng = np.random.default_rng(5)
    folder = write_run(tmp_path, [image(f"s{i}", rng.integers(-2, 3, 3).tolist(), rng=rng) for i in range(9)])
    free, view = np.arange(9) > 1, np.arange(9) < 6
    ranking = rank(load_pool(folder), graph(), LABELS, GsalParams(batch="greedy"), free=free, pickable=view)
    ledger.append(folder, entries.selection(folder, graph(), ranking, pick(ranking, 3), tag="one"))
    assert audit.verify(folder) == []
    line = lines(folder)[0]
    for name in ("pool", "free", "pickable"):  # each says which images: without the picks, they cannot be derived
        rewrite(folder, [rehashed(line, **{name: "AAA="})])
        assert audit.verify(folder), name


def test_one_byte_of_a_part_is_named(run: Path, capsys):
    part = sorted((run / "difficulty").glob("*.parquet"))[1]
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 3] ^= 1
    part.write_bytes(bytes(raw))
    found = audit.verify(run)
    assert sum(f"difficulty/{part.name} was altered since the selection" in text for text in found) == 2
    assert main(["audit", "verify", "--run-dir", str(run), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["altered"] is True


def test_another_id_in_an_entry_is_named_by_its_hash_and_by_the_picks(run: Path):
    first, second = lines(run)
    entry = json.loads(first)
    true = entry["picks"][1]["id"]
    entry["picks"][1]["id"] = "s99"
    rewrite(run, [json.dumps(entry), second])
    chain, derived = audit.verify(run)
    assert "line 1: the entry was altered" in chain
    assert derived == f"entry 1 (one): pick 2 is {true} by the stored data, and the entry says s99"


def test_a_forger_who_recomputes_the_hash_breaks_the_chain_and_the_picks(run: Path):
    first, second = lines(run)
    picks = json.loads(first)["picks"]
    picks[0]["score"] += 0.25
    rewrite(run, [rehashed(first, picks=picks), second])
    chain, derived = audit.verify(run)
    assert "line 2: does not follow the line before" in chain
    assert "entry 1 (one): pick 1" in derived and f"the entry says {picks[0]['score']!r}" in derived


def test_a_whole_forged_chain_is_caught_by_what_the_dataset_records(run: Path):
    recorded = {e["tag"]: e["hash"] for e in map(json.loads, lines(run))}
    assert audit.verify(run, recorded) == []
    rewrite(run, [rehashed(lines(run)[0], who="somebody else")])
    altered, gone = audit.verify(run, recorded)
    assert "the entry of one is not the one that the dataset records" in altered
    assert "records the selection two, and its entry is gone" in gone


def test_a_dropped_and_a_moved_entry_and_a_torn_line_are_named(run: Path):
    first, second = lines(run)
    rewrite(run, [second])
    assert any("line 1: does not follow the line before" in text for text in audit.verify(run))
    rewrite(run, [second, first])
    assert sum("does not follow" in text for text in audit.verify(run)) == 2
    (run / ledger.NAME).write_text(f"{first}\n{second[:100]}")
    (torn,) = audit.verify(run)
    assert f"{run / ledger.NAME} ends in the middle of an entry" in torn


def test_nothing_is_added_to_a_broken_ledger(run: Path):
    first, second = lines(run)
    rewrite(run, [first.replace('"one"', '"two"'), second])
    before = (run / ledger.NAME).read_bytes()
    with pytest.raises(
        ValueError, match=r"line 1: the entry was altered.*; nothing was changed. See `gsal audit verify`"
    ):
        ledger.append(run, {"tag": "three"})
    assert (run / ledger.NAME).read_bytes() == before


def test_other_thresholds_and_another_pool_are_named(run: Path):
    first, _ = lines(run)
    rewrite(run, [rehashed(first, thresholds={"fine": 7, "coarse": 7, "abstract": 7})])
    assert "entry 1 (one): thresholds are" in audit.verify(run)[0]
    rewrite(run, [rehashed(first, pool="AAAA")])
    assert "another number of images than the 11" in audit.verify(run)[0]


def test_a_run_without_a_selection_says_so(tmp_path: Path):
    with pytest.raises(ValueError, match="nothing to verify before the first selection"):
        audit.verify(tmp_path)


def test_a_report_goes_over_no_file_of_somebody(run: Path, tmp_path: Path, capsys):
    out = tmp_path / "notes.html"
    out.write_text("my notes")
    command = ["audit", "report", "--run-dir", str(run), "--out", str(out)]
    assert main(command) == 1 and out.read_text() == "my notes"
    assert "notes.html exists" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0 and "Audit of a selection" in out.read_text()
    assert main(command) == 0, "its own page it writes again"


def page(run: Path, out: Path) -> str:
    assert main(["audit", "report", "--run-dir", str(run), "--out", str(out)]) == 0
    return out.read_text()


def test_the_page_calls_a_graded_rarity_by_its_share_and_terms_that_do_not_count_by_that(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = [image(f"s{i}", rng.integers(-2, 3, 3).tolist(), rng=rng) for i in range(8)]
    told = {}
    for name, params in {
        "quantile": GsalParams(),
        "graded": GsalParams(rarity="graded"),
        "diffusion": GsalParams(strategy="diffusion_only"),
        "symbolic": GsalParams(strategy="symbolic_only", lam=2.0),
        "random": GsalParams(strategy="random"),
    }.items():
        folder = write_run(tmp_path / name, rows)
        select(folder, np.ones(8, dtype=bool), params, "one")
        told[name] = page(folder, tmp_path / f"{name}.html")
    assert "<th>threshold</th>" in told["quantile"] and "rare at or below" in told["quantile"]
    assert "most of its level" in told["graded"] and "rare at or below" not in told["graded"]
    # By hand, for a void: 1 of at most 9, subsurface 1 of 14, dark 6 of 10.
    assert all(f"<td>{share}</td>" in told["graded"] for share in ("0.89", "0.93", "0.40"))
    assert "fired" not in told["graded"]
    assert "rarity Z(S), times lambda 1" in told["quantile"] and "rarity Z(S), not used" in told["diffusion"]
    assert "rarity Z(S), alone" in told["symbolic"] and "Z(G), not used" in told["symbolic"]
    assert "score A" not in told["random"]


CHEATS = {
    "graph": (lambda e: e["graph"]["concepts"]["void"].update(coarse="surface"), "line 1: the entry was altered"),
    "label counts": (lambda e: e["labels"].update(void=7), "line 1: the entry was altered"),
    "constants": (lambda e: e["params"].update(lam=3.0), "line 1: the entry was altered"),
    "order": (lambda e: e["picks"].reverse(), "pick 1 is"),
    "threshold": (lambda e: e["thresholds"].update(fine=4), "thresholds are"),
    "code version": (lambda e: e.update(code="9.9"), "line 1: the entry was altered"),
    "model digest": (lambda e: e.update(digests={"detector_model": "0" * 64}), "line 1: the entry was altered"),
    "who": (lambda e: e.update(who="nobody"), "line 1: the entry was altered"),
}


@pytest.mark.parametrize("cheat", CHEATS)
@pytest.mark.parametrize("rehash", [False, True])
def test_every_part_of_an_entry_is_covered(run: Path, cheat: str, rehash: bool):
    """Without a new hash the entry is named; with one, the line after it and what the dataset records disagree."""
    change, said = CHEATS[cheat]
    recorded = {e["tag"]: e["hash"] for e in map(json.loads, lines(run))}
    first, second = lines(run)
    entry = json.loads(first)
    change(entry)
    rewrite(run, [rehashed(first, **entry) if rehash else json.dumps(entry), second])
    found = audit.verify(run, recorded)
    if rehash:
        assert any("line 2: does not follow" in text for text in found)
        assert any("entry of one is not the one that the dataset records" in text for text in found)
    else:
        assert any(said in text for text in found), found


@pytest.mark.parametrize("name", ["manifest.parquet", "result.json", "assigned.json"])
def test_the_files_beside_the_parts_are_covered_too(tmp_path: Path, name: str):
    rows = [image(f"s{i}", [0, 1, 2]) for i in range(5)]
    folder = write_run(tmp_path, rows)
    for extra in ("result.json", "assigned.json"):
        (folder / extra).write_text('{"models": {"detector": "abc"}}')
    select(folder, np.ones(5, dtype=bool), GsalParams(), "one")
    assert audit.verify(folder) == []
    path = folder / name
    path.write_bytes(path.read_bytes().replace(b"abc", b"abd") if path.suffix == ".json" else path.read_bytes() + b" ")
    if name == "assigned.json":
        path.unlink()
    assert any(f"entry 1 (one): {name} was altered" in t or f"{name} is gone" in t for t in audit.verify(folder))
