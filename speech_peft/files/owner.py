"""Whose a file on the disk is: the process that left it, and whether that process is certainly gone.

Files that several processes and several machines see (temporaries, claims) are told apart by a mark,
HOST-PID-START. Only a process of this very host can be known to be gone: its number is free, or was given to
another process since, which START tells. Of other hosts nothing is known, so what is theirs stays.
"""

import hashlib
import os
import platform
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

PATTERN = r"[0-9a-f]{8}-[0-9]{1,10}-[0-9a-f]{1,16}"
"""Of a mark, for names that contain one."""
_UNKNOWN = "0"


def mark() -> str:
    """This process's: HOST-PID-START."""
    return _mark(os.getpid())  # by the number, as a forked child is another process


@lru_cache(maxsize=4)
def _mark(process: int) -> str:
    return f"{host()}-{process}-{_start(process) or _UNKNOWN}"


def gone(mark: str) -> bool:
    """Whether the process behind a mark has certainly ended; not known of other hosts, so False."""
    if not re.fullmatch(PATTERN, mark):
        return False
    where, process, start = mark.split("-")
    if where != host():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # it is there and belongs to someone else
    now = _start(int(process))
    return now is not None and start not in (now, _UNKNOWN)


def here(mark: str) -> bool:
    """Whether a mark is of this host, so that `gone` can know."""
    return mark.startswith(f"{host()}-")


@lru_cache(maxsize=1)
def host() -> str:
    """Eight digits for this machine, and for what of it this process sees: containers number their own."""
    known = [platform.node(), _text("/etc/machine-id")]
    with suppress(OSError):  # not on Linux: a machine is a machine
        known.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256("\0".join(known).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _start(process: int) -> str | None:
    """When a process began, as digits that are its own even after a restart of the machine; None: unknown."""
    stat = _text(f"/proc/{process}/stat")
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    if len(fields) < 20:
        return None
    began = f"{fields[19]}:{_text('/proc/sys/kernel/random/boot_id')}"
    return hashlib.sha256(began.encode()).hexdigest()[:12]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
