"""A session of lanes: what the streams of one conversation share, whichever link carries it.

It is its own sink: each frame for a stream becomes a call on the lane. When its link is lost it is *suspended*: lanes
stay open, bytes that have arrived still go to local sockets, and local sockets are read as far as the out-buffer has
room. `LaneSession.carry_on` puts it on the next link, when the two HELLOs have said what each side has received and
`mux.session.Session.resume` has gone back to there.
"""

from __future__ import annotations

from math import inf
from time import monotonic_ns

import structlog
import trio

from proxy.core.syscalls import now
from proxy.errors import CloseReason
from proxy.mux.frames import Open
from proxy.mux.replay import ReplayBuffer
from proxy.mux.session import SessionSettings
from proxy.mux.stream import CLOSED
from proxy.pump.carrier import CarriedSession, UsageObserver
from proxy.pump.keeper import Keeper
from proxy.pump.lane import Lane
from proxy.pump.loop import Pump
from proxy.pump.sessionobserver import NULL_OBSERVER, SessionObserver
from proxy.pump.watcher import Carrier

log = structlog.get_logger()

EXTRA_CREDIT_SHARE = 16
"""Streams with extra credit may together hold no more than this part (one 16th) of their peer's budget, so that it is
not extra credit that exceeds the budget.
"""


class CallHandler:
    """Delivers the streams that the peer opens (inbound)."""

    def call(self, lane: Lane, call: Open) -> None:
        """Set ``lane.observer``, and then, now or later, deliver the stream with `Lane.attach` and `Lane.start_called`,
        or end it with `Lane.abort`. An exception refuses it as CONNECT_FAILED.
        """
        raise NotImplementedError


