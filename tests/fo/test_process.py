"""The worker process door: events, errors, kills. The workers here are real processes of a few lines."""

import os
import signal
import textwrap

import psutil
import pytest

from gsal_fo.worker.process import WorkerError, run_worker


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Writes an importable module and returns its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(code: str) -> str:
        (tmp_path / "tiny_worker.py").write_text("import json, os, sys, time\n" + textwrap.dedent(code))
        return "tiny_worker"

    return write


def test_events_come_in_order_and_other_output_is_left_out(worker):
    name = worker("""
        print("a library says hello")
        print(json.dumps({"event": "progress", "stage": "detect", "done": 1, "total": int(sys.argv[1])}))
        print(json.dumps(["not", "an", "event"]))
        print(json.dumps({"event": "done"}))
    """)
    events = list(run_worker(name, ["7"]))
    assert events == [{"event": "progress", "stage": "detect", "done": 1, "total": 7}, {"event": "done"}]


def test_an_error_event_becomes_the_exception_and_stderr_its_details(worker):
    name = worker("""
        print("traceback text", file=sys.stderr)
        print(json.dumps({"event": "error", "message": "the model file is missing"}))
        sys.exit(1)
    """)
    with pytest.raises(WorkerError, match=r"^the model file is missing$") as caught:
        list(run_worker(name, []))
    assert caught.value.details == "traceback text"


def test_a_crash_without_an_event_names_the_last_line_of_stderr(worker, tmp_path):
    name = worker("raise RuntimeError('no such device')")
    log = tmp_path / "worker.log"
    log.write_text("an older run\n")
    with pytest.raises(WorkerError, match=r"ended with code 1 \(RuntimeError: no such device\)") as caught:
        list(run_worker(name, [], log=log))
    assert "an older run" not in caught.value.details and "Traceback" in log.read_text()


def test_a_killed_worker_is_told_from_a_failed_one(worker):
    name = worker("""
        print(json.dumps({"event": "note", "message": str(os.getpid())}), flush=True)
        time.sleep(60)
    """)
    with pytest.raises(WorkerError, match=r"killed by SIGKILL.*run the same command again"):
        for event in run_worker(name, []):
            os.kill(int(event["message"]), signal.SIGKILL)


def test_closing_the_generator_ends_the_worker_and_its_grandchildren(worker):
    name = worker("""
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        print(json.dumps({"event": "note", "pids": [os.getpid(), child.pid]}), flush=True)
        time.sleep(60)
    """)
    events = run_worker(name, [])
    processes = [psutil.Process(pid) for pid in next(events)["pids"]]
    events.close()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive, "an orphan would go on writing to the run folder"


def test_a_module_in_the_callers_folder_is_not_imported(worker, tmp_path, monkeypatch):
    name = worker("import colorsys; print(json.dumps({'event': 'note', 'file': colorsys.__file__}))")
    trap = tmp_path / "elsewhere"
    trap.mkdir()
    (trap / "colorsys.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(trap)
    assert str(trap) not in next(run_worker(name, []))["file"]
