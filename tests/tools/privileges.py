"""File modes count for root too, for as long as a test wants: a test of "permission denied" that skips as root would
never run in CI.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3 (capget(2)): two words of 32 bits for each of three sets."""
_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""

_LIBC = ctypes.CDLL(None, use_errno=True)


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
