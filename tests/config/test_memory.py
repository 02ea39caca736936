from __future__ import annotations

import pytest

from proxy.config.memory import (
    BASE,
    KERNEL_DEFAULT,
    KIB,
    LEAST,
    MIB,
    MOST,
    STALLED,
    default_memory,
    link_buffer,
    room,
    send_buffer,
)

pytestmark = pytest.mark.failure("33")
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("limit", "memory", "buffer"),
    [
        (None, 512 * MIB, 0), (1 * MIB, 4 * MIB, 8 * KIB), (32 * MIB, 4 * MIB, 8 * KIB), (64 * MIB, 4 * MIB, 8 * KIB),
        (128 * MIB, 31 * MIB, 16 * KIB), (256 * MIB, 87 * MIB, 32 * KIB), (512 * MIB, 199 * MIB, 64 * KIB),
        (1 * GIB, 423 * MIB, 128 * KIB), (2 * GIB, 512 * MIB, 0), (64 * GIB, 512 * MIB, 0),
    ],
)  # fmt: skip
def test_as_docs_have_it(limit: int | None, memory: int, buffer: int) -> None:
    assert (default_memory(limit), send_buffer(limit)) == (memory, buffer)


def test_two_processes_fit() -> None:
    for limit in range(68 * MIB, 4 * GIB, 7 * MIB):
        memory, kernel = default_memory(limit), STALLED * (send_buffer(limit) or KERNEL_DEFAULT)
        assert BASE + kernel + 2 * memory <= limit
        assert 2 * memory <= room(limit)


def test_more_is_never_less() -> None:
    sizes = [default_memory(limit) for limit in range(0, 4 * GIB, 5 * MIB)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (LEAST, MOST)


def test_small_cgroups_have_small_buffers() -> None:
    assert max(send_buffer(limit) for limit in range(0, 256 * MIB, MIB)) <= 32 * KIB


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        (None, 0), (1 * MIB, 208 * KIB), (32 * MIB, 208 * KIB), (64 * MIB, 256 * KIB), (128 * MIB, 512 * KIB),
        (255 * MIB, 255 * 4 * KIB), (256 * MIB, 0), (64 * GIB, 0),
    ],
)  # fmt: skip
def test_links_are_bounded_where_memory_is_scarce(limit: int | None, size: int) -> None:
    assert link_buffer(limit) == size