class LaneSession(CarriedSession):
    """All lanes of one conversation with a peer. Its link ends it or, while it is suspended, its pool.

    Args:
        key: the session's id on the wire; instance: id of the peer's process, from its HELLO.
        dialled: whether this side dialled, and dials again.
        replay: bytes kept for replay, the bound of its `ReplayBuffer`.
        calls: delivers the streams that the peer opens.
        survives: whether it outlives a lost link; if not, its streams end with the link.
        observer: is told what becomes of it. The others are as in `CarriedSession`.

    Attributes:
        awake: a new event at each loss of a link, set when the session has the next one or has ended.
        knows: set when the peer has answered `announce`, or cannot, as the link is lost or the session over.
        lost_at: when it lost its last link; seconds (monotonic), as the next one.
        stalled_since: of a suspended session, the first loss since which the peer has acknowledged nothing more.
        fruitless: links that have come up since and were lost, too.
        resumed: how often it has gone on over another link.
        retransmits: TCP segments that the kernel has sent again, on links that have ended.
        peer_leaves: whether the peer has said that it leaves (GOAWAY), as `going_away` has it of either side.
        unheard: whether the peer has handled no frame of it, and never will.
        reason: with `detail`, why it has ended; lost_streams: how many streams were open then; ended_alone: whether it
            had no link.
        opened_in: seconds from OPEN to OPENED of the stream whose OPENED came last, for which bytes did not wait;
            infinite before the first.
        idle_since: when its last stream ended, or it came up, seconds (monotonic).
        bulk: whether its pool puts bulk streams on it.
        retiring: whether one side ends it because nothing used it (GOAWAY with IDLE).
        known_at: token of the last ping that was answered: when it was sent, nanoseconds (monotonic).
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
        usage: UsageObserver,
        instance: str = "",
        survives: bool = False,
        observer: SessionObserver = NULL_OBSERVER,
    ) -> None:
        out = ReplayBuffer(pump.slabs, pump.touched, pump.later, replay)
        super().__init__(
            pump, name=name, peer=peer, usage=usage, dialler=dialled, out=out, local=local, remote=remote
        )
        self.key, self.dialled = key, dialled
        self.instance, self.survives = instance, survives
        self.extra_credit.most = min(
            self.extra_credit.most, pump.budget.per_peer // (EXTRA_CREDIT_SHARE * self.extra_credit.larger)
        )
        self.awake, self.knows = trio.Event(), trio.Event()
        self.since = self.idle_since = self.lost_at = self.stalled_since = now()
        self.resumed = self.lost_streams = self.fruitless = self.retransmits = 0
        self.reason, self.detail = CloseReason.FINISHED, ""
        self.opened_in = inf
        self.bulk = self.retiring = self.peer_leaves = self.unheard = self.ended_alone = False
        self._calls, self._observer, self._stream_type = calls, observer, Lane
        self._acked_when_lost = -1
        self._retired_at = self._announced_at = self.known_at = self._ended_below = 0

    def _make(self, stream_id: int, state: int) -> Lane:
        kind = self._stream_type
        lane = Lane.__new__(Lane) if kind is Lane else kind.__new__(kind)
        lane.join(self, stream_id, state, self._credit, self._allow)
        return lane

    @property
    def owes(self) -> bool:
        """Whether the peer has not acknowledged all that was written until the last stream ended here."""
        return not self.over and self.out.acked < self._ended_below

    @property
    def unanswered(self) -> bool:
        """Whether the peer has not answered `announce`."""
        return self._announced_at > 0 and not self.knows.is_set()

    @property
    def expendable(self) -> bool:
        """Whether it counts for nothing while it is suspended: it takes no more streams, or the peer dialled it and has
        sent nothing since HELLO, so that it may not even know that the dial has succeeded.
        """
        return self.going_away or not (self.dialled or self.received)

    # Links

    def carry_on(self, link: Carrier) -> None:
        """Go on over `link`, which is ``out.flusher`` already: the first one, or the next one after `suspend`."""
        self._observer.session_carried(self)
        self.link, self.reading_stopped, self.shortest = link, False, inf
        if self.suspended:
            self.suspended = False
            self.resumed += 1
            self.out.touch()
            self.awake.set()
            self._end_if_retired()

    def suspend(self) -> None:
        """Its link is lost: keep streams and bytes for the next one. The link calls this when it ends."""
        self.suspended, self.awake = True, trio.Event()
        if self._announced_at:
            self.knows.set()
        self.lost_at = now()
        acked = self.out.acked
        if acked > self._acked_when_lost or not self.out.unacked:
            self._acked_when_lost, self.stalled_since, self.fruitless = acked, self.lost_at, 0
        else:
            self.fruitless += 1
        self.out.flusher = Keeper(self.kept)
        self.pump.openings.link_lost(self)
        self.tell_asked()
        self._observer.session_keeps(self)

    def end(self, reason: CloseReason, detail: str = "") -> None:
        """End the session and drop its lanes, for that reason; if it is `unheard`, those that were opened here go over
        to another session. Idempotent. Outside a turn, call `Pump.settle` then.
        """
        if self.over:
            return
        self._observer.session_over(self)
        self.ended.set()
        self.knows.set()
        self.ended_alone, self.suspended = self.suspended, False
        self.reason, self.detail = reason, detail
        self.out.flusher = None
        self.waiting.clear()
        lanes = self.close()
        self.pump.openings.link_lost(self)
        self.tell_asked()
        if lanes:
            self.usage.ended()
        for lane in lanes:
            if self.unheard and lane.early is not None:
                lane.state = CLOSED
                lane.guard(lane.observer.lane_unheard, lane)
            else:
                self.lost_streams += 1
                self._tell_if_notable(lane)
                lane.guard(lane.drop, reason)
        self.awake.set()

    def stop(self, reason: CloseReason, detail: str = "") -> None:
        """End the session, and its link if it has one. Outside a turn, call `Pump.settle` then."""
        if self.suspended:
            self.end(reason, detail)
        else:
            self.link.doom(reason, detail)

    def kept(self) -> None:
        """It is suspended, and something has been written, which stays for the next link. End it with LINK_LOST when
        control frames, which are never refused room, have overrun the out-buffer.
        """
        if self.out.overrun:
            detail = f"{self.out.unacked} bytes are kept for the next link, and more do not fit"
            self.pump.at_end(lambda: self.end(CloseReason.LINK_LOST, detail))
        self._observer.session_keeps(self)

    # Leaving

    def announce(self) -> None:
        """Tell the peer to open no more streams here, while this side still opens its own; `drain` follows."""
        self.goaway(CloseReason.DRAINING)
        self._announced_at = monotonic_ns()
        if self.suspended:
            self.knows.set()
        self.ping(self._announced_at)

    def drain(self) -> None:
        """Open no more streams here, and tell the peer to open none. When the last one has ended and the peer has
        answered a ping behind that, end the link with STOPPED (SPEC.md, section 7).
        """
        self.going_away = True
        self.goaway(CloseReason.DRAINING)
        self._ask_whether_it_knows()

    def retire(self) -> None:
        """As `drain`, but with IDLE: nothing uses this session. A stream that the peer opens meanwhile is not lost."""
        self.retiring = self.going_away = True
        self.goaway(CloseReason.IDLE)
        self._ask_whether_it_knows()

    def _ask_whether_it_knows(self) -> None:
        self._retired_at = monotonic_ns()
        self.ping(self._retired_at)

    def _end_if_retired(self) -> None:
        """End the link if no stream is open and the peer has answered the last ping. It was sent behind the GOAWAY, so
        every OPEN that crossed the GOAWAY came before the answer; when streams were open, one more was sent behind the
        end of the last, so the peer has handled that too.
        """
        if 0 < self._retired_at <= self.known_at and not self.streams and not self.suspended:
            self.link.doom(CloseReason.IDLE if self.retiring else CloseReason.STOPPED)

    # The sink

    def on_closed(self, stream: Lane) -> None:
        """Tell the pool of a notable stream's end, and of the last stream's."""
        self._tell_if_notable(stream)
        if not self.streams:
            self.usage.ended()
            self.idle_since = now()
            self._ended_below = self.out.end
            if self._retired_at:
                self._ask_whether_it_knows()

    def _tell_if_notable(self, lane: Lane) -> None:
        if lane.moved() >= self.usage.notable:
            self.usage.stream_ended(lane)

    def on_call(self, stream: Lane, call: Open) -> None:
        """The exception barrier of a stream: a bug in delivering one refuses that one."""
        try:
            self._calls.call(stream, call)
        except Exception:
            log.exception("unexpected error while delivering a stream", peer=self.peer, service=call.service)
            stream.abort(CloseReason.CONNECT_FAILED)

    def on_opened(self, stream: Lane) -> None:
        """See `Lane.on_opened`."""
        lane = stream  # whose type is known
        self.opened_in = now() - lane.since
        if lane.timing is not None:
            lane.timing.opened(self.opened_in)
        try:
            lane.on_opened()
        except Exception:
            lane.failed()

    def on_refused(self, stream: Lane, reason: CloseReason) -> None:
        """Tell the lane's observer, which may take the socket to another host."""
        stream.guard(stream.observer.lane_refused, stream, reason)

    def on_data(self, stream: Lane, data: bytearray) -> None:
        """See `Lane.on_data`."""
        lane = stream
        try:
            lane.on_data(data)
        except Exception:
            lane.failed()

    def on_fin(self, stream: Lane) -> None:
        """See `Lane.on_fin`."""
        stream.guard(stream.on_fin)

    def on_rst(self, stream: Lane, reason: CloseReason) -> None:
        """See `Lane.on_rst`."""
        lane = stream
        try:
            lane.on_rst(reason)
        except Exception:
            lane.failed()

    def on_credit(self, stream: Lane) -> None:
        """See `Lane.resume`."""
        stream.guard(stream.resume)

    def on_pong(self, token: int) -> None:
        """Measure the round trip, and end the link if that is all that it waits for."""
        self.link.rtt = rtt = max(0, monotonic_ns() - token) / 1e9
        self.shortest = min(self.shortest, rtt)
        self.known_at = token
        if 0 < self._announced_at <= token:
            self.knows.set()
        self.tell_asked(token)
        self._end_if_retired()

    def on_goaway(self, reason: CloseReason) -> None:
        """DRAINING, and IDLE for the first time, let open streams finish; any other reason ends the link. As a
        dialler's first word PEER_UNREACHABLE means that it has given the dial up before our HELLO came.
        """
        self.peer_leaves = True
        if reason is CloseReason.IDLE and not self.retiring:
            self.retiring = True
        elif reason is not CloseReason.DRAINING:
            self.unheard = reason is CloseReason.PEER_UNREACHABLE and not (self.dialled or self.received)
            self.link.doom(reason, "ended by the peer")
        self._observer.session_left()
