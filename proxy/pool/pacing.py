"""Opening no faster than the peer takes streams (sans-IO).

A peer may tell in HELLO how many streams a second it takes, over all links. It refuses what comes faster, so this side
paces itself: a call beyond the rate waits in the pool's waiting list.

The peer counts when OPENs *arrive*. What is opened while a link stalls arrives all at once, so no more than a burst is
opened of which nothing shows that it has arrived, and a burst is a quarter of what the peer takes at once. What shows
it is an ACK or a PONG, for which the pool then asks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sized

from control.base.tokenbucket import TokenBucket

BURST_SHARE = 4
LOOK_AGAIN = 0.01
"""Seconds after which to look again whether a burst has arrived."""


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
        self._under_way: dict[Hashable, tuple[object, int]] = {}

    def tell(self, rate: int | None) -> None:
        """Keep to another rate from now on."""
        if rate != self.rate:
            self.rate = rate
            if rate is not None:
                self._burst = max(1, rate // BURST_SHARE)
                self._bucket = TokenBucket(rate, self._burst)

    def take(self, link: Hashable, answered: object, now: float) -> bool:
        """Whether a stream may be opened now, which then counts.

        Args:
            link: what it would be opened on; answered: changes when what was sent there before has arrived.
            now: seconds by any clock that does not go backwards.
        """
        if self.rate is None:
            return True
        if self._waiting and not self.serving:
            return False
        self.heard(link, answered)
        if self._full or not self._bucket.take(now):
            return False
        opened = self._under_way.get(link, (answered, 0))[1]
        self._under_way[link] = answered, opened + 1
        return True

    def heard(self, link: Hashable, answered: object) -> None:
        """Look whether what was opened on a link has arrived; as `take` does for its own."""
        if link in self._under_way and self._under_way[link][0] != answered:
            self._under_way[link] = answered, 0

    @property
    def _full(self) -> bool:
        return sum(count for _, count in self._under_way.values()) >= self._burst

    @property
    def doubtful(self) -> Hashable | None:
        """A link of which an answer is needed before more is opened; None: of none."""
        return max(self._under_way, key=lambda each: self._under_way[each][1]) if self._full else None

    def due(self, now: float) -> bool:
        """Whether one more may be opened, by what has been `heard`."""
        return not self._full and not self._bucket.wait(now)

    def wait(self, now: float) -> float:
        """Seconds after which to look again when `take` has said no."""
        return self._bucket.wait(now) or LOOK_AGAIN

    def forget(self, link: Hashable) -> None:
        """The link has ended."""
        self._under_way.pop(link, None)
