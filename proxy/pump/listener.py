"""A listening socket of local callers inside the pump: why it leaves connections in the kernel's queue at times, and
until when.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from select import EPOLLIN, POLLIN, poll
from time import monotonic

import structlog

from control.base.system.accepting import OF_CLIENT, PAUSE
from proxy.pump.accepting import Accepting
from proxy.pump.deadlines import Deadlines
from proxy.pump.descriptor import Descriptor
from proxy.pump.descriptorshares import ALPHA
from proxy.pump.loop import Pump
from proxy.pump.opening import MOST
from proxy.pump.openings import OpeningWindow
from proxy.pump.options import LocalSocket, bound_send_buffer

log = structlog.get_logger()

LOOK_AGAIN = 0.25
"""Seconds until it is looked again what an upstream holds that has its share of descriptors: nobody tells when one
comes back."""
RECENT = 10.0
"""Seconds; callers who close before they are answered are told of for so long after they had to wait."""
MOST_WAITING = 65536
"""Connections that `Listener.finish` accepts at most: more than any kernel's queue holds (net.core.somaxconn)."""


class Reason(Enum):
    """Why a listener leaves connections in the kernel's queue."""

    HELD = auto()
    """By `Listener.hold`."""
    FAILED = auto()
    """This machine could not accept a moment ago."""
    DESCRIPTORS = auto()
    """Its share of them is used up."""
    UNANSWERED = auto()
    """So many calls are under way without an answer as may be."""


class Listener(Accepting):
    """Accepts from a listening, non-blocking socket. Whoever made the socket closes it, after `stop`.

    Args:
        listen: the configured address, for logs.

    Attributes:
        held: counts the descriptors that the connections from here hold.
    """

    # Without a dictionary of its own compiled code need not look there for methods.
    __slots__ = ("_deadlines", "_listen", "_reasons", "_sock", "_uncounted", "_watching", "_why", "held")

    def __init__(
        self,
        pump: Pump,
        deadlines: Deadlines,
        sock: socket.socket,
        listen: str,
        accepted: Callable[[LocalSocket | Descriptor], None],
        window: OpeningWindow,
        held: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(pump, sock.fileno(), accepted, window)
        self._deadlines = deadlines
        self._sock = sock
        self._listen = listen
        self.held = held
        self._watching = True
        self._reasons: set[Reason] = set()
        self._uncounted, self._why = 0, ""
        pump.watch(self._fd, self, EPOLLIN)

    def beside(self, sock: socket.socket) -> Listener:
        """Another one, for a second socket at the same address."""
        return Listener(self._pump, self._deadlines, sock, self._listen, self.accepted, self.window, self.held)

    def crashed(self) -> None:
        """An unexpected exception was raised for one new connection, and logged; go on accepting (Watcher)."""

    def abandoned(self) -> None:
        """Never called: whoever made the listener calls `stop` before the pump ends (Watcher)."""

    def finish(self) -> None:
        """Accept the connections that wait in the kernel's queue: to their callers they look established already.
        `stop` follows.
        """
        if self._watching:
            for _ in range(MOST_WAITING):
                try:
                    sock, _address = self._sock.accept()
                except OSError as error:
                    if error.errno in OF_CLIENT:
                        continue
                    return  # nobody waits, or closing resets those who are left
                sock.setblocking(False)
                if bound := self._pump.budget.send_buffer:
                    bound_send_buffer(sock, bound)
                self.accepted(sock)

    def _await_answers(self) -> None:
        self._wait(Reason.UNANSWERED)
        self._short_at = monotonic()
        self.window.when_room(partial(self._go_on, Reason.UNANSWERED))

    def _pause(self, code: int) -> None:
        if not self._said:
            self._said = True  # one line until the queue was empty once
            log.error(
                "cannot accept a connection",
                kind=(self._listen, code),
                listen=self._listen,
                error=os.strerror(code),
                retry_in_s=PAUSE,
            )
        self._failed = code
        self._wait(Reason.FAILED)
        self._deadlines.add(PAUSE, self._try_again)

    def _try_again(self) -> None:
        if not self._watching:
            return
        waiting = poll()
        waiting.register(self._fd, POLLIN)
        if not waiting.poll(0):
            self._failed = 0  # another process that has the socket, too, has taken them
        self._go_on(Reason.FAILED)

    def _exceeds(self, descriptor: int) -> bool:
        why = self._excess(self._next() if descriptor < 0 else descriptor)
        if why:
            self._park(why)
        return bool(why)

    def _excess(self, descriptor: int) -> str:
        """Why no more are accepted for now, when a new descriptor has this number; empty: more are."""
        shares = self._pump.descriptors
        shares.used_up = descriptor >= shares.ceiling
        if shares.used_up:
            return "descriptors are nearly used up"
        self._uncounted -= 1
        if self._uncounted > 0:
            return ""
        held, share = self.held(), shares.share(descriptor)
        if held > share:
            return f"its calls hold {held} descriptors, and the rest is for others"
        # A call holds two at most, so this many more cannot make it exceed its share, but for what others take.
        self._uncounted = (share - held) // (2 * (ALPHA + 1))
        return ""

    def _park(self, why: str) -> None:
        """Leave connections in the kernel's queue until there are descriptors for them."""
        self._uncounted, self._why = 0, why
        log.warning("callers wait for descriptors", kind=(self._listen,), listen=self._listen, why=why)
        self._wait(Reason.DESCRIPTORS)
        self._deadlines.add(LOOK_AGAIN, self._unpark)

    def _next(self) -> int:
        """The number of the next descriptor."""
        try:
            free = os.dup(self._fd)
        except OSError:
            return self._pump.descriptors.ceiling
        os.close(free)
        return free

    def _unpark(self) -> None:
        if not self._watching:
            return
        free = self._next()
        if free >= self._pump.descriptors.scarce and self._excess(free):
            self._deadlines.add(LOOK_AGAIN, self._unpark)
        else:
            self._go_on(Reason.DESCRIPTORS)

    def hold(self, hold: bool) -> None:
        """True: leave connections in the kernel's queue. False: accept again."""
        if hold:
            self._wait(Reason.HELD)
        else:
            self._go_on(Reason.HELD)

    def _wait(self, reason: Reason) -> None:
        """Leave connections in the kernel's queue, for this reason too."""
        if self._watching and not self._reasons:
            self._pump.interest(self._fd, 0)
        self._reasons.add(reason)

    def _go_on(self, reason: Reason) -> None:
        """Accept again, unless there is another reason not to."""
        self._reasons.discard(reason)
        if self._watching and not self._reasons:
            self._pump.interest(self._fd, EPOLLIN)

    @property
    def failing(self) -> str:
        """Why this machine cannot accept connections here, at the last try; empty: it can."""
        return os.strerror(self._failed) if self._failed and self._watching else ""

    @property
    def held_back(self) -> str:
        """Why its callers wait longer than others, or did a moment ago; empty: they do not."""
        if why := self.failing:
            return f"cannot accept a connection: {why}"
        if Reason.DESCRIPTORS in self._reasons:
            return self._why
        if self.window.size <= MOST // 8 and monotonic() - self._short_at < RECENT:
            return f"callers close before they are answered: {self.window.size} of their calls at a time"
        return ""

    def stop(self) -> None:
        """Accept no more. Idempotent."""
        if self._watching:
            self._watching = False
            self._pump.release(self._sock)
