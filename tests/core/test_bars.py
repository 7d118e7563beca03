"""Worker events as a person sees them on a terminal and in a log."""

from gsal_fo.worker.bars import Bars


def test_a_log_gets_one_line_per_stage_note_and_failed_image(capsys):
    with Bars() as bars:
        bars({"event": "progress", "stage": "detect", "done": 1, "total": 2})
        bars({"event": "failed", "id": "abc", "reason": "truncated [file]"})
        bars({"event": "stage", "stage": "detect", "seconds": 1.25})
        bars({"event": "note", "message": "cold start"})
    err = capsys.readouterr().err
    assert err.splitlines() == ["left out abc: truncated [file]", "detector: 1.2 s", "cold start"]


def test_a_second_round_gets_bars_of_its_own():
    with Bars() as bars:
        for _ in range(2):
            bars({"event": "progress", "stage": "train", "done": 3, "total": 3})
            bars({"event": "stage", "stage": "train", "seconds": 1.0})
        assert [t.completed for t in bars.progress.tasks] == [3, 3]
