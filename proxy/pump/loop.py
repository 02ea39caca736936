"""The pump's loop: one trio task around a nested epoll (trio supervises, the pump moves the bytes).

A *turn* handles everything that one look at the epoll found, then settles: sends what the turn produced, once per
link, ends the links that broke, and closes descriptors. Nothing is closed before a turn's end, so that no event of the
same look can meet a descriptor's next owner.

After a turn the loop looks again at once, and then waits in the kernel for up to LINGER before it sends what could wait
for company (``ReplayBuffer.put``) and gives the thread back to trio. A trio round trip costs several times what a small
message does (docs/performance.md has the figures), and a conversation's next message is usually that near. Trio's other
tasks run at least every MAX_BUSY + LINGER.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

import structlog
import trio

from proxy.mux.replay import ReplayBuffer, SlabPool
from proxy.pump.budget import MemoryBudget
from proxy.pump.options import LocalSocket

log = structlog.get_logger()

MAX_EVENTS = 48
"""Events per turn. Few enough that the peer gets to work on one turn's messages while this host gathers the next (with
128 events for 128 connections both hosts take turns idling: a quarter fewer messages, docs/performance.md), many enough
that a send serves a batch."""
SEND_FIRST = 4
"""Pieces of slow work in a turn (a call taken, a stream opened or closed: as much as 10 to 20 messages each) after
which what they wrote is sent, so that the peer begins while this host goes on; then after twice as many, and so on,
because a send that serves many is cheaper (docs/performance.md)."""
LINGER = 0.001
"""Seconds, the epoll's resolution."""
MAX_BUSY = 0.002
"""Seconds of uninterrupted turns after which trio's other tasks run; a handshake takes several of their visits. With
10 ms no gain was seen."""
QUIET = select.EPOLLET
"""Interest in nothing: with EPOLLET the kernel reports a hang-up or error, which cannot be switched off, once instead
of for ever."""


class Watcher(Protocol):
    """The owner of a descriptor in the pump."""

    def ready(self, mask: int) -> None:
        """The descriptor is ready for `mask`. Runs inside a turn: must not block and must not take long."""

    def crashed(self) -> None:
        """A method called by the pump raised an unexpected exception, which has been logged: give up what the
        descriptor stood for.
        """

    def abandoned(self) -> None:
        """The pump ends, and the descriptor is still in it: end what it stands for, if nobody else does."""


class Flusher(Watcher, Protocol):
    """Who sends what is written to an out-buffer."""

    def flush(self) -> None:
        """Send what can be sent without waiting."""


class PlainLane(Watcher, Protocol):
    """A lane in plain flow, as whoever collects from it sees it (`turn.collect`).

    Attributes:
        out: where its bytes go.
        word: header word of a frame of them, without the length.
        credit: bytes that it may still send.
    """

    out: ReplayBuffer
    word: int
    credit: int

    def recv_into(self, view: memoryview, /) -> int:
        """That of its socket."""

    def on_recv_error(self, error: OSError) -> None:
        """Receiving failed."""

    def on_eof(self) -> None:
        """The socket will give no more bytes."""

    def leave_plain_flow(self, length: int) -> None:
        """`length` bytes were received, and it may be that there are more, or that too little credit is left."""


Event = tuple[int, int]
"""A descriptor and what it is ready for, as epoll returns them."""
Collect = Callable[[list[Event], dict[int, PlainLane], list[ReplayBuffer], list[Event]], None]
"""See `turn.collect`."""


