"""What a link reads and writes through, where that is not its socket itself."""

from __future__ import annotations

from typing import Protocol


class Wire(Protocol):
    """TLS around a link's socket. It raises OSError as a non-blocking socket does."""

    def recv_into(self, view: memoryview, /) -> int:
        """Receive into `view`; returns how many bytes, 0 at the end. Must not hold bytes back unless the socket stays
        readable: the epoll watches nothing else.
        """

    def send(self, view: memoryview, /) -> int:
        """Send from `view`; returns how many bytes were taken. Fewer than all: wait until the socket is writable."""
