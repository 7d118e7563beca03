"""The plugin as `fiftyone plugins download` gets it: an archive of the repository, over HTTP."""

import functools
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NAME = "@gsal/active-learning"
# The command and the question in one process: a start of FiftyOne is most of this test.
CODE = """
import json, sys
from fiftyone.core.cli import main
sys.argv = ["fiftyone", "plugins", "download", sys.argv[1]]
main()
from fiftyone.operators.registry import OperatorRegistry
from fiftyone.plugins import list_plugins
found = {p.name: p.directory for p in list_plugins(builtin=False)}
registry = OperatorRegistry()
print(json.dumps([found, [op.uri for op in registry.list_operators(builtin=False)], registry.list_errors()]))
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def archive(tmp_path):
    """Address of a zip as GitHub makes one: all in one folder, named for repository and branch."""
    folder = tmp_path / "served"
    folder.mkdir()
    with zipfile.ZipFile(folder / "main.zip", "w") as out:
        for path in (*ROOT.glob("*.*"), *ROOT.glob("plugins/**/*")):
            if path.is_file() and "__pycache__" not in path.parts:
                out.write(path, Path("gsal-fo-main") / path.relative_to(ROOT))
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/main.zip"
        server.shutdown()


def test_fiftyone_downloads_the_plugin_and_loads_all_of_it(archive, tmp_path):
    env = {**os.environ, "FIFTYONE_PLUGINS_DIR": str(tmp_path / "plugins")}
    env["PYTHONPATH"] = str(ROOT)  # FiftyOne copies the plugin's folder alone: gsal_fo itself comes from pip
    command = [sys.executable, "-c", CODE, archive]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found, operators, errors = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == [NAME] and Path(found[NAME]).is_relative_to(tmp_path / "plugins")
    listed = yaml.safe_load((ROOT / "plugins" / "gsal" / "fiftyone.yml").read_text())
    assert set(operators) == {f"{NAME}/{name}" for name in listed["operators"] + listed["panels"]}
    assert errors == []
