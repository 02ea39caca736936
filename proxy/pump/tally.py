"""What streams add to when they begin and when they have ended: numbers, and no more than every stream may pay for.

Who keeps and reads them: `proxy.pump.streamstats` and `proxy.pump.streamcounts`, in classes derived from these. (What
is counted of an edge: `proxy.pump.edgetally`.)
"""

from __future__ import annotations

from proxy.errors import CloseReason
from proxy.pump.lane import Lane
from proxy.pump.stalls import Stalls
from proxy.pump.streamlog import StreamLog

_REASONS = max(CloseReason) + 1
_FINISHED, _ABORTED = CloseReason.FINISHED, CloseReason.ABORTED


class Totals:
    """Counts streams. Whoever makes a stream adds 1 to `opened`, and at its end calls `end` exactly once.

    Args:
        trace: whether streams that ended cleanly are logged too, at debug level. Checked here and not by the logger,
            because a line costs as much as a message.

    Attributes:
        opened: streams since the start; ended: those of them that have ended.
        access: hears of each stream by itself (`pump.streamlog`); None: nobody does. It stays what it is when streams
            have begun.
        taps: by service, who hears of its streams instead.
        trace: as above; may be set at any time.
        aborted: those that an application aborted: it reset its connection, or closed it while the other one wrote.
        failures: by close reason, streams that were not delivered or that a proxy ended.
        awaited: how many wait for `none_open` to be called.
    """

    def __init__(self, trace: bool = False) -> None:
        self.trace = trace
        self.opened = self.ended = self.aborted = self.awaited = 0
        self.failures: dict[CloseReason, int] = {}
        self.access: StreamLog | None = None
        self.taps: dict[str, StreamLog] = {}

    def log_of(self, service: str) -> StreamLog | None:
        """Who hears of the streams of a service by themselves; None: nobody does."""
        return self.taps.get(service, self.access) if self.taps else self.access

    def end(self, reason: CloseReason) -> bool:
        """Count the end of one stream. Returns whether it gets a line in the log (`streamlog.report`)."""
        self.ended += 1
        if self.awaited and self.ended == self.opened:
            self.none_open()
        if reason is _FINISHED:
            return self.trace
        if reason is _ABORTED:
            self.aborted += 1
        else:
            self.failures[reason] = self.failures.get(reason, 0) + 1
        return True

    def none_open(self) -> None:
        """The last stream that was open has ended."""
        raise NotImplementedError


class Tally:
    """How many there are now of something: whoever adds one takes it off again."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Opened:
    """Attributes:
    opened: how many streams, or calls.
    """

    __slots__ = ("opened",)

    def __init__(self) -> None:
        self.opened = 0


class Countdown:
    """Attributes:
    left: take 1 off for each stream; at 0 it is one of those that are recorded.
    """

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class StreamTally:
    """Of some streams.

    Attributes:
        ended: by close reason, how many have ended; sent, received: payload bytes.
    """

    __slots__ = ("ended", "received", "sent")

    def __init__(self) -> None:
        self.ended = [0] * _REASONS
        self.sent = self.received = 0

    def end(self, lane: Lane, reason: CloseReason) -> None:
        """A stream has ended."""
        number: int = reason  # a plain one, where it has a type
        self.ended[number] += 1
        self.look(lane)

    def look(self, lane: Lane) -> None:
        """A stream is open: count what it has done since the last look."""
        sent, received = lane.received_grants - lane.credit, lane.granted - lane.allow
        self.sent += sent - lane.counted_sent
        self.received += received - lane.counted_received
        lane.counted_sent, lane.counted_received = sent, received
        if lane.stalls is not None:
            self.stalled(lane.stalls)

    def stalled(self, stalls: Stalls) -> None:
        """Count how long a stream was held back."""
        raise NotImplementedError
