"""Telling systemd where this process stands (sd_notify(3)): a datagram to the socket that it names, if it names one.

systemd reads that socket when it comes to it, and a full one takes nothing. What is said again and again anyway
(`notify`: the watchdog's word) is lost then. What is said once (`Notices`) waits, in its order, until it is taken:
systemd would end the proxy that has taken over, say, if it did not learn that it is the one.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import time

import structlog
import trio

log = structlog.get_logger()

VARIABLE = "NOTIFY_SOCKET"
PAUSE = 0.1
"""Seconds between two attempts to say what waits."""
MOST = 32
"""Words that wait: more than a start, a takeover and some reloads have. Beyond, the oldest is lost."""
LAST_WORDS = 5.0
"""Seconds that the end of the process waits for its last words to be taken."""


def notify(state: str, *descriptors: int) -> bool:
    """Send a state, such as ``READY=1``, lines separated by newlines, and duplicates of descriptors. Returns whether it
    was sent. Never raises: a supervisor that does not listen is no reason to end.
    """
    return _send(state, descriptors) is None


class Notices:
    """Says what is said once. `run` says what had to wait."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._news = trio.Event()

    def tell(self, state: str) -> None:
        """As `notify`, at once if nothing waits and the socket has room."""
        if self._waiting or not self._said(state):
            if len(self._waiting) == MOST:
                log.warning("systemd was not told", kind=(), state=self._waiting.pop(0))
            self._waiting.append(state)
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self._say()

    async def finish(self) -> None:
        """The process is about to end: return when everything is said, at the latest after `LAST_WORDS` seconds."""
        with trio.move_on_after(LAST_WORDS):
            await self._say()

    async def _say(self) -> None:
        while self._waiting:
            if self._said(self._waiting[0]):
                del self._waiting[0]
            else:
                await trio.sleep(PAUSE)

    @staticmethod
    def _said(state: str) -> bool:
        """Whether it is said, or never will be."""
        return _send(state, ()) != errno.EAGAIN


def _send(state: str, descriptors: tuple[int, ...]) -> int | None:
    """None: it is sent; otherwise what was in the way, which is logged."""
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return errno.EDESTADDRREQ
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    # @: the abstract name space, where a name begins with a zero byte.
    target = "\0" + address[1:] if address[0] == "@" else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.sendmsg([state.encode()], rights, 0, target)
    except OSError as error:
        log.warning("cannot tell systemd", kind=(), socket=address, error=error.strerror)
        return error.errno or errno.EIO
    return None


def reloading() -> str:
    """The state "reloading", for a unit of Type=notify-reload, which wants to know when it began (CLOCK_MONOTONIC)."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def stopping(seconds: float) -> str:
    """The state "stopping", which may take so many seconds (whatever TimeoutStopSec says)."""
    return f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((seconds + GRACE) * 1e6)}"


GRACE = 5.0
"""Seconds for what comes behind a drain: closing thousands of sockets takes a fraction of one."""
