"""Accepting local connections in a turn of the loop: a burst at most. When none is accepted for now, and for how long,
`proxy.pump.listener` says.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from math import inf

from control.base.system.accepting import OF_CLIENT
from proxy.core.syscalls import accept, now
from proxy.pump.descriptor import Descriptor, owner_of
from proxy.pump.loop import Pump
from proxy.pump.openings import OpeningWindow
from proxy.pump.options import LocalSocket

_NOBODY = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINVAL})
"""The queue is empty. EINVAL: and it is shut down (`BoundUnixSocket.refuse`)."""


class Accepting:
    """Accepts from the listening, non-blocking socket `fd`.

    Attributes:
        accepted: called with who owns each new, non-blocking connection; it owns that from then on.
        window: bounds how many are under way without an answer.
        _failed: what accept(2) has said of this machine since it last worked, an errno; _said: whether that is logged.
        _short_at: when as many had come as may at a time, seconds (monotonic).
    """

    def __init__(
        self, pump: Pump, fd: int, accepted: Callable[[LocalSocket | Descriptor], None], window: OpeningWindow
    ) -> None:
        self._pump, self._fd = pump, fd
        self.accepted, self.window = accepted, window
        self._failed, self._said = 0, False
        self._short_at = -inf

    def ready(self, mask: int) -> None:
        """Connections are waiting (Watcher)."""
        accepted, pump = self.accepted, self._pump
        bound, scarce, window = pump.budget.send_buffer, pump.descriptors.scarce, self.window
        if pump.descriptors.used_up and self._exceeds(-1):
            return
        for _ in range(window.burst):
            if window.is_full():
                return self._await_answers()
            fd = self._accept()
            if fd >= 0:
                self._failed = 0
                accepted(owner_of(fd, bound))
                pump.slow_left -= 1
                if not pump.slow_left:
                    pump.send_first()
                if fd >= scarce and self._exceeds(fd):
                    return
            elif -fd in _NOBODY:
                self._failed, self._said = 0, False
                return
            elif -fd not in OF_CLIENT:
                return self._pause(-fd)
        self._short_at = now()

    def _accept(self) -> int:
        """As `syscalls.accept`."""
        return accept(self._fd)

    def _exceeds(self, descriptor: int) -> bool:
        """Whether no more are accepted for now, as a new descriptor has this number, or the next one has its (-1)."""
        raise NotImplementedError

    def _await_answers(self) -> None:
        """Accept no more until the window has room."""
        raise NotImplementedError

    def _pause(self, code: int) -> None:
        """Accept no more for a while, as this machine cannot (an errno)."""
        raise NotImplementedError
