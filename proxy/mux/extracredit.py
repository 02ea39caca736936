"""More credit for the few streams that the usual credit slows down (sans-IO).

In one round trip (bytes to their reader, CREDIT back) a stream moves at most its credit. With two proxies at full speed
a round trip is a few hundred µs, most of it spent waiting for a processor, and 256 KiB do not bridge it: the sender
stops after every grant, and both hosts stop whenever another process takes a processor for a moment. More credit for
every stream would let a thousand stalled ones hold that much more memory. So the receiver *extends* the credit of a
stream that

* was granted PROVEN bytes, more than the buffers on the way hold when the reader has stopped;
* is faster than FAST. On a slower cable the usual credit is enough, and more of it would only queue in front of small
  messages;
* has a reader that takes all that comes.

This is decided again for each grant, which is due when the extra credit is used up.
"""

from __future__ import annotations

from proxy.mux.stream import Stream

FACTOR = 4
"""Credit of a stream with extra credit, in multiples of the usual credit."""
LARGEST = 1024 * 1024
"""Bytes of credit, extra included, beyond which FACTOR does not go."""
MOST_STREAMS = 4
"""Streams of a session that may have extra credit at a time. This bounds the memory; if more are fast, each has only a
part of the cable anyway."""
PROVEN = 1024 * 1024
"""Bytes granted so far; all but what is left of the credit have been received."""
FAST = 200e6
"""Bytes a second: more than a cable of 1 Gbit/s carries. The next faster ones carry LARGEST in 1 to 3 ms."""


class ExtraCredit:
    """Decides for each grant how much credit a stream is to have.

    Args:
        credit: bytes that every stream has, the usual credit.

    Attributes:
        most: how many streams may have extra credit at a time.
        larger: bytes of credit that these have in all.
        extended: the streams that have it.
    """

    def __init__(self, credit: int) -> None:
        self.most = MOST_STREAMS
        self.larger = max(credit, min(FACTOR * credit, LARGEST))
        self._credit = credit
        self.extended: set[Stream] = set()

    def credit(self, stream: Stream, buffered: int, now: float) -> int:
        """Bytes of credit that the stream is to have from now on, including the `buffered` bytes that its reader has
        not taken. Call it once for each grant, at `now` seconds of any clock.
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

    def end(self, stream: Stream) -> None:
        """The stream has ended: another one may have its extra credit."""
        self.extended.discard(stream)
