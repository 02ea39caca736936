"""Waiting for room in the backlogs of Unix sockets.

A Unix socket whose backlog is full answers EAGAIN, and epoll cannot tell when it has room again. A blocking connect
would be woken, but costs a thread each, and a service that has stopped would hold as many threads as there are. So
each such path is tried again after a short while, by the first of those that wait for it alone: services do not wait
for each other, and one that stays full costs a system call or two each time.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from proxy.pump.deadlines import Deadlines

WAITERS = 1024
"""Connections that may wait, for all paths together; more are refused as OVERLOADED. One path may have as many as would
leave the same number for others: a dynamic threshold, as switches share their buffers (Choudhury and Hahne, 1998)."""
SOON, LATER = 0.001, 0.02
"""Seconds until a path is tried again: after a connection was made, and at most (twice as long after each that was
not)."""


class Waiter(Protocol):
    """A connection that is to be made (`connecting.ConnectAttempt`)."""

    @property
    def pending(self) -> bool:
        """Whether anybody still wants it."""

    def try_again(self) -> bool:
        """Connect without waiting, and tell whoever wants it of success or failure; False: the backlog is full."""


class FullBacklogs:
    """Those that wait, by path.

    Attributes:
        waiting: how many there are; one that nobody wants any more may count until its path is tried next.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._queues: dict[str, _Queue] = {}
        self.waiting = 0

    def __contains__(self, path: object) -> bool:
        return path in self._queues

    def add(self, path: str, waiter: Waiter) -> str | None:
        """Wait for room there; whoever adds it sees to its timeout. If that is refused, returns why."""
        queue = self._queues.get(path)
        held = 0 if queue is None else len(queue.waiters)
        if held >= max(1, WAITERS - self.waiting):
            return f"{held} connections wait for room in its backlog already"
        if queue is None:
            queue = self._queues[path] = _Queue()
            self._deadlines.add(queue.delay, lambda: self._try(path, queue))
        self.waiting += 1
        queue.waiters.append(waiter)
        return None

    def _try(self, path: str, queue: _Queue) -> None:
        waiters, made = queue.waiters, False
        try:
            while waiters and (not waiters[0].pending or waiters[0].try_again()):
                made = True
                waiters.popleft()
                self.waiting -= 1
        finally:
            if waiters:
                queue.delay = SOON if made else min(2 * queue.delay, LATER)
                self._deadlines.add(queue.delay, lambda: self._try(path, queue))
            else:
                del self._queues[path]


class _Queue:
    __slots__ = ("delay", "waiters")

    def __init__(self) -> None:
        self.waiters: deque[Waiter] = deque()
        self.delay = SOON


