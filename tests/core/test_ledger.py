"""The ledger file: an append is whole or was never there, its end cannot be cut, and nothing is added twice."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsal_fo.audit import heads, ledger, rounds

REPO = Path(__file__).parents[2]


def fill(run: Path, count: int, **about) -> list[dict]:
    return [ledger.append(run, {"note": f"entry {i}", **about}) for i in range(count)]


def file(run: Path) -> Path:
    return run / ledger.NAME


def head_at(entries: list[dict], count: int, **more) -> heads.Head:
    return heads.Head("ds", count, entries[count - 1]["hash"], **more)


@pytest.mark.parametrize("kept", [1, 20, 150])
def test_what_a_power_cut_left_of_an_entry_is_cut_back_by_the_next(tmp_path: Path, kept: int):
    first, second = fill(tmp_path, 2)
    whole = file(tmp_path).read_bytes()
    start = whole.index(b"\n") + 1
    file(tmp_path).write_bytes(whole[: start + kept])
    known = ledger.read(tmp_path)
    assert (known.entries, known.problems, known.torn) == ([first], [], kept)
    again = ledger.append(tmp_path, {"note": "entry 1"})
    assert again == second and file(tmp_path).read_bytes() == whole


def test_zeros_that_a_file_system_left_are_cut_back_too(tmp_path: Path):
    fill(tmp_path, 1)
    whole = file(tmp_path).read_bytes()
    file(tmp_path).write_bytes(whole + bytes(4096))
    fill(tmp_path, 1)
    assert file(tmp_path).read_bytes().startswith(whole) and b"\0" not in file(tmp_path).read_bytes()
    assert ledger.read(tmp_path).problems == []


def test_an_entry_that_lacks_only_its_newline_is_kept(tmp_path: Path):
    entries = fill(tmp_path, 2)
    file(tmp_path).write_bytes(file(tmp_path).read_bytes()[:-1])
    assert ledger.read(tmp_path).entries == entries
    third = ledger.append(tmp_path, {"note": "entry 2"})
    assert ledger.read(tmp_path) == ledger.Ledger([*entries, third], [])


def test_an_entry_that_the_dataset_knows_was_whole_is_not_torn_but_altered(tmp_path: Path):
    entries = fill(tmp_path, 2)
    file(tmp_path).write_bytes(file(tmp_path).read_bytes()[:-40])
    before = file(tmp_path).read_bytes()
    with pytest.raises(ValueError, match="1 entry is gone from its end; the dataset remembers 2"):
        ledger.append(tmp_path, {"note": "entry 2"}, head=head_at(entries, 2))
    assert file(tmp_path).read_bytes() == before


def test_whole_lines_that_are_no_entries_are_told_and_never_cut(tmp_path: Path):
    fill(tmp_path, 2)
    for damage in (b"{}\n", b"\n", b"[1]\n", b'{"seq": 3\n', b"\xff\n", b"[" * 5000 + b"\n"):
        before = file(tmp_path).read_bytes()
        file(tmp_path).write_bytes(before + damage)
        with pytest.raises(ValueError, match=r"ledger.jsonl, line 3: not a ledger entry; nothing was changed"):
            ledger.append(tmp_path, {})
        assert file(tmp_path).read_bytes() == before + damage
        file(tmp_path).write_bytes(before)


@given(st.data())
def test_no_byte_can_be_changed_unnoticed(tmp_path_factory, data):
    run = tmp_path_factory.mktemp("run")
    entries = fill(run, 3, value=1.5, name="ä")
    whole = bytearray(file(run).read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    file(run).write_bytes(bytes(whole))
    known = ledger.read(run)
    head = head_at(entries, 3)
    assert known.problems or head.problems(known.entries, file(run)) or known.entries == entries


@given(st.integers(0, 3), st.integers(0, 3))
def test_entries_cut_from_the_end_are_counted(tmp_path_factory, left, remembered):
    run = tmp_path_factory.mktemp("run")
    entries = fill(run, 3)
    lines = file(run).read_bytes().splitlines(keepends=True)
    file(run).write_bytes(b"".join(lines[:left]))
    head = head_at(entries, remembered) if remembered else heads.Head("ds", 0, ledger.START)
    found = head.problems(ledger.read(run).entries, file(run))
    gone = remembered - left
    assert (not found) == (gone <= 0)
    assert not found or f"{gone} entr" in found[0]


def test_a_file_written_anew_is_not_the_one_that_the_dataset_remembers(tmp_path: Path):
    entries = fill(tmp_path, 3)
    file(tmp_path).unlink()
    fill(tmp_path, 3, who="somebody else")
    (found,) = head_at(entries, 2).problems(ledger.read(tmp_path).entries, file(tmp_path))
    assert "entry 2 is not the one that the dataset remembers; the file was written anew" in found


def test_the_same_operation_is_added_once(tmp_path: Path):
    about = {"operation": "a1", "dataset_id": "ds"}
    first = ledger.append(tmp_path, {"round": 1, **about})
    ledger.append(tmp_path, {"round": 2, **about, "operation": "a2"})
    assert ledger.append(tmp_path, {"round": 9, **about}) == first
    other = ledger.append(tmp_path, {"round": 1, **about, "dataset_id": "clone"})  # its journal may use the same name
    assert [e["seq"] for e in ledger.read(tmp_path).entries] == [1, 2, 3] and other["seq"] == 3


def test_a_full_disk_leaves_the_ledger_as_it_was_and_the_next_append_works(tmp_path: Path):
    code = """
    import json, resource, signal, sys
    from pathlib import Path
    from gsal_fo.audit import ledger
    run = Path(sys.argv[1])
    ledger.append(run, {"a": 1})
    before = (run / ledger.NAME).read_bytes()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 500, resource.RLIM_INFINITY))
    try:
        ledger.append(run, {"picks": ["x" * 20] * 1000})
        told = None
    except ValueError as error:
        told = str(error)
    same = (run / ledger.NAME).read_bytes() == before
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ledger.append(run, {"a": 2})
    known = ledger.read(run)
    print(json.dumps([told, same, [e["a"] for e in known.entries], known.problems]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], cwd=REPO, capture_output=True, text=True
    )
    told, same, values, problems = json.loads(done.stdout)
    assert told.startswith(f"cannot write {file(tmp_path)}: File too large; nothing was added")
    assert same and values == [1, 2] and problems == []


