"""A session of lanes: what the streams of one conversation share, whichever link carries it.

It is its own sink: what the peer says of a stream goes to the lane. When its link is lost it is *suspended*: lanes stay
open, bytes that have arrived still go to local sockets, and local sockets are read as far as the out-buffer has room.
`LaneSession.carry_on` puts it on the next link, once the two HELLOs have said what each side has received
(`mux.session.Session.resume`).
"""

from __future__ import annotations

from time import monotonic, monotonic_ns
from typing import Protocol

import structlog
import trio

from proxy.errors import CloseReason
from proxy.mux.frames import Open
from proxy.mux.replay import ReplayBuffer
from proxy.mux.session import SessionSettings
from proxy.pump.carrier import CarriedSession, Carrier, UsageObserver
from proxy.pump.lane import Lane
from proxy.pump.loop import Pump

log = structlog.get_logger()

EXTRA_CREDIT_SHARE = 16
"""Streams with extra credit may together hold no more than this part (one 16th) of what their peer may, so that they
are not what exceeds it.
"""


class CallHandler(Protocol):
    """Whoever delivers what the peer opens (inbound)."""

    def call(self, lane: Lane, call: Open) -> None:
        """Deliver the stream: later `Lane.attach` and `Lane.start_called`, or `Lane.abort`. Sets ``lane.observer``
        first.
        """


