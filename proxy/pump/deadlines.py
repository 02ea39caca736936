"""Timeouts of the data plane (connecting to a service, waiting for a link, accepting again), in one trio task for all
instead of one each."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

import structlog
import trio

log = structlog.get_logger()


class Deadline:
    """An action that runs once at its time, unless it is cancelled before."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Forget the action. Idempotent, also after it has run."""
        self.action = None


class Deadlines:
    """A queue of `Deadline` s by trio's clock.

    Args:
        settle: called after actions have run: `Pump.settle`, which sends what they wrote and closes what they ended.
    """

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle
        self._queue: list[tuple[float, int, Deadline]] = []
        self._numbers = count()
        self._changed = trio.Event()

    def add(self, seconds: float, action: Callable[[], None]) -> Deadline:
        """Run `action` in `seconds`. It must not block."""
        deadline = Deadline(action)
        heapq.heappush(self._queue, (trio.current_time() + seconds, next(self._numbers), deadline))
        if self._queue[0][2] is deadline:
            self._changed.set()
        return deadline

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run each action when it is due, until cancelled. Actions that are not due by then never run."""
        task_status.started()
        while True:
            self._changed = trio.Event()
            with trio.CancelScope(deadline=self._queue[0][0] if self._queue else float("inf")):
                await self._changed.wait()
            self._run_due()

    def _run_due(self) -> None:
        now, due = trio.current_time(), False
        while self._queue and (self._queue[0][2].action is None or self._queue[0][0] <= now):
            action = heapq.heappop(self._queue)[2].action
            if action is not None:
                due = True
                try:
                    action()
                except Exception:  # the barrier: it costs what the timeout was for, not the proxy
                    log.exception("unexpected error in a timeout")
        if due:
            self._settle()
