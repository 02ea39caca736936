"""How long a call took until its host answered, and until the service did. Only of streams that were picked for it."""

from __future__ import annotations

from control.base.histogram import Histogram


class StreamTiming:
    """What becomes of one stream; it stands for `weight` of them.

    Args:
        since: when the call was accepted, seconds (monotonic).
        open_seconds: gets the time from OPEN to OPENED; first_byte_seconds: that from accept to the first byte of the
            answer.
    """

    __slots__ = ("_first_byte", "_open", "_since", "_weight")

    def __init__(self, weight: int, since: float, open_seconds: Histogram, first_byte_seconds: Histogram) -> None:
        self._weight, self._since = weight, since
        self._open, self._first_byte = open_seconds, first_byte_seconds

    def opened(self, seconds: float) -> None:
        """The peer has delivered the stream, so long after OPEN."""
        self._open.observe(seconds, self._weight)

    def first_byte(self, now: float) -> None:
        """The first byte of the answer is there."""
        self._first_byte.observe(now - self._since, self._weight)


class FirstByteTiming(StreamTiming):
    """Remembers the first byte of the answer, of a stream that may be picked for histograms, too.

    Args:
        also: is told of everything as well.

    Attributes:
        at: when it came, seconds (monotonic); None: it has not.
    """

    __slots__ = ("_also", "at")

    def __init__(self, also: StreamTiming | None) -> None:
        self._also = also
        self.at: float | None = None

    def opened(self, seconds: float) -> None:
        """As `StreamTiming.opened`."""
        if self._also is not None:
            self._also.opened(seconds)

    def first_byte(self, now: float) -> None:
        """As `StreamTiming.first_byte`."""
        self.at = now
        if self._also is not None:
            self._also.first_byte(now)
