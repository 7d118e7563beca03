"""Isolation for every test: own FiftyOne database, plugin folder and GSAL_HOME.

FiftyOne reads these variables when it is imported, so they are set here, before any test module is. (SHELL: this file is
yours from here on; FIFTY made it first because tests/fo, tests/plugin and tests/e2e need it.)
"""

import atexit
import os
import shutil
import tempfile
import uuid
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests start workers: one thread each keeps them from fighting
ROOT = Path(tempfile.mkdtemp(prefix="gsal-tests-"))
ISOLATED = {
    "FIFTYONE_DATABASE_DIR": ROOT / "db",
    "FIFTYONE_DATABASE_NAME": f"gsal_{uuid.uuid4().hex[:12]}",
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
# mongod is stopped by FiftyOne's own exit handler, which was registered later and so runs before this one.
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)
