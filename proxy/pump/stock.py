"""Connecting to services inside containers: by sockets that the door has made in their network namespaces, ahead of
time, so that a new stream waits for nobody.

A stock is refilled when half of it is used. Where it runs out, in a burst, connections wait for the next sockets as
long as they may for the service.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from select import EPOLLOUT
from typing import Protocol

from control.base.reading.addresses import TcpAddress
from proxy.errors import CloseReason
from proxy.pump.deadlines import Deadline, Deadlines
from proxy.pump.loop import Pump
from proxy.pump.options import KeepAlive, LocalSocket, keep_alive, prepare_local
from proxy.pump.race import Done
from proxy.pump.sourceport import failure, met_itself

__all__ = ["InsideAddress", "InsideAttempt", "Stocks"]

SIZE = 64
"""Sockets that a stock has at most. Each costs the door 9 µs; a burst of connections beyond them waits for the door."""
ENDED = "the container has ended"


class InsideAddress(TcpAddress, frozen=True, tag="inside"):
    """A TCP socket inside a container's network namespace; `namespace` is that one's SO_NETNS_COOKIE."""

    namespace: int
    container: str

    def __str__(self) -> str:
        return f"tcp:{self.hostport} in {self.container}"


class Waiter(Protocol):
    """Who wants a socket of a stock."""

    def stocked(self, sock: LocalSocket) -> None:
        """Here it is, and the waiter's own."""

    def failed(self, reason: CloseReason, detail: str) -> None:
        """There will be none."""


class Stock:
    """The sockets of one namespace and family."""

    def __init__(self, ask: Callable[[int], None]) -> None:
        self.sockets: list[LocalSocket] = []
        self.waiting: deque[Waiter] = deque()
        self._ask, self._asked = ask, False

    def refill(self) -> None:
        """Ask for what is missing, if that is half or more, and nothing is on its way."""
        wanted = min(SIZE, max(SIZE - len(self.sockets), len(self.waiting)))
        if not self._asked and len(self.sockets) <= SIZE // 2:
            self._asked = True
            self._ask(wanted)

    def add(self, sockets: Iterable[LocalSocket]) -> None:
        """What was asked for has come, or the door has gone without an answer."""
        self._asked = False
        self.sockets += sockets
        while self.sockets and self.waiting:
            self.waiting.popleft().stocked(self.sockets.pop())

    def close(self) -> None:
        """Close the sockets, and fail who waits."""
        for sock in self.sockets:
            sock.close()
        waiting, self.waiting, self.sockets = self.waiting, deque(), []
        for waiter in waiting:
            waiter.failed(CloseReason.CONNECT_FAILED, ENDED)


class Stocks:
    """All stocks of this proxy. Owns their sockets, and the connections that are being made with them.

    Attributes:
        ask: asks the door for so many sockets of a namespace and family (4 or 6).
    """

    def __init__(self) -> None:
        self._stocks: dict[tuple[int, int], Stock] = {}
        self.under_way: dict[InsideAttempt, None] = {}
        self.ask: Callable[[int, int, int], None] = lambda namespace, family, count: None

    def open(self, address: InsideAddress) -> None:
        """Have a stock for this address. Idempotent; asks again for what the door has not answered."""
        self._of(address).refill()

    def _of(self, address: InsideAddress) -> Stock:
        namespace, family = address.namespace, 6 if ":" in address.host else 4
        stock = self._stocks.get((namespace, family))
        if stock is None:
            stock = Stock(lambda count: self.ask(namespace, family, count))
            self._stocks[namespace, family] = stock
        return stock

    def take(self, address: InsideAddress, waiter: Waiter) -> None:
        """Give the waiter a socket, now or when there is one again."""
        stock = self._stocks.get((address.namespace, 6 if ":" in address.host else 4))
        if stock is None:
            return waiter.failed(CloseReason.CONNECT_FAILED, ENDED)
        if stock.sockets:
            waiter.stocked(stock.sockets.pop())
        else:
            stock.waiting.append(waiter)
        stock.refill()

    def leave(self, address: InsideAddress, waiter: Waiter) -> None:
        """The waiter waits no more. Idempotent."""
        stock = self._stocks.get((address.namespace, 6 if ":" in address.host else 4))
        if stock is not None and waiter in stock.waiting:
            stock.waiting.remove(waiter)

    def add(self, namespace: int, family: int, sockets: list[LocalSocket]) -> None:
        """Sockets have come from the door. They are closed if nobody wants any of that namespace by now."""
        stock = self._stocks.get((namespace, family))
        if stock is None:
            for sock in sockets:
                sock.close()
        else:
            stock.add(sockets)
            if sockets:
                stock.refill()

    def unanswered(self) -> None:
        """The door has gone: what was asked for will not come."""
        for stock in self._stocks.values():
            stock.add(())

    def close(self, namespace: int) -> None:
        """The container has ended: close everything that is not connected yet. Idempotent."""
        for key in [key for key in self._stocks if key[0] == namespace]:
            self._stocks.pop(key).close()
        for attempt in [attempt for attempt in self.under_way if attempt.address.namespace == namespace]:
            attempt.failed(CloseReason.CONNECT_FAILED, ENDED)

    def keep(self, namespaces: set[int]) -> None:
        """Close those of all other namespaces."""
        for namespace in {key[0] for key in self._stocks} - namespaces:
            self.close(namespace)

    def close_all(self) -> None:
        """As `close`, for all."""
        for namespace in {key[0] for key in self._stocks}:
            self.close(namespace)


