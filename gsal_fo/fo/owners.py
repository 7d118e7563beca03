"""Who holds a lock: written into the database with it, so that anybody can tell an owner at work from one that is gone.

On the owner's machine its process is asked for. Another machine cannot ask, so an owner also signs with a beat, by the
database's clock, and counts as gone `LEASE` seconds after the last one.
"""

import getpass
import os
import socket
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

LEASE = 90.0  # seconds without a beat after which another machine takes an owner for gone
BEAT = 15.0  # seconds between beats
SAME_START = 2.0  # seconds: a process's start moves a little with the machine's clock; no pid comes back that soon


def me(command: str) -> dict[str, Any]:
    """This process and thread, at work on ``command``, with a token of its own."""
    process = psutil.Process()
    return {
        "token": uuid.uuid4().hex,
        "command": command,
        "user": user(),
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": process.pid,
        "started": process.create_time(),
        "thread": threading.get_ident(),
    }


def user() -> str:
    """The user's name, as far as the system knows one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def machine() -> str:
    """Names the set of processes that this one can see: host, its start, and on Linux the namespace of process ids."""
    try:
        space: object = Path("/proc/self/ns/pid").stat().st_ino
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        space, boot = "", str(round(psutil.boot_time() / 60))  # to the minute: it is computed from two clocks
    return f"{socket.gethostname()}/{boot}/{space}"


def is_local(owner: Mapping[str, Any]) -> bool:
    """Whether the owner's process would be seen from here."""
    return bool(owner.get("machine") == machine())


def is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether a local owner's process has ended; for one of another machine only its beat can tell, so never here."""
    if not is_local(owner):
        return False
    try:
        process = psutil.Process(owner["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:  # ended, and its parent has not asked yet
            return True
        return bool(abs(process.create_time() - owner["started"]) > SAME_START)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:  # it is there, and another user's
        return False


def is_mine(owner: Mapping[str, Any]) -> bool:
    """Whether the owner is this very thread, which would wait for itself."""
    return is_local(owner) and owner["pid"] == os.getpid() and owner.get("thread") == threading.get_ident()


def describe(owner: Mapping[str, Any]) -> str:
    """An owner in the words of a message."""
    return f"{owner['command']} of {owner['user']} (process {owner['pid']} on {owner['host']})"
