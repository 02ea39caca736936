"""The end of a proxy, in order: accept no new calls, tell the peers, let streams finish, end the remaining ones spread
over the last part of the time (`proxy.pool.staggeredclose`); at the deadline none is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import partial

import structlog
import trio

from control.api.messages import DrainProgress, StreamDirection, StreamHolder, StreamInfo
from proxy.errors import CloseReason
from proxy.outbound.upstreams import Outbound
from proxy.pool.pools import Pools
from proxy.pool.staggeredclose import staggered_close
from proxy.pump.streamstats import StreamStats
from proxy.telemetry.slices import slices

log = structlog.get_logger()

LAST_WORDS = 1.0
"""Seconds that peers have to answer the ping behind the GOAWAY when no stream is open any more (they need a
millisecond), and that clients have to read the last progress report."""
REPORT = 10.0
"""Seconds between log lines that say who still has open streams."""
MOST_HOLDERS = 100
"""Most holders in a report; those with the most streams come first."""

Who = tuple[str, StreamDirection, str | None, int | None, int | None]
"""Service, direction, peer, user id and process id."""


class Drain:
    """Ends the proxy in that order. `begin` starts it; `run`, in a task of its own, carries it out.

    Args:
        streams: lists the open streams, for reports.

    Attributes:
        cut: number of streams that the drain has ended because they did not finish in time.
        over: set when `run` has done its work.
    """

    def __init__(
        self, outbound: Outbound, pools: Pools, stats: StreamStats, streams: Callable[[], Iterator[StreamInfo]]
    ) -> None:
        self._outbound, self._pools, self._stats, self._streams = outbound, pools, stats, streams
        self._began = trio.Event()
        self._deadline = float("inf")
        self._round = trio.CancelScope()
        self._followers, self._heard = 0, trio.Event()
        self.cut = 0
        self.over = trio.Event()

    @property
    def began(self) -> bool:
        """Whether `begin` was called."""
        return self._began.is_set()

    async def told(self) -> None:
        """Wait until `begin` is called."""
        await self._began.wait()

    def left(self) -> float | None:
        """Seconds until the deadline; None: there is no drain."""
        return max(0.0, self._deadline - trio.current_time()) if self.began else None

    def begin(self, seconds: float) -> None:
        """Begin the drain, to be over in `seconds` (0: at once). Called again, it can only shorten the time."""
        deadline = trio.current_time() + seconds
        if deadline < self._deadline:
            self._deadline = deadline
            self._round.cancel()
        self._began.set()

    async def progress(self) -> DrainProgress:
        """A report for the admin socket."""
        return DrainProgress(
            left_s=self.left() or 0.0,
            streams=self._stats.open,
            cut=self.cut,
            over=self.over.is_set(),
            holders=await self._holders(),
        )

    async def follow(self) -> AsyncGenerator[DrainProgress, None]:
        """Yield `progress` about once a second, and a last time when the drain is over; `heard` waits for that."""
        self._followers += 1
        try:
            while not self.over.is_set():
                yield await self.progress()
                with trio.move_on_after(1.0):
                    await self.over.wait()
            yield await self.progress()
        finally:
            self._followers -= 1
            if not self._followers:
                self._heard.set()

    async def heard(self) -> None:
        """Return when no `follow` runs any more, or after LAST_WORDS."""
        with trio.move_on_after(LAST_WORDS):
            while self._followers:
                self._heard = trio.Event()
                await self._heard.wait()

    async def run(self) -> None:
        """Wait for `begin`, then drain until no stream is open or the deadline has come. The caller then ends what is
        left, and the listeners for links. If it is cancelled, what is open stays open.
        """
        await self._began.wait()
        self._outbound.stop_listening()
        for pool in self._pools.everywhere:
            pool.drain()
        streams = self._stats.open
        log.info("proxy stopping", streams=streams, wait_s=round(self.left() or 0, 3) if streams else 0)
        changed = True
        while changed:
            with trio.CancelScope() as self._round:
                with trio.move_on_at(self._deadline):
                    await self._drain_once()
            changed = self._round.cancelled_caught
        self.cut += self._stats.open
        if self.cut:
            log.warning("streams were cut", streams=self.cut)
        self.over.set()

    async def _drain_once(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(staggered_close, self._deadline, self._open, self._outbound.context.pump.settle)
            nursery.start_soon(self._report)
            await self._stats.idle()
            with trio.move_on_after(LAST_WORDS):
                for pool in self._pools.everywhere:
                    for link in tuple(pool.links):
                        await link.ended.wait()
            # A stream ends here before the peer has its last bytes. A session that has lost its link may need a while
            # to send them over the next one.
            for pool in self._pools.everywhere:
                for session in pool.sessions:
                    if session.owes:
                        await session.ended.wait()
            nursery.cancel_scope.cancel()

    def _open(self) -> list[Callable[[], None]]:
        """For each open stream a function that ends it, and does nothing if it has ended by then."""
        reason = CloseReason.STOPPED
        lanes = [lane for pool in self._pools.everywhere for each in pool.sessions for lane in each.streams.values()]
        cuts = [
            *(partial(lane.guard, lane.abort, reason) for lane in lanes),
            *(partial(splice.end, reason) for splice in self._outbound.context.splices),
            *(partial(call.give_up, reason) for call in list(self._outbound.context.calls)),
        ]
        return [partial(self._cut, cut) for cut in cuts]

    def _cut(self, cut: Callable[[], None]) -> None:
        before = self._stats.open
        cut()
        self.cut += before - self._stats.open

    async def _holders(self) -> list[StreamHolder]:
        counted: Counter[Who] = Counter()
        async with aclosing(slices(self._streams())) as parts:
            async for part in parts:
                counted.update(map(who, part))
        return holders(counted)

    async def _report(self) -> None:
        while True:
            await trio.sleep(REPORT)
            log.info(
                "proxy waits for streams",
                streams=self._stats.open,
                left_s=round(self.left() or 0, 1),
                holders=[describe(holder) for holder in (await self._holders())[:10]],
            )


def who(stream: StreamInfo) -> Who:
    """Who holds a stream."""
    return stream.service, stream.direction, stream.peer, stream.uid, stream.pid


def holders(counted: Counter[Who]) -> list[StreamHolder]:
    """The holders with the most streams, at most MOST_HOLDERS, in falling order."""
    return [
        StreamHolder(service=service, direction=direction, peer=peer, uid=uid, pid=pid, streams=count)
        for (service, direction, peer, uid, pid), count in counted.most_common(MOST_HOLDERS)
    ]


def describe(holder: StreamHolder) -> str:
    """A holder as a log line has it."""
    peer = f" {holder.peer}" if holder.peer else ""
    process = f" pid {holder.pid}" if holder.pid is not None else ""
    return f"{holder.service} {holder.direction}{peer}{process}: {holder.streams}"
