"""The end of a proxy.

A *stop* (SIGTERM, ``hostlane drain``) tells the peers, which then open no more streams here: at once, if other hosts
offer all that they could call here. Who has nowhere else to go is served to the end: a stop keeps nobody out for
longer than a crash. These are local callers, and peers for which a service is here and nowhere else (see `needed_by`),
which are told when nothing but quiet streams is open. Meanwhile streams may finish. Those that are quiet
(`openstreams.QuietStreams`) are closed first, all at once; those that are left are ended spread over the last part of
the time (`proxy.pool.staggeredclose`). The stop is over sooner when nothing but quiet streams is open. In its last turn
the proxy accepts who waits in the kernel's queues, closes the listening sockets, removes their files, and serves those
last calls.

After a *takeover* another process accepts: the old one only lets its streams finish, and none is closed for being quiet
until it is told to stop as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import partial

import structlog
import trio

from control.api.messages import DrainProgress, StreamDirection, StreamHolder, StreamInfo
from proxy.agent.openstreams import OpenStream, QuietStreams, open_streams
from proxy.outbound.upstreams import Outbound
from proxy.pool.pool import Pool
from proxy.pool.pools import Pools
from proxy.pool.staggeredclose import Cut, staggered_close
from proxy.pump.streamstats import StreamStats
from proxy.telemetry.slices import slices

log = structlog.get_logger()

LAST_WORDS = 1.0
"""Seconds that peers have to answer the ping behind the GOAWAY when no stream is open any more (they need a
millisecond), and that clients have to read the last progress report."""
LAST_CALLS = 1.0
"""Seconds, at most, that the calls have which were accepted in the last turn of a stop: nobody accepts meanwhile."""
RESERVE, RESERVED = 0.1, 0.1
"""Seconds, at most, and part of a stop's time that are kept for those calls."""
QUIET = 0.2
"""Part of a stop's time after which a stream is quiet: 1 s of the usual 5. Who lets streams have more time to finish
means slower ones."""
LOOKS = 4
"""Looks at the streams within that time."""
LOOK = 1.0
"""Seconds between two looks at most. A look at 10,000 streams takes 10 ms."""
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
        closed_quiet: number of streams that it has ended because they were quiet.
        closing: set in the last turn: no call is accepted any more.
        over: set when `run` has done its work.
    """

    def __init__(
        self, outbound: Outbound, pools: Pools, stats: StreamStats, streams: Callable[[], Iterator[StreamInfo]]
    ) -> None:
        self._outbound, self._pools, self._stats, self._streams = outbound, pools, stats, streams
        self._began = trio.Event()
        self._deadline = float("inf")
        self._stops = self._succeeded = False
        self._round = trio.CancelScope()
        self._followers, self._heard = 0, trio.Event()
        self._told: set[Pool] = set()
        self.cut = self.closed_quiet = 0
        self.closing, self.over = trio.Event(), trio.Event()

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

    def begin(self, seconds: float, *, succeeded: bool = False) -> None:
        """Begin the drain, to be over in `seconds` (0: at once). Called again, it can only shorten the time.

        Args:
            succeeded: another process has taken over, and accepts; else this is a stop.
        """
        deadline = trio.current_time() + seconds
        if deadline < self._deadline or (succeeded and not self._succeeded):
            self._deadline = min(deadline, self._deadline)
            self._round.cancel()
        self._succeeded |= succeeded
        self._stops |= not succeeded
        self._began.set()

    async def progress(self) -> DrainProgress:
        """A report for the admin socket."""
        return DrainProgress(
            left_s=self.left() or 0.0,
            streams=self._stats.open,
            cut=self.cut,
            closed_quiet=self.closed_quiet,
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
        if not self._succeeded:
            self._tell(lambda peer: not self._outbound.context.table.needed_by(peer))
        streams = self._stats.open
        log.info("proxy stopping", streams=streams, wait_s=round(self.left() or 0, 3) if streams else 0)
        changed = True
        while changed:
            with trio.CancelScope() as self._round:
                if not self._succeeded and not self.closing.is_set():
                    await self._serve()
                self._close()
                await self._let_finish()
            changed = self._round.cancelled_caught
        self.cut += self._stats.open
        if self.closed_quiet:
            log.info("quiet streams were closed", streams=self.closed_quiet)
        if self.cut:
            log.warning("streams were cut", streams=self.cut)
        self.over.set()

    # A stop, as long as calls are accepted

    async def _serve(self) -> None:
        """Let streams finish while calls are accepted, until only quiet ones are open or the time is nearly over."""
        left = self._deadline - trio.current_time()
        until = self._deadline - min(RESERVE, RESERVED * left)
        if left <= 0:
            return
        with trio.move_on_at(until):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(staggered_close, until, self._cuts, self._settle)
                nursery.start_soon(self._report)
                await self._close_quiet(until, True)
                nursery.cancel_scope.cancel()

    async def _close_quiet(self, until: float, serving: bool) -> None:
        """Close the streams that are quiet, of those that are open now; others are new calls. `serving`: return, in the
        last turn, when nothing but quiet streams is left and the peers know that this host stops; else never.
        """
        patience = QUIET * max(0.0, until - trio.current_time())
        quiet, pause = QuietStreams(patience), min(patience / LOOKS, LOOK)
        while True:
            if serving and not self._stats.open:
                await self._peers_know()
            found = quiet.look(open_streams(self._outbound, self._pools), trio.current_time())
            through = serving and len(found) == self._stats.open and not self._owes()
            if through and self._tell(lambda _: True):
                await self._peers_know()
                continue
            if through:
                self._close()
            for each in found:
                if through or quiet.old(each):
                    self.closed_quiet += self._ended(each)
            self._settle()
            if through:
                return
            with trio.move_on_after(pause):
                if serving and self._stats.open:
                    await self._stats.idle()
                else:
                    await trio.sleep_forever()

    def _tell(self, whom: Callable[[str], bool]) -> bool:
        """Tell the peers of these names that this host stops. Whether there are any that have not been told before."""
        new = [pool for pool in self._pools.everywhere if pool not in self._told and whom(pool.name)]
        for pool in new:
            pool.announce()
        self._told.update(new)
        return bool(new)

    async def _peers_know(self) -> None:
        """Wait until every peer that was told and has a link knows that this host stops: its OPENs that crossed our
        GOAWAY have come then.
        """
        with trio.move_on_after(LAST_WORDS):
            for pool in self._told:
                for session in pool.sessions:
                    await session.knows.wait()

    def _owes(self) -> bool:
        """Whether a session that has lost its link keeps last bytes of streams that have ended here."""
        return any(each.owes and each.suspended for pool in self._pools.everywhere for each in pool.sessions)

    def _close(self) -> None:
        """The last turn: accept who waits, then nobody any more. Idempotent."""
        if not self.closing.is_set():
            self.closing.set()
            self._outbound.stop_listening()
            for pool in self._pools.everywhere:
                pool.drain()

    # Nothing is accepted any more

    async def _let_finish(self) -> None:
        """Let the streams finish that are still open: after a takeover until the deadline, in a stop the last calls."""
        until = self._deadline
        if not self._succeeded:
            until = min(until, trio.current_time() + LAST_CALLS)
        with trio.move_on_at(until):
            async with trio.open_nursery() as nursery:
                if self._succeeded:
                    nursery.start_soon(staggered_close, until, self._cuts, self._settle)
                    nursery.start_soon(self._report)
                    if self._stops:
                        nursery.start_soon(self._close_quiet, until, False)
                await self._stats.idle()
                await self._links_end()
                nursery.cancel_scope.cancel()

    async def _links_end(self) -> None:
        """No stream is open. A stream ends here before the peer has its last bytes, which it acknowledges with the end
        of the link. A session that has lost its link may need a while to send them over the next one.
        """
        pools = self._pools.everywhere
        with trio.move_on_after(LAST_WORDS):
            for link in [link for pool in pools for link in pool.links]:
                # A peer that was silent while calls were still accepted is not waited for again.
                if not link.session.unanswered:
                    await link.ended.wait()
        for session in [session for pool in pools for session in pool.sessions]:
            if session.owes:
                await session.ended.wait()

    # Ending streams

    def _settle(self) -> None:
        self._outbound.context.pump.settle()

    def _cuts(self) -> list[Cut]:
        return [partial(self._cut, each) for each in open_streams(self._outbound, self._pools)]

    def _cut(self, stream: OpenStream) -> None:
        self.cut += self._ended(stream)

    def _ended(self, stream: OpenStream) -> int:
        """End it, unless it has ended. Returns how many streams that has ended."""
        before = self._stats.open
        stream.cut()
        return before - self._stats.open

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
