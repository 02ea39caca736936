"""Ending streams bit by bit instead of all at once.

A caller whose stream is ended connects again, and all callers at once would overload the hosts that stay. So streams
that are left when the last part of the time begins (`SPREAD`, at most `LONGEST_SPREAD`) are ended one by one, in random
order, evenly over that part. Until then none is ended; nor are all of a few at its very beginning, so that those among
them which have just begun, and are short, end by themselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import floor

import trio

SPREAD = 0.25
"""Part of the time in which streams may finish, over which the ends of those that have not are spread."""
LONGEST_SPREAD = 30.0
"""Seconds, at most: 10,000 streams are then 333 a second, which is little for hosts that take ten times as many."""
TICK = 0.02
"""Seconds between two steps, each of which ends the streams that are due."""

Cut = Callable[[], None]


async def staggered_close(deadline: float, streams: Callable[[], Sequence[Cut]], settle: Callable[[], None]) -> None:
    """End the streams that do not finish by themselves. Returns when the last is ended, at most two `TICK`s after
    `deadline` (by trio's clock). Cancelled, it leaves the others open.

    Args:
        streams: called once, when the last part begins: for each stream that is open then a function that ends it, and
            does nothing if it has ended since.
        settle: called after each step (`Pump.settle`).
    """
    length = min(SPREAD * (deadline - trio.current_time()), LONGEST_SPREAD)
    await trio.sleep_until(deadline - length)
    left = list(streams())
    random.shuffle(left)
    total = len(left)
    while left:
        passed = 1 - (deadline - trio.current_time()) / length if length > 0 else 1.0
        due = min(total, floor(total * passed))
        while len(left) > total - due:
            left.pop()()
        settle()
        await trio.sleep(TICK)
