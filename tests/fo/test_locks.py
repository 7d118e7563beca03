"""Locks in the database: taken by one, waited for by the others, given back when their owner is gone."""

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import fiftyone as fo
import psutil
import pytest

import gsal_fo.fo as gfo
from gsal_fo.fo import journal, locks, owners
from tests.mortal import Mortals, on

HOLD = """
import time
from gsal_fo.fo import locks
lease = locks.acquire(ds, "select", print)
locks.reserve(lease, "gsal_score_007", folder="/f", identity="i")
Path({out!r}).write_text(lease.token)
time.sleep(600)
"""


@pytest.fixture
def shared():
    """A dataset of one sample that other processes find by name."""
    dataset = fo.Dataset(f"locks-{time.time_ns()}", persistent=True)
    dataset.add_sample(fo.Sample("/a.png"))
    yield dataset
    locks.collection().delete_one({"_id": dataset._doc.id})
    dataset.delete()


@pytest.fixture(scope="module")
def mortals():
    return Mortals()


@pytest.fixture
def held_elsewhere(mortals, shared, tmp_path):
    """A process that holds the lock and a run key: where its report will be, and its pid."""
    out = tmp_path / "held"
    report, pid = mortals.run(on(shared.name, HOLD.format(out=str(out))), wait=False)
    while not out.exists():
        time.sleep(0.01)
    yield report, pid
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()


def test_a_dataset_that_nobody_works_on_has_no_document(shared):
    assert locks.read(shared) is None
    with journal.hold(shared, "select"):
        owner = locks.read(shared)["owner"]
        assert owner["command"] == "select" and owner["user"] == owners.user()
    assert locks.read(shared) is None


def test_the_second_waits_for_the_first(shared):
    order = []

    def second():
        order.append("asks")
        with journal.hold(shared, "cancel"):
            order.append("second")

    with journal.hold(shared, "select"):
        thread = threading.Thread(target=second)
        thread.start()
        while not order:
            time.sleep(0.01)
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["asks", "first", "second"]


def test_who_has_waited_long_enough_is_told_for_whom(shared, held_elsewhere):
    _, pid = held_elsewhere
    told = []
    with pytest.raises(ValueError, match=rf"in use: select of .* \(process {pid} on .*\); wait for it to end"):
        locks.acquire(shared, "cancel", told.append, wait=locks.PATIENCE + 0.5)
    assert len(told) == 1 and told[0]["message"].startswith("waiting for select of")


def test_a_thread_that_would_wait_for_itself_is_told_so(shared):
    with journal.hold(shared, "select"), pytest.raises(ValueError, match="cancel: select is not done with dataset"):
        locks.acquire(shared, "cancel", print)


def test_a_lock_and_a_key_are_given_back_when_their_owner_was_killed(mortals, shared, held_elsewhere):
    report, pid = held_elsewhere
    found = locks.read(shared)
    assert found["owner"]["pid"] == pid and not locks.is_gone(found, found["owner"])
    psutil.Process(pid).kill()
    mortals.ended(report, pid)
    found = locks.read(shared)
    assert locks.is_gone(found, found["owner"]) and locks.is_gone(found, found["running"]["gsal_score_007"])
    with journal.hold(shared, "cancel") as held:
        assert held.lease.before["pid"] == pid and not held.running
    assert locks.read(shared) is None


def test_a_pid_that_another_process_has_by_now_holds_nothing(shared):
    mine = owners.me("select")
    assert not owners.is_dead(mine)
    assert owners.is_dead({**mine, "started": mine["started"] - 60})


def test_an_owner_of_another_machine_is_gone_a_lease_after_its_last_beat(shared):
    with journal.hold(shared, "select") as held:
        elsewhere = {"owner.machine": "elsewhere/0/0", "owner.host": "elsewhere"}
        locks.collection().update_one(held.lease.mine, {"$set": elsewhere})
        found = locks.read(shared)
        assert not locks.is_gone(found, found["owner"])
        late = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=owners.LEASE + 5)
        locks.collection().update_one(held.lease.mine, {"$set": {"owner.beat": late}})
        with journal.hold(shared, "cancel"):
            with pytest.raises(ValueError, match=r"select lost its lock on dataset .*give the command again"):
                held.apply("request", [], {})
            assert locks.read(shared)["owner"]["command"] == "cancel"
    assert locks.read(shared) is None, "the one who lost it released nothing that is not its own"


def test_beats_are_written_while_a_lock_is_held(shared, monkeypatch):
    monkeypatch.setattr(owners, "BEAT", 0.02)
    with journal.hold(shared, "select"):
        first = locks.read(shared)["owner"]["beat"]
        while locks.read(shared)["owner"]["beat"] == first:
            time.sleep(0.01)


def test_a_key_goes_back_with_the_lock_in_one_command_or_alone(shared):
    with journal.hold(shared, "score") as held:
        one = held.reserve("gsal_score_001", folder="/a", identity="x")
        two = held.reserve("gsal_score_002", folder="/b", identity="y")
    assert set(locks.read(shared)["running"]) == {"gsal_score_001", "gsal_score_002"} and "owner" not in locks.read(
        shared
    )
    with journal.hold(shared, "score") as held:
        assert set(held.running) == {"gsal_score_001", "gsal_score_002"}
        held.ends_with(one)
    assert set(locks.read(shared)["running"]) == {"gsal_score_002"}
    with journal.kept(two):
        pass
    assert locks.read(shared) is None


def test_a_clone_inherits_no_lock(scored):
    with journal.hold(scored, "select") as held:
        held.reserve("gsal_score_002", folder="/a", identity="x")
        clone = scored.clone()
        assert locks.read(clone) is None and len(gfo.select(clone, 1)) == 1
        held.ends.append("running.gsal_score_002")
    clone.delete()


def test_two_selections_at_once_from_two_processes_make_two_rounds_of_other_images(mortals, scored):
    scored.persistent = True
    code = on(scored.name, "gfo.select(ds, 3)")
    started = [mortals.run(code, wait=False) for _ in range(2)]
    assert [mortals.ended(*s).error for s in started] == ["", ""]
    scored.reload()
    scored.persistent = False
    assert scored.count_sample_tags() == {"gsal_round_001": 3, "gsal_round_002": 3}
    assert gfo.runs.select_keys(scored) == ["gsal_select_001", "gsal_select_002"]
    picks = [{p["id"] for p in gfo.runs.picks(scored, key)} for key in gfo.runs.select_keys(scored)]
    assert not picks[0] & picks[1] and len(picks[0] | picks[1]) == 6


def test_two_threads_with_one_dataset_object_make_two_records(scored):
    """A double click in the App: both handlers have the same dataset in memory, as it was before the first."""
    clicks = [threading.Thread(target=gfo.select, args=(scored, 2)) for _ in range(2)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    assert [(r["tag"], r["images"]) for r in gfo.status(scored)] == [("gsal_round_001", 2), ("gsal_round_002", 2)]


def test_a_stale_dataset_object_sees_the_round_that_was_made_meanwhile(mortals, scored):
    scored.persistent = True
    code = on(scored.name, "gfo.select(ds, 2)")
    assert not mortals.run(code).error
    assert gfo.runs.select_keys(scored) == [], "this object has not heard of it"
    assert gfo.select(scored, 2).values("gsal_round") == [2, 2]
    scored.persistent = False