def test_a_killed_writer_never_blocks_the_next_append(tmp_path: Path):
    """Killed by the signal that a file-size limit sends: in the middle of its write."""
    fill(tmp_path, 1)
    size = file(tmp_path).stat().st_size

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))

    code = "import sys; from pathlib import Path; from gsal_fo.audit import ledger\n"
    code += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
    code += "ledger.append(Path(sys.argv[1]), {'picks': 'x' * 5000})"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPO, preexec_fn=limit)
    assert done.returncode == -signal.SIGXFSZ
    assert ledger.read(tmp_path).torn == 100
    fill(tmp_path, 1)
    assert ledger.read(tmp_path).problems == [] and len(ledger.read(tmp_path).entries) == 2


def test_two_writers_at_once_make_one_chain(tmp_path: Path):
    code = "import sys; from pathlib import Path; from gsal_fo.audit import ledger\n"
    code += "for i in range(40): ledger.append(Path(sys.argv[1]), {'who': sys.argv[2], 'i': i})"
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=REPO) for name in "ab"]
    assert [p.wait() for p in both] == [0, 0]
    known = ledger.read(tmp_path)
    assert known.problems == [] and len(known.entries) == 80
    for name in "ab":
        assert [e["i"] for e in known.entries if e["who"] == name] == list(range(40))


def test_a_folder_in_the_place_of_the_ledger_and_one_that_cannot_be_written_are_sentences(tmp_path: Path):
    file(tmp_path).mkdir()
    with pytest.raises(ValueError, match=r"cannot write .*ledger.jsonl: Is a directory"):
        ledger.append(tmp_path, {})
    assert ledger.read(tmp_path).problems == [f"{file(tmp_path)} cannot be read (Is a directory)"]
    with pytest.raises(ValueError, match=r"cannot write .*gone.*: No such file or directory"):
        ledger.append(tmp_path / "gone", {})


