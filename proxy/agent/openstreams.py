"""The streams that are open while the proxy ends: how each is ended, and which are quiet."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import NamedTuple

from proxy.errors import CloseReason
from proxy.mux.stream import StreamState
from proxy.outbound.call import Call
from proxy.outbound.upstreams import Outbound
from proxy.pool.pools import Pools
from proxy.pool.staggeredclose import Cut
from proxy.pump.lane import Lane
from proxy.pump.splice import Splice


class OpenStream(NamedTuple):
    """A stream at one moment.

    Attributes:
        key: the same at each look.
        moved: bytes that it has moved so far. None: something is under way, as far as the proxy can see: it is not
            delivered yet, one side has ended and waits for the other's last bytes, or bytes wait for a reader or link.
        cut: ends it as STOPPED, and does nothing if it has ended by then.
    """

    key: Hashable
    moved: int | None
    cut: Cut


def open_streams(outbound: Outbound, pools: Pools) -> list[OpenStream]:
    """All that are open now: those that links carry, those within this host, calls that wait, and callers that have not
    said yet what they call.
    """
    context, connect = outbound.context, outbound.connect
    lanes = [lane for pool in pools.everywhere for each in pool.sessions for lane in each.streams.values()]
    asking = [
        OpenStream(each, None if each.received else 0, partial(connect.give_up, each)) for each in connect.callers
    ]
    return [*map(_carried, lanes), *map(_spliced, context.splices), *map(_waiting, context.calls), *asking]


def _carried(lane: Lane) -> OpenStream:
    plain = lane.sock is not None and lane.early is None and lane.state == StreamState.OPEN
    waits = lane.buffered or lane.session.suspended
    cut = partial(lane.guard, lane.abort, CloseReason.STOPPED)
    return OpenStream(lane, lane.bytes_moved if plain and not waits else None, cut)


def _spliced(splice: Splice) -> OpenStream:
    ends = (splice.caller, splice.service)
    waits = any(end.pending or end.ended for end in ends)
    moved = None if waits else sum(end.received for end in ends)
    return OpenStream(splice, moved, partial(splice.end, CloseReason.STOPPED))


def _waiting(call: Call) -> OpenStream:
    return OpenStream(call, None, partial(call.give_up, CloseReason.STOPPED))


class QuietStreams:
    """Finds out, look by look, which streams are quiet: nothing has moved in them for `patience` seconds, counted from
    the first look at the earliest, as nothing is noted before the proxy ends. Such a stream is most likely a pooled
    connection between two uses.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seen: dict[Hashable, tuple[int | None, float]] = {}
        self._old: frozenset[Hashable] | None = None

    def look(self, streams: Sequence[OpenStream], now: float) -> list[OpenStream]:
        """Those that are quiet at `now`, seconds of any clock; to be called several times within `patience`."""
        seen = {each.key: self._since(each, now) for each in streams}
        self._seen = seen
        if self._old is None:
            self._old = frozenset(seen)
        return [each for each in streams if each.moved is not None and now - seen[each.key][1] >= self._patience]

    def _since(self, stream: OpenStream, now: float) -> tuple[int | None, float]:
        moved, since = self._seen.get(stream.key, (None, now))
        return stream.moved, since if moved is not None and moved == stream.moved else now

    def old(self, stream: OpenStream) -> bool:
        """Whether it was there at the first look."""
        return self._old is not None and stream.key in self._old
