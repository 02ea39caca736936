"""What streams have done so far, by service, peer and direction: plain numbers on objects that whoever makes streams
keeps at hand, so that a stream costs a few additions when it begins and ends, and a message none.

How many of them there may be, and for how long, says `seriesbudget`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator
from time import monotonic

from control.base.exposition import OTHER
from control.base.histogram import Histogram
from proxy.errors import CloseReason
from proxy.pump.seriesbudget import Named, SeriesBudget, everybody
from proxy.pump.splice import Splice
from proxy.pump.stalls import Stalls
from proxy.pump.streamtiming import StreamTiming
from proxy.pump.tally import Countdown, Opened, StreamTally, Tally

__all__ = [
    "SECONDS",
    "CalledCount",
    "DeliveredCount",
    "StreamCount",
    "StreamCounts",
    "StreamKey",
    "StreamSampler",
    "Tallies",
]

SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
"""Bounds of all histograms of streams: from a message over a link to the longest open_timeout that makes sense."""
SAMPLES = 1000
"""Streams a second that histograms record, by default; of more, one in n, which stands for n."""
CALLED_SERIES, DELIVERED_SERIES, STREAM_SERIES = 1 + 3 * (len(SECONDS) + 3), 1 + len(SECONDS) + 3, 10
"""How many each has; a stream's depend on its close reasons, which are few."""


class Tallies(dict[str, Tally]):
    """By service; made on first use."""

    def __missing__(self, service: str) -> Tally:
        self[service] = found = Tally()
        return found

    def keep(self, services: Container[str]) -> None:
        """Forget those of all others that are at 0. Who holds one of them is made anew after this."""
        for service in [service for service, found in self.items() if not found.count and service not in services]:
            del self[service]


class StreamCount(StreamTally):
    """Of the streams of one service, with one peer, in one direction.

    Attributes:
        credit, link, reader: seconds that streams were held back (`Stalls`).
        retries: by close reason, calls that this peer did not take and that went on to another one.
    """

    __slots__ = ("credit", "link", "reader", "retries")

    def __init__(self) -> None:
        super().__init__()
        self.retries: dict[CloseReason, int] = {}
        self.credit = self.link = self.reader = 0.0

    def end_splice(self, splice: Splice, reason: CloseReason) -> None:
        """A stream within this host has ended."""
        self.ended[reason] += 1
        self.look_splice(splice)

    def look_splice(self, splice: Splice) -> None:
        """As `look`."""
        caller, service = splice.caller, splice.service
        self.sent += caller.received - caller.counted
        self.received += service.received - service.counted
        caller.counted, service.counted = caller.received, service.received
        for end in splice.ends:
            if end.stalls is not None:
                self.stalled(end.stalls)

    def stalled(self, stalls: Stalls) -> None:
        """Count how long a stream was held back (`StreamTally`)."""
        credit, link, reader = stalls.take(monotonic())
        self.credit += credit
        self.link += link
        self.reader += reader

    def retried(self, reason: CloseReason) -> None:
        """A call goes on to another host."""
        self.retries[reason] = self.retries.get(reason, 0) + 1


class CalledCount(Opened):
    """Of the calls that this host's callers make to one service.

    Attributes:
        wait: seconds from accept until a link carries the call; open: from OPEN to OPENED; first_byte: from accept to
            the first byte of the answer.
    """

    __slots__ = ("first_byte", "open", "wait")

    def __init__(self) -> None:
        super().__init__()
        self.wait, self.open, self.first_byte = Histogram(SECONDS), Histogram(SECONDS), Histogram(SECONDS)

    def timing(self, weight: int, since: float) -> StreamTiming:
        """What times a call that was accepted at `since`, seconds (monotonic), and stands for `weight`."""
        return StreamTiming(weight, since, self.open, self.first_byte)


class DeliveredCount(Opened):
    """Of the streams that peers open to one service of this host.

    Attributes:
        connect: seconds until the service has taken the connection.
    """

    __slots__ = ("connect",)

    def __init__(self) -> None:
        super().__init__()
        self.connect = Histogram(SECONDS)


class StreamSampler(Countdown):
    """Picks the streams that histograms record: where `left` is 0, call `picked`.

    Args:
        share: of all streams; None: as many as SAMPLES a second allow.
    """

    __slots__ = ("_begun", "_every", "_fixed", "_picked")

    def __init__(self, share: float | None = None) -> None:
        self._fixed = share is not None
        self._every = 1 if share is None else max(1, round(1 / share))
        super().__init__(self._every)
        self._begun, self._picked = 0.0, 0

    def picked(self, now: float) -> int:
        """How many streams this one stands for."""
        weight = self._every
        if not self._fixed:
            self._adapt(now)
        self.left = self._every
        return weight

    def _adapt(self, now: float) -> None:
        self._picked += 1
        passed = now - self._begun
        if passed >= 1:
            rate = self._picked * self._every / passed
            self._every = max(1, -(-int(rate) // SAMPLES))
            self._begun, self._picked = now, 0
        elif self._picked >= SAMPLES:  # a crowd, all of a sudden: the rest of this second is for one in twice as many
            self._every *= 2
            self._picked = SAMPLES // 2


StreamKey = tuple[str, str, str]
"""Service, peer (empty where there is none), direction."""


class StreamCounts:
    """All of them.

    Args:
        budget: what all together may have; sample: as in `StreamSampler`; clock: seconds (monotonic).

    Attributes:
        called, delivered, streams: those there are, by service, and by service, peer and direction.
        calls, deliveries: pick the streams whose times are recorded.
    """

    def __init__(
        self,
        budget: SeriesBudget | None = None,
        sample: float | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        budget = budget or SeriesBudget()
        self.called = Named(budget, CalledCount, CALLED_SERIES, _other, clock)
        self.delivered = Named(budget, DeliveredCount, DELIVERED_SERIES, _other, clock)
        self._streams = Named(budget, StreamCount, STREAM_SERIES, _other_stream, clock)
        self.calls, self.deliveries = StreamSampler(sample), StreamSampler(sample)

    @property
    def streams(self) -> dict[StreamKey, StreamCount]:
        """By service, peer and direction."""
        return self._streams.all

    def stream(self, service: str, peer: str, direction: str) -> StreamCount:
        """Made on first use. `peer` is empty where there is none."""
        return self._streams((service, peer, direction))

    def label(self, service: str, peer: str, direction: str) -> StreamKey:
        """As what such streams are counted."""
        return self._streams.label((service, peer, direction))

    def forget(self, services: Collection[str], peers: Collection[str]) -> Iterator[None]:
        """These are in the map now: drop the counts of others, in time (`Named.forget`)."""
        known, met = everybody(services, OTHER), everybody(peers, OTHER)
        yield from self.called.forget(known)
        yield from self.delivered.forget(known)
        yield from self._streams.forget(lambda key: known(key[0]) and met(key[1]))


def _other(name: str) -> str:
    return OTHER


def _other_stream(key: StreamKey) -> StreamKey:
    return OTHER, OTHER if key[1] else "", key[2]
