"""What a proxy takes of the memory that its cgroup may take, unless the configuration says otherwise (sans-IO).

::

    limits.memory = (limit - base - kernel) / 2        # two processes: a takeover is in one cgroup

The formula and its measurements are in docs/memory.md.
"""

from __future__ import annotations

KIB, MIB = 1024, 1024 * 1024
BASE = 40 * MIB
"""The interpreter, the libraries, our code, and the kernel's part of a process: 39.6 MiB with a control plane, 34.3
without, were measured."""
STALLED = 1024
"""Streams whose readers have stopped that the kernel shall have room for."""
STREAM = 10 * KIB
"""What a stream takes beside bytes: our objects, 4 KiB, and the kernel's for two ends of a connection and an epoll."""
LEAST, MOST = 4 * MIB, 512 * MIB
"""Bounds of the default: sixteen streams of the default credit; and what suits a machine without a limit."""
SHARE = 8
"""The part of the limit that the kernel may hold for stalled streams: an eighth."""
LEAST_BUFFER = 8 * KIB
"""Bytes. The kernel itself allows no less than 4.5 KiB for a socket, with the headers of what is in it."""
SMALL = 256 * MIB
"""Below this limit the kernel's buffers of links are bounded too, which costs throughput over long ways."""
LINK_SHARE = 256
"""The part of the limit that the kernel may hold for a link in each direction."""
KERNEL_DEFAULT = 208 * KIB
"""What the kernel holds for a Unix socket if nobody says otherwise (net.core.wmem_default)."""


def send_buffer(limit: int | None) -> int:
    """Bytes that the kernel shall hold at most of what is sent to a local socket; 0: as much as it likes, as without a
    limit. They are charged to who sends, which is the proxy, until they are read.
    """
    if limit is None or limit // SHARE // STALLED >= KERNEL_DEFAULT:
        return 0
    return max(LEAST_BUFFER, limit // SHARE // STALLED)


def link_buffer(limit: int | None) -> int:
    """Bytes that the kernel shall hold at most for a link, in each direction; 0: as much as it likes."""
    return 0 if limit is None or limit >= SMALL else max(KERNEL_DEFAULT, limit // LINK_SHARE)


def room(limit: int) -> int:
    """Bytes that are left of a limit for ``limits.memory``, of all processes together; negative if even the rest does
    not fit.
    """
    return limit - BASE - STALLED * (STREAM + (send_buffer(limit) or KERNEL_DEFAULT))


def default_memory(limit: int | None) -> int:
    """Bytes that are the default of ``limits.memory`` in a cgroup with this limit; None: it has none."""
    if limit is None:
        return MOST
    return min(MOST, max(LEAST, room(limit) // 2))
