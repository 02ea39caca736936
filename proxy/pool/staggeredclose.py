"""Ending streams bit by bit instead of all at once.

Whoever is cut connects again, and all at once they would fall upon the hosts that stay. So what has not finished by the
last part of the time (`SPREAD`, at most `LONGEST_SPREAD`) ends one by one, in no order, evenly over that part. Until
then nothing is cut.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import ceil

import trio

SPREAD = 0.25
"""Part of the time over which the ends are spread that nobody waited for."""
LONGEST_SPREAD = 30.0
"""Seconds, at most: 10,000 streams are then 333 a second, which is little for hosts that take ten times as many."""
TICK = 0.02
"""Seconds between two of these steps."""

Cut = Callable[[], None]


async def staggered_close(deadline: float, streams: Callable[[], Sequence[Cut]], settle: Callable[[], None]) -> None:
    """Return when all are cut, at `deadline` (by trio's clock) at the latest.

    Args:
        streams: asked once, when the last part begins: what ends each stream that is open then, and does nothing if it
            has ended since.
        settle: called after each step (`Pump.settle`).
    """
    length = min(SPREAD * (deadline - trio.current_time()), LONGEST_SPREAD)
    await trio.sleep_until(deadline - length)
    left = list(streams())
    random.shuffle(left)
    total = len(left)
    while left:
        passed = 1 - (deadline - trio.current_time()) / length if length > 0 else 1.0
        due = min(total, ceil(total * passed))
        while len(left) > total - due:
            left.pop()()
        settle()
        await trio.sleep(TICK)
