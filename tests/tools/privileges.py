"""File modes count for root too, for as long as a test wants: a test of "permission denied" that skips as root would
never run in CI. And programs that run as nobody.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
"""Stands before a command that shall run as nobody."""

_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3 (capget(2)): two words of 32 bits for each of three sets."""
_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""

_LIBC = ctypes.CDLL(None, use_errno=True)


@functools.cache
def nobody_is_shut_out() -> str | None:
    """Why hostlane cannot run as nobody here; None: it can."""
    argv = [*AS_NOBODY, sys.executable, "-P", "-c", "import control.cli.main, proxy"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        return f"{error.filename}: not installed"
    if done.returncode:
        return f"nobody may not read this checkout, or not its Python: {done.stderr.strip().splitlines()[-1]}"
    return None


@contextmanager
def modes_count() -> Iterator[None]:
    """This thread reads, writes and connects only where a file's mode lets its owner. Other users it always binds."""
    sets = _call("capget", (ctypes.c_uint32 * 6)())
    lowered = (ctypes.c_uint32 * 6)(*sets)
    lowered[0] &= ~_OVERRIDES
    _call("capset", lowered)
    try:
        yield
    finally:
        _call("capset", sets)


def _call(name: str, sets: ctypes.Array[ctypes.c_uint32]) -> ctypes.Array[ctypes.c_uint32]:
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    if getattr(_LIBC, name)(header, sets):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return sets
