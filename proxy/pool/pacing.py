"""Opening no faster than the peer takes streams (sans-IO).

A peer may tell in HELLO how many streams a second it takes, over all links. It refuses what comes faster, so this side
paces itself: a call beyond the rate waits in the pool's waiting list.

The peer counts when OPENs *arrive*. What is opened while a link stalls arrives all at once, so no more than a burst is
opened on a link from which nothing is heard, and a burst is a quarter of what the peer takes at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sized

from control.base.tokenbucket import TokenBucket

BURST_SHARE = 4
LOOK_AGAIN = 0.01
"""Seconds after which a link is looked at again from which nothing was heard for a burst."""


class Pacer:
    """Keeps to the rate of one peer.

    Args:
        waiting: the streams that wait for their turn, before which no other one is opened.

    Attributes:
        rate: streams a second, as the peer told last; None: it does not count them.
        serving: whether what would be opened is one of those that waited.
    """

    def __init__(self, waiting: Sized) -> None:
        self.rate: int | None = None
        self.serving = False
        self._waiting = waiting
        self._bucket = TokenBucket(1, 1)
        self._burst = 1
        self._unheard: dict[Hashable, tuple[int, int]] = {}

    def tell(self, rate: int | None) -> None:
        """Keep to another rate from now on."""
        if rate != self.rate:
            self.rate = rate
            if rate is not None:
                self._burst = max(1, rate // BURST_SHARE)
                self._bucket = TokenBucket(rate, self._burst)

    def take(self, link: Hashable, heard: int, now: float) -> bool:
        """Whether a stream may be opened now, which then counts.

        Args:
            link: what it would be opened on; heard: how often something has arrived there.
            now: seconds by any clock that does not go backwards.
        """
        if self.rate is None:
            return True
        if self._waiting and not self.serving:
            return False
        before, opened = self._unheard.get(link, (heard, 0))
        if before != heard:
            opened = 0
        if opened >= self._burst or not self._bucket.take(now):
            return False
        self._unheard[link] = heard, opened + 1
        return True

    def due(self, now: float) -> bool:
        """Whether the rate allows one more."""
        return not self._bucket.wait(now)

    def wait(self, now: float) -> float:
        """Seconds after which to look again when `take` has said no."""
        return self._bucket.wait(now) or LOOK_AGAIN

    def forget(self, link: Hashable) -> None:
        """The link has ended."""
        self._unheard.pop(link, None)
