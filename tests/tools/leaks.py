"""What a process holds, counted so that one reference too many for each stream shows, also one that C code forgot."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from proxy.errors import CloseReason
from proxy.mux.frames import FrameKind
from proxy.mux.stream import StreamEvent, StreamState

SHARED: tuple[object, ...] = (
    None, True, False, 0, 1, b"", "", (), *FrameKind, *StreamState, *StreamEvent, *CloseReason,
)  # fmt: skip
"""What is not freed when a reference to it is forgotten: only its count grows."""


class _MallInfo(ctypes.Structure):
    """mallinfo2(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


class Held(NamedTuple):
    """At one moment."""

    objects: int
    """That the collector knows."""
    blocks: int
    """Of Python's own allocator."""
    bytes: int
    """From the C library's."""
    descriptors: int
    references: tuple[int, ...]
    """To each of what is shared."""


def held(shared: Sequence[object]) -> Held:
    """What this process holds now, cycles that nobody refers to left out."""
    for _ in range(3):
        gc.collect()
    objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
    return Held(
        objects, blocks, _malloced(), len(os.listdir("/proc/self/fd")), tuple(sys.getrefcount(each) for each in shared)
    )


def grown(before: Held, after: Held, shared: Iterable[object]) -> dict[str, int]:
    """By how much, in whatever grew."""
    found = {name: getattr(after, name) - getattr(before, name) for name in Held._fields[:4]}
    for each, then, now in zip(shared, before.references, after.references, strict=True):
        found[f"references to {each!r}" if not isinstance(each, Enum) else f"references to {each}"] = now - then
    return {what: count for what, count in found.items() if count > 0}


def _malloced() -> int:
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # glibc before 2.33, or another C library
        return 0
    mallinfo2.restype = _MallInfo
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)
