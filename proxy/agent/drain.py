"""The end of a proxy, in order: no new calls, the peers are told, streams may finish, what is left ends bit by bit
(`proxy.pool.staggeredclose`); at the deadline nothing is left.
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
"""Seconds for peers to answer that they know of the end when no stream is open any more. They need a millisecond."""
REPORT = 10.0
"""Seconds between lines in the log that say who still holds streams."""
MOST_HOLDERS = 100
"""Holders reported, those with the most streams first."""

Who = tuple[str, StreamDirection, str | None, int | None, int | None]
"""Service, direction, peer, user and process."""


class Drain:
    """See the module's text.

    Args:
        streams: what is open, for reports.

    Attributes:
        cut: streams that did not finish in time.
        over: set when nothing is open any more.
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
        """Whether it has been told to."""
        return self._began.is_set()

    async def told(self) -> None:
        """Wait until it begins."""
        await self._began.wait()

    def left(self) -> float | None:
        """Seconds until the deadline; None: there is no drain."""
        return max(0.0, self._deadline - trio.current_time()) if self.began else None

    def begin(self, seconds: float) -> None:
        """Begin, or have less time left than was said before (never more). 0: end at once."""
        deadline = trio.current_time() + seconds
        if deadline < self._deadline:
            self._deadline = deadline
            self._round.cancel()
        self._began.set()

    async def progress(self) -> DrainProgress:
        """Where it stands."""
        return DrainProgress(
            left_s=self.left() or 0.0,
            streams=self._stats.open,
            cut=self.cut,
            over=self.over.is_set(),
            holders=await self._holders(),
        )

    async def follow(self) -> AsyncGenerator[DrainProgress, None]:
        """`progress` about once a second, and at last when it is over; `heard` waits for whoever follows."""
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
        """Return when nobody follows any more, or after LAST_WORDS."""
        with trio.move_on_after(LAST_WORDS):
            while self._followers:
                self._heard = trio.Event()
                await self._heard.wait()

    async def run(self) -> None:
        """Wait for `begin`, then drain until nothing is open or the time is up; what is left then, and the listeners of
        links, are the caller's to end. Cancelled, it leaves things as they are.
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
            # A stream has ended here before its last bytes have arrived: with its link lost, that may take a while.
            for pool in self._pools.everywhere:
                for session in pool.sessions:
                    if session.owes:
                        await session.ended.wait()
            nursery.cancel_scope.cancel()

    def _open(self) -> list[Callable[[], None]]:
        """What ends each of the streams that are open; it does nothing if the stream has ended by then."""
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
    """Who holds it."""
    return stream.service, stream.direction, stream.peer, stream.uid, stream.pid


def holders(counted: Counter[Who]) -> list[StreamHolder]:
    """Those with the most streams, that with the most first."""
    return [
        StreamHolder(service=service, direction=direction, peer=peer, uid=uid, pid=pid, streams=count)
        for (service, direction, peer, uid, pid), count in counted.most_common(MOST_HOLDERS)
    ]


def describe(holder: StreamHolder) -> str:
    """For a line in the log."""
    peer = f" {holder.peer}" if holder.peer else ""
    process = f" pid {holder.pid}" if holder.pid is not None else ""
    return f"{holder.service} {holder.direction}{peer}{process}: {holder.streams}"
