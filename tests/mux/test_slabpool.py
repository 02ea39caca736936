from __future__ import annotations

import pytest

from proxy.mux.sizes import SLAB_SIZE
from proxy.mux.slabpool import SlabPool


@pytest.mark.failure(19)
def test_only_so_many_free_slabs_are_kept() -> None:
    pool = SlabPool(keep=2)
    slabs = [pool.take() for _ in range(5)]
    for slab in slabs:
        pool.give(slab)
    assert (pool.in_use, pool.bytes_held) == (0, 2 * SLAB_SIZE)
    assert pool.take() is slabs[1]


def test_who_wants_to_know_hears_once_that_a_slab_is_left_to_the_allocator() -> None:
    pool, left = SlabPool(keep=0), list[str]()
    slabs = [pool.take() for _ in range(3)]
    pool.give(slabs.pop())
    pool.left = lambda: left.append("left")
    while slabs:
        pool.give(slabs.pop())
    assert left == ["left"]