class InsideAttempt:
    """One connection to a service inside a container: the part of `race.Race` for one address and a given socket. Calls
    `done` once, unless `cancel` comes first; the winner is the caller's.
    """

    source = None
    """It comes from no address of this host (`race.Race.source`)."""

    def __init__(
        self,
        stocks: Stocks,
        pump: Pump,
        deadlines: Deadlines,
        address: InsideAddress,
        seconds: float,
        settings: KeepAlive | None,
        done: Done,
    ) -> None:
        self.address = address
        self._stocks, self._pump, self._deadlines = stocks, pump, deadlines
        self._seconds, self._settings = seconds, settings
        self._done: Done | None = done
        self._sock: LocalSocket | None = None
        self._end: Deadline | None = None

    def start(self) -> None:
        """Begin; may call `done` before it returns."""
        self._end = self._deadlines.add(self._seconds, self._expire)
        self._stocks.under_way[self] = None
        self._stocks.take(self.address, self)

    def stocked(self, sock: LocalSocket) -> None:
        """Connect it (Waiter)."""
        self._sock = sock
        prepare_local(sock)
        keep_alive(sock, self._settings)
        self._pump.watch(sock.fileno(), self, EPOLLOUT)
        code = sock.connect_ex((self.address.host, self.address.port))
        if code not in (0, errno.EINPROGRESS):
            self.failed(CloseReason.CONNECT_FAILED, os.strerror(code))

    def ready(self, mask: int) -> None:
        """The connection is made, or has failed (Watcher)."""
        sock = self._sock
        assert sock is not None
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code or met_itself(sock):
            return self.failed(CloseReason.CONNECT_FAILED, str(failure(code or errno.ECONNREFUSED).strerror))
        self._pump.release(sock)
        done, self._done, self._sock = self._done, None, None
        self._stop()
        if done is not None:
            done(sock, CloseReason.FINISHED, "")

    def failed(self, reason: CloseReason, detail: str) -> None:
        """There is no connection (Waiter)."""
        done, self._done = self._done, None
        self._stop()
        if done is not None:
            done(None, reason, detail)

    def _expire(self) -> None:
        waits = "no socket of the container could be had" if self._sock is None else "no answer"
        self.failed(CloseReason.CONNECT_TIMEOUT, f"{waits} in {self._seconds:g} s")

    def crashed(self) -> None:
        """An unexpected exception was raised and logged: fail (Watcher)."""
        self.failed(CloseReason.CONNECT_FAILED, "internal error")

    def abandoned(self) -> None:
        """Never called: whoever asked for the connection cancels it before the pump ends (Watcher)."""

    def cancel(self) -> None:
        """Close the socket; `done` is not called any more. Idempotent."""
        self._done = None
        self._stop()

    def _stop(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        self._stocks.under_way.pop(self, None)
        self._stocks.leave(self.address, self)
        sock, self._sock = self._sock, None
        if sock is not None:
            self._pump.close(sock)
