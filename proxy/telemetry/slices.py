"""Going through something long without keeping the pump from its turns."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from itertools import islice
from typing import TypeVar

import trio

T = TypeVar("T")

SLICE = 256
"""Items at a time: of streams, which cost up to 10 µs each to describe, some 2 ms between two turns."""


async def slices(items: Iterable[T]) -> AsyncGenerator[list[T], None]:
    """The items in lists of at most SLICE, with a checkpoint after each, so that other tasks run in between. The
    iterator must cope with what those change.
    """
    found = iter(items)
    while part := list(islice(found, SLICE)):
        yield part
        await trio.lowlevel.checkpoint()