class Pump:
    """Owns the data plane's descriptors. All methods are called from the trio thread, inside or between turns.

    Args:
        budget: bytes that all lanes together may buffer.
        collect: takes the bytes of the lanes in plain flow that are ready (`turn.collect`).
        busy_poll: seconds to look again and again before waiting in the kernel; trades CPU for latency.

    Attributes:
        lanes: by descriptor, the lanes in plain flow: open, and with at least CHUNK bytes of credit.
        crowd: descriptors that were ready in this turn.
        slow_left: pieces of slow work until what they wrote is sent. Whoever does one counts it down, and calls
            `send_first` at 0; in the loops over connections themselves, as a call each would be dear.
    """

    def __init__(self, budget: MemoryBudget, collect: Collect, busy_poll: float = 0.0) -> None:
        self.budget = budget
        self.slabs = SlabPool()
        self.touched: list[ReplayBuffer] = []
        self.later: list[ReplayBuffer] = []
        self.lanes: dict[int, PlainLane] = {}
        self.crowd = 0
        self._collect = collect
        self._watchers: dict[int, Watcher] = {}
        self._flushers: dict[ReplayBuffer, Flusher] = {}
        self._again: list[Watcher] = []
        self._ended: list[Callable[[], None]] = []
        self._closing: list[LocalSocket] = []
        self.busy_poll = busy_poll
        self.slow_left = self._send_after = SEND_FIRST
        self._epoll = select.epoll()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Move bytes until cancelled; `shut_down` follows when the owners of the descriptors have let them go."""
        task_status.started()
        while True:
            if self._again:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._turns()

    def shut_down(self) -> None:
        """End the lanes that outlived their links (through in both directions, but with bytes that nobody has taken
        yet) and close the epoll. All other descriptors are their owners' to close, before this.
        """
        for watcher in list(self._watchers.values()):
            watcher.abandoned()
        self.settle()
        self._epoll.close()

    def _turns(self) -> None:
        poll, watchers, stop = self._epoll.poll, self._watchers, perf_counter() + MAX_BUSY
        collect = self._collect
        while True:
            if self._again:
                events = poll(0, MAX_EVENTS)
            elif not (events := (self._spin() if self.busy_poll else None) or poll(LINGER, MAX_EVENTS)):
                return self.settle()
            self.crowd = len(events)
            again, self._again = self._again, []
            rest: list[Event] = []
            try:
                collect(events, self.lanes, self.touched, rest)
            except Exception:
                # A bug in one lane. The slow way shows in which; lanes handled already only find nothing to read.
                log.exception("unexpected error in the data plane")
                rest = events
            for fd, mask in rest:
                watcher = watchers.get(fd)
                if watcher is not None:
                    try:
                        watcher.ready(mask)
                    except Exception:
                        self._failed(watcher)
                    self.slow_left -= 1
                    if not self.slow_left:
                        self.send_first()
            for watcher in again:
                try:
                    watcher.ready(0)
                except Exception:
                    self._failed(watcher)
            self._settle()
            if perf_counter() > stop:
                return self.settle()

    def _spin(self) -> list[Event]:
        if self.later:
            self.settle()  # who spins pays for latency
        poll, stop = self._epoll.poll, perf_counter() + self.busy_poll
        while not (events := poll(0, MAX_EVENTS)):
            if perf_counter() > stop:
                break
        return events

    @staticmethod
    def _failed(watcher: Watcher) -> None:
        """The exception barrier around one descriptor: a bug that shows in one connection costs that connection
        only.
        """
        log.exception("unexpected error in the data plane", watcher=type(watcher).__name__)
        watcher.crashed()

    def settle(self) -> None:
        """End the turns for now: what could wait is sent as well. Whoever writes to a session between turns calls this,
        or the bytes wait for the next turn.
        """
        for out in self.later:
            out.deferrable = False
            if out.unsent:
                out.touch()
        self.later.clear()
        self._settle()

    def _settle(self) -> None:
        """End a turn."""
        self.slow_left = self._send_after = SEND_FIRST
        while self.touched or self._ended:
            self._flush()
            ended, self._ended = self._ended, []
            for end in ended:
                end()
        closing, self._closing = self._closing, []
        for sock in closing:
            sock.close()

    def send_first(self) -> None:
        """In the middle of a turn: let the peer begin; see SEND_FIRST."""
        self._send_after *= 2
        self.slow_left = self._send_after
        self._flush()

    def _flush(self) -> None:
        """Send what has been written so far, once per link."""
        touched = self.touched[:]
        self.touched.clear()
        for out in touched:
            out.dirty = False
            if flusher := self._flushers.get(out):
                try:
                    flusher.flush()
                except Exception:
                    self._failed(flusher)

    def at_end(self, action: Callable[[], None]) -> None:
        """Do `action` when the turn ends: for what must not happen in the middle of it."""
        self._ended.append(action)

    def again(self, watcher: Watcher) -> None:
        """Call ``watcher.ready(0)`` in the next turn: for work that it put off to keep this one short."""
        self._again.append(watcher)

    def on_touched(self, out: ReplayBuffer, flusher: Flusher | None) -> None:
        """Say who sends what is written to `out`; None: nobody any more."""
        if flusher is None:
            self._flushers.pop(out, None)
        else:
            self._flushers[out] = flusher

    def watch(self, fd: int, watcher: Watcher, mask: int) -> None:
        """Take a non-blocking socket's descriptor in. Its owner keeps it, and later calls `release` or `close`."""
        self._watchers[fd] = watcher
        self._epoll.register(fd, mask or QUIET)

    def hand_on(self, fd: int, watcher: Watcher) -> None:
        """Make another object the watcher of a descriptor that is in already."""
        self._watchers[fd] = watcher

    def interest(self, fd: int, mask: int) -> None:
        """Change what is waited for; 0 waits for errors and hang-ups only, once."""
        self._epoll.modify(fd, mask or QUIET)

    def release(self, sock: LocalSocket) -> None:
        """Let a socket go without closing it."""
        fd = sock.fileno()
        self._watchers.pop(fd, None)
        self.lanes.pop(fd, None)
        self._epoll.unregister(fd)

    def close(self, sock: LocalSocket) -> None:
        """Let a socket go and close it when the turn ends. The kernel takes it out of the epoll then."""
        fd = sock.fileno()
        self._watchers.pop(fd, None)
        self.lanes.pop(fd, None)
        self._closing.append(sock)
