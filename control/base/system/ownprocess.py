"""What the kernel says of this process."""

from __future__ import annotations

import os

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_memory() -> int | None:
    """Bytes of memory that it has; None: not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return None


def open_descriptors() -> int | None:
    """How many are open; None: the kernel does not say so at a price that a loop can pay (before Linux 6.2)."""
    try:
        return os.stat("/proc/self/fd").st_size or None
    except OSError:
        return None
