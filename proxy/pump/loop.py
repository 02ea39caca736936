"""The pump's loop: one trio task around a nested epoll (trio supervises, the pump moves the bytes).

A *turn* handles all events that one poll of the epoll returned. Then it settles: it sends what the turn produced, once
per link, ends the links that broke, and closes descriptors. Nothing is closed before a turn's end: a new socket would
get the number of the closed descriptor, and with it events of the same poll.

After a turn the loop polls again, and waits in the kernel for up to LINGER. If nothing comes, it sends the deferrable
frames (`ReplayBuffer.put`) and gives the thread back to trio. It waits because a trio round trip costs several times
what a small message does (docs/performance.md has the figures), and a conversation's next message usually comes that
soon. Trio's other tasks wait at most MAX_BUSY + LINGER, some busy polling (`busypoll`) and the turn that is under way
then.
"""

from __future__ import annotations

import resource
import select
from collections.abc import Callable
from typing import Any

import structlog
import trio

from control.base.histogram import Histogram
from proxy.core.syscalls import Epoll, now, sched_yield
from proxy.mux.replay import Flusher, FlushQueue, ReplayBuffer
from proxy.mux.slabpool import SlabPool
from proxy.pump.budget import MemoryBudget
from proxy.pump.busypoll import BusyPoll
from proxy.pump.deadlines import Deadlines
from proxy.pump.descriptor import Descriptor, close_owned, fd_of
from proxy.pump.descriptorshares import DescriptorShares
from proxy.pump.openingwindows import OpeningWindows
from proxy.pump.options import LocalSocket
from proxy.pump.pace import (
    FEW_EVENTS,
    LINGER,
    LINGER_DEFERRED,
    LONG_TURN,
    MAX_BUSY,
    MAX_EVENTS,
    PROBE,
    SEND_FIRST,
)
from proxy.pump.watcher import Watcher

log = structlog.get_logger()

LONG_TURNS = (LONG_TURN, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)
"""Seconds: the bounds of `Pump.long_turns`. A turn within the first is short."""
QUIET = select.EPOLLET
"""Mask that asks for no events. Hang-ups and errors cannot be switched off; with EPOLLET the kernel reports them once
instead of at each poll."""


class Reader:
    """Reads the lanes in plain flow that are ready (`turn.LaneReader`)."""

    def read(self, found: Epoll, count: int, lanes: list[Any]) -> int:
        """Read, and put off what is not the common case.

        Args:
            found: the events of the last wait, `count` of them; those that were put off are the first ones afterwards.
            lanes: as `Pump.lanes`.

        Returns: how many were put off.
        """
        raise NotImplementedError


