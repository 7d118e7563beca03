"""`gsal doctor` on this installation and on broken ones."""

import json

import pytest

from gsal_fo import cli
from gsal_fo.commands import checks as doctor


def test_a_working_installation_has_nothing_broken(capsys):
    code = cli.main(["doctor", "--json"])
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert [c for c in checks.values() if c["state"] == "broken"] == []
    assert code == 0
    assert {"Python", "torch", "mongod", "FiftyOne", "plugin", "models", "disk", "browser"} == set(checks)


def test_the_bundled_mongod_runs(monkeypatch):
    monkeypatch.delenv("FIFTYONE_DATABASE_URI")
    (check,) = doctor._mongod()
    assert check.state == doctor.OK
    assert "db version" in check.detail


def test_an_unwritable_home_is_broken_and_says_what_to_set(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("GSAL_HOME", str(file / "below"))
    (check,) = doctor._home()
    assert check.state == doctor.BROKEN
    assert "GSAL_HOME" in check.cure


def test_a_server_uri_makes_mongod_unnecessary_and_is_not_shown(monkeypatch):
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://user:secret@host")
    (check,) = doctor._mongod()
    assert check.state == doctor.OK
    assert "secret" not in check.detail


def test_what_is_broken_counts_and_every_finding_has_its_cure():
    text = doctor.report(
        [
            doctor.Check("Python", doctor.OK, "3.11.7"),
            doctor.Check("browser", doctor.MISSING, "none", "install one"),
            doctor.Check("mongod", doctor.BROKEN, "gone", "get it"),
        ]
    )
    assert text.splitlines()[-1] == "1 broken"
    assert "-> install one" in text and "-> get it" in text


def test_an_optional_part_that_is_missing_is_no_failure(monkeypatch):
    monkeypatch.setenv("PATH", "")
    (check,) = doctor._browser()
    assert check.state == doctor.MISSING


def test_a_child_that_fails_is_reported_by_its_last_line():
    with pytest.raises(ValueError, match="no such thing"):
        doctor._ask("-c", "raise SystemExit('no such thing')")
