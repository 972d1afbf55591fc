"""The peak of this process's memory since a moment of one's choice, where the system keeps one (Linux)."""

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def start() -> float | None:
    """Give back what earlier work left on the heap and let the peak begin anew; megabytes in use now."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # else the next peak would be that of the largest run so far
    try:
        _RESET.write_text("5")
    except OSError:
        return None
    return _megabytes("VmRSS")


def peak() -> float | None:
    """Megabytes at the highest moment since `start`."""
    return _megabytes("VmHWM")


def _megabytes(name: str) -> float | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), None)
