"""The wheel, as a user gets it: built, installed beside nothing but its dependencies, run."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, **kwargs) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A virtual environment that sees the installed dependencies, but neither the checkout nor its editable install."""
    home = tmp_path_factory.mktemp("home")
    run(sys.executable, "-m", "venv", "--without-pip", home / "venv")
    python = home / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
    # Only a site folder's own .pth files are read: that of the editable install lies in a folder added by one.
    Path(site, "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"FIFTYONE_DATABASE_NAME": "gsal_wheel", "GSAL_HOME": str(home / "gsal"), "OMP_NUM_THREADS": "1"}
    env["FIFTYONE_PLUGINS_DIR"] = str(home / "plugins")
    return home, env


def test_the_wheel_holds_both_packages_the_models_and_the_plugin_as_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"gsal_fo", "lightning_modules"}
    assert "gsal_fo/_plugin/fiftyone.yml" in names
    assert [n for n in names if n.startswith("gsal_fo/embedded/") and n.endswith(".safetensors")]
    assert [n for n in names if n.endswith("LICENSE")]
    assert wheel.stat().st_size < 30e6


def test_the_installed_package_is_the_wheels(installed):
    home, env = installed
    where = run(home / "venv/bin/python", "-c", "import gsal_fo; print(gsal_fo.__file__)", env=env, cwd=home)
    assert where.startswith(str(home))


def test_the_installed_command_runs_a_tiny_demo(installed):
    home, env = installed
    size = ("--images", "40", "--budget", "2", "--rounds", "1", "--steps", "5")
    out = run(home / "venv/bin/gsal", "demo", "--out", "demo", "--no-app", "--json", *size, env=env, cwd=home)
    summary = json.loads(out)
    assert len(summary["rounds"][0]["picks"]) == 2
    assert (home / "demo" / "report.html").is_file()


def test_the_installed_command_links_its_own_plugin(installed):
    home, env = installed
    run(home / "venv/bin/gsal", "plugin", "install", env=env, cwd=home)
    place = home / "plugins" / "gsal"
    assert place.is_symlink()
    assert place.resolve().is_relative_to((home / "venv").resolve())
    ask = "from fiftyone.plugins import list_plugins; print([p.name for p in list_plugins()])"
    assert "@gsal/active-learning" in run(home / "venv/bin/python", "-c", ask, env=env, cwd=home)