class LaneSession(CarriedSession[Lane]):
    """See the module's text. Its link or, while it is suspended, its pool ends it.

    Args:
        key: the session's id on the wire; instance: of the peer's process, as its HELLO said.
        dialled: whether this side dialled, and dials again.
        survives: whether it outlives its link; if not, its streams end with the link. The others are as in
            `CarriedSession`.

    Attributes:
        awake: set when it is not suspended any more: it has a link, or has ended.
        lost_at: when it lost its link last, and stalled_since: since when the peer has acknowledged nothing more,
            over however many links; seconds (monotonic), of a suspended session. fruitless: how many those were.
        resumed: how often it has gone on over another link.
        ended: set when it has; `reason` and `detail` then say why, `lost_streams` how many streams were open.
        opened_in: seconds from OPEN to OPENED of the stream that was delivered last; its sender did not wait.
        idle_since: when its last stream ended, or it came up, seconds (monotonic).
        bulk: whether its pool gives it bulk streams.
        retiring: whether it is leaving because nothing used it.
        known_at: token of the last ping that was answered.
    """

    def __init__(
        self,
        pump: Pump,
        *,
        key: str,
        name: str,
        peer: str,
        dialled: bool,
        local: SessionSettings,
        remote: SessionSettings,
        replay: int,
        calls: CallHandler,
        usage: UsageObserver[Lane],
        instance: str = "",
        survives: bool = False,
    ) -> None:
        out = ReplayBuffer(pump.slabs, pump.touched, pump.later, replay)
        super().__init__(
            pump,
            name=name,
            peer=peer,
            usage=usage,
            dialler=dialled,
            out=out,
            sink=self,
            stream_type=Lane,
            local=local,
            remote=remote,
        )
        self.key, self.dialled = key, dialled
        self.instance, self.survives = instance, survives
        self.extra_credit.most = min(
            self.extra_credit.most, pump.budget.per_peer // (EXTRA_CREDIT_SHARE * self.extra_credit.larger)
        )
        self.awake, self.ended = trio.Event(), trio.Event()
        self.since = self.idle_since = self.lost_at = self.stalled_since = monotonic()
        self.resumed = self.lost_streams = self.fruitless = 0
        self.reason, self.detail = CloseReason.FINISHED, ""
        self.opened_in: float | None = None
        self.bulk = self.retiring = False
        self._calls = calls
        self._acked_when_lost = -1
        self._retired_at = self.known_at = self._ended_below = 0

    @property
    def owes(self) -> bool:
        """Whether the peer does not have all that was said of streams, the last of which has ended here."""
        return not self.over and self.out.acked < self._ended_below

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.ended.is_set()

    @property
    def expendable(self) -> bool:
        """Whether nobody will miss it: it takes no more streams, or was dialled by a peer that has not said a word on
        it, and so may not even know that the dial has succeeded.
        """
        return self.going_away or not (self.dialled or self.received)

    # Links

    def carry_on(self, link: Carrier) -> None:
        """From now on `link` carries it: the first one, or the next one after `suspend`."""
        self.link, self.reading_stopped = link, False
        self.pump.on_touched(self.out, link)
        if self.suspended:
            self.suspended = False
            self.resumed += 1
            self.out.touch()
            self.awake.set()
            self._end_if_retired()

    def suspend(self) -> None:
        """Its link is lost; keep everything for the next one."""
        self.suspended, self.awake = True, trio.Event()
        self.lost_at = monotonic()
        acked = self.out.acked
        if acked > self._acked_when_lost or not self.out.unacked:
            self._acked_when_lost, self.stalled_since, self.fruitless = acked, self.lost_at, 0
        else:
            self.fruitless += 1
        self.pump.on_touched(self.out, self)

    def end(self, reason: CloseReason, detail: str = "") -> None:
        """End every stream with the reason. Idempotent. Outside a turn, `Pump.settle` must follow."""
        if self.over:
            return
        self.ended.set()
        self.suspended = False
        self.reason, self.detail = reason, detail
        self.pump.on_touched(self.out, None)
        self.waiting.clear()
        lanes = self.close()
        self.lost_streams = len(lanes)
        if lanes:
            self.usage.ended()
        for lane in lanes:
            self._tell_if_notable(lane)
            lane.guard(lane.drop, reason)
        self.awake.set()

    def stop(self, reason: CloseReason, detail: str = "") -> None:
        """End it, with its link if it has one. Outside a turn, `Pump.settle` must follow."""
        if self.suspended:
            self.end(reason, detail)
        else:
            self.link.doom(reason, detail)

    # Nobody's while it is suspended: what is written waits in the out-buffer (Flusher)

    def flush(self) -> None:
        """Lanes have written. Control frames are not refused room, so there may be too many of them."""
        if self.out.overrun:
            detail = f"{self.out.unacked} bytes are kept for the next link, and more do not fit"
            self.pump.at_end(lambda: self.end(CloseReason.LINK_LOST, detail))

    def ready(self, mask: int) -> None:
        """It is no descriptor's watcher (Watcher)."""

    def crashed(self) -> None:
        """`flush` does nothing that could raise (Watcher)."""

    def abandoned(self) -> None:
        """It is no descriptor's watcher (Watcher)."""

    # Leaving

    def drain(self) -> None:
        """Tell the peer to open no more streams here; open none either, and end when the last one has, as STOPPED."""
        self.going_away = True
        self.goaway(CloseReason.DRAINING)
        self._ask_whether_it_knows()

    def retire(self) -> None:
        """End as IDLE without losing a stream: open none any more, and end when the peer knows so and none is open
        (SPEC.md, section 7).
        """
        self.retiring = self.going_away = True
        self.goaway(CloseReason.IDLE)
        self._ask_whether_it_knows()

    def _ask_whether_it_knows(self) -> None:
        self._retired_at = monotonic_ns()
        self.ping(self._retired_at)

    def _end_if_retired(self) -> None:
        """The peer's answer to a ping behind the GOAWAY came behind every OPEN that crossed it; its answer to one
        behind the last stream's end, behind everything that was to be said of that.
        """
        if 0 < self._retired_at <= self.known_at and not self.streams and not self.suspended:
            self.link.doom(CloseReason.IDLE if self.retiring else CloseReason.STOPPED)

    # The sink

    def on_closed(self, stream: Lane) -> None:
        """Sink."""
        # As `_tell_if_notable`.
        if stream.received_grants - stream.credit + stream.granted - stream.allow >= self.usage.notable:
            self.usage.stream_ended(stream)
        if not self.streams:
            self.usage.ended()
            self.idle_since = monotonic()
            self._ended_below = self.out.end
            if self._retired_at:
                self._ask_whether_it_knows()

    def _tell_if_notable(self, lane: Lane) -> None:
        if lane.bytes_moved >= self.usage.notable:
            self.usage.stream_ended(lane)

    def on_call(self, stream: Lane, call: Open) -> None:
        """Exception barrier of a stream: a bug in delivering one refuses that one."""
        try:
            self._calls.call(stream, call)
        except Exception:
            log.exception("unexpected error while delivering a stream", peer=self.peer, service=call.service)
            stream.abort(CloseReason.CONNECT_FAILED)

    def on_opened(self, stream: Lane) -> None:
        """Sink."""
        self.opened_in = monotonic() - stream.since
        try:  # `Lane.guard`, as this happens to every stream
            stream.on_opened()
        except Exception:
            stream.failed()

    def on_refused(self, stream: Lane, reason: CloseReason) -> None:
        """Sink."""
        stream.guard(stream.observer.lane_refused, stream, reason)

    def on_data(self, stream: Lane, data: memoryview) -> None:
        """Sink."""
        stream.guard(stream.on_data, data)

    def on_fin(self, stream: Lane) -> None:
        """Sink."""
        stream.guard(stream.on_fin)

    def on_rst(self, stream: Lane, reason: CloseReason) -> None:
        """Sink."""
        try:  # `Lane.guard`, as this happens to every stream
            stream.on_rst(reason)
        except Exception:
            stream.failed()

    def on_credit(self, stream: Lane) -> None:
        """Sink."""
        stream.guard(stream.resume)

    def on_pong(self, token: int) -> None:
        """Sink."""
        self.link.rtt = max(0, monotonic_ns() - token) / 1e9
        self.known_at = token
        self._end_if_retired()

    def on_goaway(self, reason: CloseReason) -> None:
        """Sink. DRAINING, and IDLE for the first time, let open streams finish; any other reason ends the link."""
        if reason is CloseReason.IDLE and not self.retiring:
            self.retiring = True
        elif reason is not CloseReason.DRAINING:
            self.link.doom(reason, "ended by the peer")
