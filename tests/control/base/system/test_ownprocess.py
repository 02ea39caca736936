"""Numbers of this very process."""

from __future__ import annotations

import os

from control.base.system.ownprocess import open_descriptors, resident_memory


def test_descriptors_are_counted_where_the_kernel_does() -> None:
    found, there = open_descriptors(), len(os.listdir("/proc/self/fd"))
    assert found is None or abs(found - there) <= 1


def test_memory() -> None:
    found = resident_memory()
    assert found is not None
    assert 1 << 20 < found < 1 << 36
