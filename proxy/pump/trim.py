"""Giving memory back to the system after a stall.

Bytes that were held for readers which have stopped lie scattered in the allocator's heap. When they are freed, the C
library keeps the pages for the next time: 75 to 211 MiB stayed with a proxy after a thousand streams had stalled once.
malloc_trim(3) gives back every page that is free, in the middle of the heap too.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

import trio

from proxy.mux.slabpool import SlabPool
from proxy.pump.budget import MemoryBudget

WORTH = 4 * 1024 * 1024
"""Bytes that must have been freed. It is what the allocator may keep for itself according to docs/memory.md."""
PAUSE = 5.0
"""Seconds to wait for more to be freed, since readers that go on seldom do so all at once. Whoever needs the heap waits
while it is looked through, some milliseconds for each 100 MiB: no more often than that."""


async def run(
    budget: MemoryBudget, slabs: SlabPool, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Give memory back whenever the bytes held have become fewer by WORTH, or a slab was freed, until cancelled."""
    task_status.started()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:  # it is the GNU C library's; others give back by themselves, or cannot
        shrunk = trio.Event()
        budget.watch(WORTH, shrunk.set)
        slabs.left = shrunk.set
        await shrunk.wait()
        await trio.sleep(PAUSE)
        # In a thread, without the interpreter's lock. The pump waits only if it needs the heap in that moment.
        with suppress(RuntimeError):  # no thread is left; the next time will do
            await trio.to_thread.run_sync(trim, 0)