def entry(kind: str, number: int, *, who: str | None = "ds", picks: str = "", **more) -> dict:
    about = {"round": number, "tag": f"gsal_round_{number:03d}", "kind": kind, "dataset": f"name of {who}"}
    if who is not None:
        about["dataset_id"] = who
    if kind == "select":
        about["picks"] = [{"id": i} for i in picks]
    return about | more


def test_a_clone_shares_the_history_of_before_and_nothing_after(tmp_path: Path):
    one = ledger.append(tmp_path, entry("select", 1, picks="ab"))
    two = ledger.append(tmp_path, entry("select", 2, picks="cd"))
    original = heads.Head("ds", 0, ledger.START).after(one).after(two)
    clone = original.seen_by("clone")
    mine = ledger.append(tmp_path, entry("cancel", 1, who="clone", cancels=one["hash"]))
    clone = clone.after(mine)
    three = ledger.append(tmp_path, entry("select", 3, picks="e"))
    clones = ledger.append(tmp_path, entry("select", 3, who="clone", picks="f"))
    original, clone = original.after(three), clone.after(clones)
    known = ledger.read(tmp_path).entries

    def live(head: heads.Head, dataset: str) -> dict[int, set[str]]:
        state = rounds.replay(rounds.own(known, head, dataset, "no such name"))
        assert state.taken == {1, 2, 3}
        return {number: set(r.tagged) for number, r in state.live.items()}

    assert live(original, "ds") == {1: {"a", "b"}, 2: {"c", "d"}, 3: {"e"}}
    assert live(clone, "clone") == {2: {"c", "d"}, 3: {"f"}}
    second = clone.seen_by("second")  # the clone of a clone
    assert live(second, "second") == {2: {"c", "d"}, 3: {"f"}}
    assert heads.Head.from_dict(json.loads(json.dumps(second.to_dict()))) == second


def test_entries_of_before_ids_belong_to_the_dataset_of_their_name_or_of_its_records(tmp_path: Path):
    old = {"picks": [{"id": "a"}], "round": 1, "tag": "gsal_round_001"}
    one = ledger.append(tmp_path, {**old, "dataset": "mine"})
    ledger.append(tmp_path, {"cancels": one["hash"], "round": 1, "tag": "gsal_round_001", "dataset": "its clone"})
    two = ledger.append(tmp_path, {**old, "round": 2, "tag": "gsal_round_002", "dataset": "its former name"})
    known = ledger.read(tmp_path).entries
    state = rounds.replay(rounds.own(known, None, "id", "mine", [two["hash"]]))
    assert sorted(state.live) == [1, 2]
    assert sorted(rounds.replay(rounds.own(known, None, "id", "its clone")).live) == []


def test_an_acceptance_says_what_the_rounds_are_from_then_on():
    start = {**entry("select", 1, picks="ab"), "hash": "h1", "seq": 1}
    stated = {"tag": "gsal_round_001", "selection": "h1", "tagged": ["a"], "numbered": ["a", "b"]}
    later = {"kind": "accepted", "rounds": {"1": stated}, "dataset_id": "ds", "seq": 2, "hash": "h2"}
    state = rounds.replay([start, later])
    assert state.live == {1: rounds.Round("gsal_round_001", "h1", frozenset("a"), frozenset("ab"))}
    assert state.live[1].to_dict() == stated


@pytest.mark.parametrize("value", [{}, {"dataset": "a"}, {"dataset": "a", "count": "x", "hash": "h", "round": 0}])
def test_a_head_that_was_altered_is_a_sentence(value):
    with pytest.raises(ValueError, match="the dataset's record of a ledger was altered"):
        heads.Head.from_dict(value)


def test_a_ledger_that_may_not_be_written_says_so(tmp_path: Path):
    fill(tmp_path, 1)
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    file(tmp_path).chmod(0o400)
    with pytest.raises(ValueError, match="Permission denied"):
        fill(tmp_path, 1)
