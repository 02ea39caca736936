"""One TCP connection to whichever of several addresses accepts it first (RFC 8305, "Happy Eyeballs", section 5).

The addresses are tried one after the other: the next one when the last has failed, or has been silent for DELAY; the
silent ones are not given up meanwhile. Where the time is short the delay is each address's equal share of it, so that
all are tried.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from select import EPOLLOUT

from proxy.errors import CloseReason
from proxy.pump.deadlines import Deadline, Deadlines
from proxy.pump.loop import Pump
from proxy.pump.options import KeepAlive, LocalSocket
from proxy.pump.ourselves import OwnConnections, Source
from proxy.pump.sourceport import LocalShortage, failure, met_itself, start

DELAY = 0.25
"""Seconds until the next address is tried beside a silent one (RFC 8305, section 8: 250 ms)."""
MOST_ADDRESSES = 16
"""Addresses that one connection tries, and so descriptors that it may have for a moment."""

Done = Callable[[LocalSocket | None, CloseReason, str], None]
"""Called once with the connected socket, or with None, the close reason and a detail for the log."""


class Runner:
    """The connection to one of the addresses."""

    __slots__ = ("_race", "host", "sock", "source")

    def __init__(self, race: Race, host: str, sock: LocalSocket, source: Source) -> None:
        self._race, self.host, self.sock, self.source = race, host, sock, source

    def ready(self, mask: int) -> None:
        """The connection is made, or has failed (Watcher)."""
        self._race.arrived(self, self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def crashed(self) -> None:
        """An unexpected exception was raised and logged: fail (Watcher)."""
        self._race.crashed()

    def abandoned(self) -> None:
        """Never called: whoever asked for the connection cancels it before the pump ends (Watcher)."""


class Race:
    """Owns the sockets until `done` gets the winner; closes all others, and all if it fails or is cancelled.

    Args:
        hosts: one or more IP addresses, best first.
        seconds: for all of them together.
        settings: for the sockets.
        own: where the connections are entered; whoever gets the winner drops it there (`source`).
        hops: that the call has passed.
        lost: called with each address that failed, or was silent until another one won or the time was over.
        sources: addresses of this host that the connection may come from; none: any.
    """

    def __init__(
        self,
        pump: Pump,
        deadlines: Deadlines,
        hosts: list[str],
        port: int,
        seconds: float,
        settings: KeepAlive | None,
        own: OwnConnections,
        hops: int,
        done: Done,
        lost: Callable[[str], None],
        sources: Sequence[str] = (),
    ) -> None:
        self._pump, self._deadlines = pump, deadlines
        self._untried, self._port, self._settings = hosts[:MOST_ADDRESSES], port, settings
        self._own, self._hops, self._sources = own, hops, sources
        self.source: Source | None = None
        self._many = len(hosts) > 1
        self._seconds = seconds
        self._delay = min(DELAY, seconds / len(self._untried))
        self._done: Done | None = done
        self._lost = lost
        self._runners: dict[Runner, None] = {}
        self._failures: list[tuple[str, OSError]] = []
        self._end: Deadline | None = None
        self._turn: Deadline | None = None

    def start(self) -> None:
        """Begin; may call `done` before it returns."""
        self._end = self._deadlines.add(self._seconds, self._expire)
        self._next()

    def _next(self) -> None:
        """Begin with the next address, or if that fails at once, with the one after it."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        while self._untried:
            host = self._untried.pop(0)
            try:
                sock = start(host, self._port, self._settings, self._sources)
            except OSError as error:
                self._note(host, error)
                continue
            runner = Runner(self, host, sock, self._own.add(sock, self._hops))
            self._runners[runner] = None
            self._pump.watch(sock.fileno(), runner, EPOLLOUT)
            if self._untried:
                self._turn = self._deadlines.add(self._delay, self._next)
            return
        if not self._runners:
            self._fail()

    def arrived(self, runner: Runner, code: int) -> None:
        """A runner's connection is made (0), or has failed with this error number."""
        del self._runners[runner]
        if not code and not met_itself(runner.sock):
            self._pump.release(runner.sock)
            for slower in self._runners:
                self._lost(slower.host)
            self.source = runner.source
            return self._finish(runner.sock, CloseReason.FINISHED, "")
        self._close(runner)
        refused = OSError(errno.ECONNREFUSED, "nobody listens: the connection had met itself")
        self._note(runner.host, failure(code) if code else refused)
        self._next()

    def _note(self, host: str, error: OSError) -> None:
        self._failures.append((host, error))
        if not isinstance(error, LocalShortage):
            self._lost(host)

    def _fail(self) -> None:
        """No address is left. The service is to blame if one of them said so."""
        short = all(isinstance(error, LocalShortage) for _, error in self._failures)
        self._finish(None, CloseReason.LOCAL_SHORTAGE if short else CloseReason.CONNECT_FAILED, self._said())

    def _expire(self) -> None:
        for runner in self._runners:
            self._lost(runner.host)
        silent = f"no answer in {self._seconds:g} s"
        if self._many:
            silent += f" from {', '.join(runner.host for runner in self._runners)}"
        detail = "; ".join(filter(None, (silent, self._said())))
        self._finish(None, CloseReason.CONNECT_TIMEOUT, detail)

    def _said(self) -> str:
        if not self._many:
            return "".join(error.strerror or str(error) for _, error in self._failures)
        return "; ".join(f"{host}: {error.strerror or error}" for host, error in self._failures)

    def crashed(self) -> None:
        """One of the runners has a bug."""
        self._finish(None, CloseReason.CONNECT_FAILED, "internal error")

    def cancel(self) -> None:
        """Close the sockets; `done` is not called any more. Idempotent."""
        self._done = None
        self._stop()

    def _finish(self, sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        done, self._done = self._done, None
        self._stop()
        if done is not None:
            done(sock, reason, detail)
        elif sock is not None:
            self._own.drop(self.source)
            sock.close()

    def _stop(self) -> None:
        self._untried = []
        for deadline in (self._end, self._turn):
            if deadline is not None:
                deadline.cancel()
        self._end = self._turn = None
        runners, self._runners = self._runners, {}
        for runner in runners:
            self._close(runner)

    def _close(self, runner: Runner) -> None:
        self._own.drop(runner.source)
        self._pump.close(runner.sock)
