"""More credit for the few streams that are fast enough to wait for it (sans-IO).

A stream moves no more than its credit in the time that bytes take to their reader and a CREDIT back. With two proxies
at full speed that is a few hundred µs, most of it spent waiting for a processor, and 256 KiB do not bridge it: the
sender stops after every grant, and whenever a neighbour takes a processor for a moment, both hosts do. More for every
stream would let a thousand stalled ones hold as much more. So the receiver *extends* it to a stream that

* has moved PROVEN bytes, which no buffer on the way to a reader that stopped takes;
* is faster than FAST. On a slower cable the usual credit is enough, and more of it would only stand in a queue in
  front of small messages;
* has a reader that takes all that comes.

Whether it still is like that is asked each time that new credit is due, when the extra is used up.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from proxy.mux.stream import Stream

FACTOR = 4
"""Times the usual credit that a stream with extra credit has."""
LARGEST = 1024 * 1024
"""... but with this many bytes it is enough."""
MOST_STREAMS = 4
"""Streams of a session that have one at a time: bounds the memory, and more of them share the cable anyway."""
PROVEN = 1024 * 1024
"""Bytes received."""
FAST = 200e6
"""Bytes a second: more than a cable of 1 Gbit/s carries; on the next faster ones LARGEST is 1 to 3 ms."""

S = TypeVar("S", bound=Stream)


class ExtraCredit(Generic[S]):
    """Decides how much credit a stream is to have.

    Args:
        credit: bytes that every stream has.

    Attributes:
        most: how many streams may have more at a time.
        larger: bytes that they then have.
        extended: the streams that do.
    """

    def __init__(self, credit: int) -> None:
        self.most = MOST_STREAMS
        self.larger = max(credit, min(FACTOR * credit, LARGEST))
        self._credit = credit
        self.extended: set[S] = set()

    def credit(self, stream: S, buffered: int, now: float) -> int:
        """Bytes that the stream shall have in all, those `buffered` for its reader included. To be asked when a grant
        is due, at `now` seconds of any clock.
        """
        extended, had = self.extended, self.larger if stream in self.extended else self._credit
        used, elapsed = had - stream.allow, now - stream.granted_at
        stream.granted_at = now
        fast = stream.granted >= PROVEN and 0 < FAST * elapsed <= used
        if fast and not buffered and (stream in extended or len(extended) < self.most):
            extended.add(stream)
            return self.larger
        extended.discard(stream)
        return self._credit

    def end(self, stream: S) -> None:
        """The stream holds no bytes any more and will get none."""
        self.extended.discard(stream)