class Pump:
    """Owns the data plane's descriptors. All methods are called from the trio thread, inside or between turns.

    Args:
        budget: bytes that all lanes together may buffer.
        reader: reads the lanes in plain flow that are ready.
        busy_poll: when to look again instead of waiting in the kernel; trades CPU for latency.

    Attributes:
        touched: out-buffers whose flushers are called when the turn ends; later: those with deferrable frames only
            (`ReplayBuffer`).
        lanes: by descriptor, its lane if that is in plain flow, which has at least CHUNK bytes of credit, else None.
        deadlines: timeouts of the data plane, which run while the pump does.
        crowd: descriptors that were ready in this turn.
        turns: how many there have been; busy: seconds that they took, and nothing else; long_turns: those that took
            longer than the first of LONG_TURNS, seconds.
        descriptors: how those of this process are shared out.
        openings: how many calls may be under way without an answer.
        linger: milliseconds of a wait in the kernel.
        slow_left: opens, closes and other slow events until `send_first` is due. A loop over such events counts it
            down, and calls that at 0.
    """

    def __init__(self, budget: MemoryBudget, reader: Reader, busy_poll: BusyPoll | None = None) -> None:
        self.budget = budget
        self.slabs = SlabPool()
        self.touched = FlushQueue()
        self.later: list[ReplayBuffer] = []
        self.lanes: list[Any] = []
        self.deadlines = Deadlines(self.settle)
        self.crowd = self.turns = 0
        self.busy = self._began = 0.0
        self.long_turns = Histogram(LONG_TURNS)
        self.descriptors = DescriptorShares(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.openings = OpeningWindows()
        self._reader, self._in_turn = reader, False
        self._watchers: list[Watcher | None] = []
        self._again: list[Watcher] = []
        self._ended: list[Callable[[], None]] = []
        self._closing: list[LocalSocket | Descriptor] = []
        self.busy_poll = busy_poll or BusyPoll()
        self.linger = LINGER
        self._most, self._looks = MAX_EVENTS, 0
        self.slow_left = self._send_after = SEND_FIRST
        self._epoll = Epoll(MAX_EVENTS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Move bytes until cancelled. Afterwards, when all others have closed or released their descriptors, call
        `shut_down`.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.deadlines.run)
            task_status.started()
            while True:
                if self._again:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._turns()

    def shut_down(self) -> None:
        """Drop the lanes that are still registered (their streams have ended, but local sockets have not taken all
        bytes) and close the epoll. All other descriptors must be closed or released before.
        """
        for watcher in self.watchers():
            watcher.abandoned()
        self.settle()
        self._epoll.close()

    def _turns(self) -> None:
        found, ended = self._epoll, now()
        stop = ended + MAX_BUSY
        self._in_turn = True
        while True:
            self._looks += 1
            probe = not self._looks & PROBE
            most = MAX_EVENTS if probe else self._most
            if self._again:
                count = found.wait(0, most)
                self._began = now()
            else:
                count = self._wait(most, ended)
                if not count:
                    break
            self.turns += 1
            self.crowd = count
            if count:
                self.busy_poll.turn(found.at(0))
            again: list[Watcher] | None = None
            if self._again:
                again, self._again = self._again, []
            try:
                left = self._reader.read(found, count, self.lanes)
            except Exception:
                # A bug in one lane. Handle all events one by one below, where the barrier shows whose it is; who was
                # read already, or comes twice, finds nothing more to read.
                log.exception("unexpected error in the data plane")
                left = count
            if probe:
                self._most = FEW_EVENTS if count <= 2 * FEW_EVENTS and left <= 2 else MAX_EVENTS
            if left:
                self._handle(found, left)
            if again:
                self._look_at(again)
            ended = self._end_turn()
            if ended > stop:
                break
        self._in_turn = False
        self.settle()

    def _handle(self, found: Epoll, count: int) -> None:
        """Tell the watchers of the first finds."""
        for index in range(count):
            watcher = self._watchers[found.at(index)]
            if watcher is not None:
                try:
                    watcher.ready(found.mask)
                except Exception:
                    self.failed(watcher)
                self.slow_left -= 1
                if not self.slow_left:
                    self.send_first()

    def _look_at(self, watchers: list[Watcher]) -> None:
        for watcher in watchers:
            try:
                watcher.ready(0)
            except Exception:
                self.failed(watcher)

    def _turn_of_again(self) -> None:
        """A turn for nothing but what called `again` while the loop waited in trio."""
        self._began = now()
        self.turns += 1
        again, self._again = self._again, []
        self._look_at(again)
        self._end_turn()

    def _end_turn(self) -> float:
        """Settle, and count the time of the turn; returns when it ended."""
        self._settle()
        ended = now()
        took = ended - self._began
        self.busy += took
        if took > LONG_TURN:
            self.long_turns.observe(took)
        return ended

    def _wait(self, most: int, begin: float) -> int:
        """Wait for the next events, beginning now, at `begin`; how many there are. 0: nothing has come for LINGER.
        Afterwards it is `_began`.
        """
        epoll, busy_poll = self._epoll, self.busy_poll
        linger = LINGER_DEFERRED if self.later else self.linger
        before, stop = begin, busy_poll.until(begin)
        if self.later and 1000 * (stop - begin) > LINGER_DEFERRED:
            self.settle()
            linger = self.linger
        while before < stop:
            count = epoll.wait(0, most)
            if count:
                self._began = now()
                busy_poll.found()
                return count
            sched_yield()
            after = now()
            if not busy_poll.looked(before, after):
                break
            before = after
        count = epoll.wait(linger, most)
        self._began = now()
        busy_poll.waited(self._began - begin if count and before == begin else linger / 1000)
        return count

    @staticmethod
    def failed(watcher: Watcher | Flusher) -> None:
        """The exception barrier around one descriptor: an unexpected exception, which is being handled, costs one
        connection only.
        """
        log.exception("unexpected error in the data plane", watcher=type(watcher).__name__)
        watcher.crashed()

    def settle(self) -> None:
        """End a turn, and send deferrable frames too. Whoever writes to a session outside a turn calls this, or the
        bytes wait for the next turn.
        """
        for out in self.later:
            out.deferrable = False
            if out.unsent:
                out.touch()
        self.later.clear()
        self._settle()

    def _settle(self) -> None:
        """End a turn: send, run what `at_end` was given, then close sockets. Deferrable frames may wait."""
        self.slow_left = self._send_after = SEND_FIRST
        while self.touched.first is not None or self._ended:
            self._flush()
            if self._ended:
                ended, self._ended = self._ended, []
                for end in ended:
                    end()
        if self._closing:
            closing, self._closing = self._closing, []
            for sock in closing:
                close_owned(sock)

    def send_first(self) -> None:
        """Flush in the middle of a turn, so that the peer starts early, and set when to do so next (SEND_FIRST)."""
        self._send_after *= 2
        self.slow_left = self._send_after
        self._flush()

    def _flush(self) -> None:
        """Send what has been written to the `touched` out-buffers so far, once per link."""
        last = self.touched.last  # what is touched meanwhile has its turn later
        while (out := self.touched.take()) is not None:
            if (flusher := out.flusher) is not None:
                try:
                    flusher.flush()
                except Exception:
                    self.failed(flusher)
            if out is last:
                break

    def at_end(self, action: Callable[[], None]) -> None:
        """Call `action` when the turn ends, after the flush: for what must not happen in the middle of a turn."""
        self._ended.append(action)

    def again(self, watcher: Watcher) -> None:
        """Call ``watcher.ready(0)`` in the next turn: for work that was put off to keep this turn short."""
        self._again.append(watcher)
        if not self._in_turn and len(self._again) == 1:
            self.deadlines.add(0, self._turn_of_again)

    def watch(self, fd: int, watcher: Watcher, mask: int) -> None:
        """Register the descriptor of a non-blocking socket. Its owner later calls `release` or `close`."""
        if fd >= len(self._watchers):
            more: list[Any] = [None] * (fd + 1)
            self._watchers += more
            self.lanes += more
        self._watchers[fd] = watcher
        self._epoll.add(fd, mask or QUIET)

    def watchers(self) -> list[Watcher]:
        """Those of all registered descriptors."""
        return [watcher for watcher in self._watchers if watcher is not None]

    def hand_on(self, fd: int, watcher: Watcher) -> None:
        """Make another object the watcher of a registered descriptor."""
        self._watchers[fd] = watcher

    def interest(self, fd: int, mask: int) -> None:
        """Change the events that are waited for; with 0, errors and hang-ups are still reported, once (QUIET)."""
        self._epoll.modify(fd, mask or QUIET)

    def release(self, sock: LocalSocket) -> None:
        """Unregister a socket without closing it."""
        fd = fd_of(sock)
        self._forget(fd)
        self._epoll.remove(fd)

    def close(self, sock: LocalSocket | Descriptor) -> None:
        """Unregister a socket, if it is registered, and close it when the turn ends. Closing takes it out of the epoll,
        so it is not taken out before.
        """
        self._forget(fd_of(sock))
        self._closing.append(sock)

    def _forget(self, fd: int) -> None:
        if 0 <= fd < len(self._watchers):
            self._watchers[fd] = self.lanes[fd] = None
