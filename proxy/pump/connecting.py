"""Connecting to a local service without ever blocking a turn."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from functools import lru_cache, partial

import trio

from control.base.reading.addresses import Address, TcpAddress, UnixAddress
from proxy.errors import CloseReason
from proxy.pump.backlogs import FullBacklogs
from proxy.pump.deadlines import Deadline, Deadlines
from proxy.pump.lookups import LookUps
from proxy.pump.loop import Pump
from proxy.pump.options import KeepAlive, LocalSocket, bound_send_buffer
from proxy.pump.ourselves import OwnConnections, Source, name_for
from proxy.pump.race import Done, Race
from proxy.pump.resolver import Answer, Resolver, TooMany
from proxy.pump.sourceport import LocalShortage, failure
from proxy.pump.stock import InsideAddress, InsideAttempt, Stocks

_UNIX, _STREAM = int(socket.AF_UNIX), int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class ConnectAttempt:
    """One connection being made. Calls `done` exactly once, unless `cancel` comes first."""

    def __init__(
        self, connector: Connector, address: Address, timeout: float, done: Done, hops: int, sources: Sequence[str]
    ) -> None:
        self.address, self.timeout, self.hops, self.sources = address, timeout, hops, sources
        self._connector = connector
        self._done: Done | None = done
        self._race: Race | InsideAttempt | None = None
        self._deadline: Deadline | None = None

    def start(self) -> None:
        """Begin; may call `done` before it returns."""
        if isinstance(self.address, UnixAddress):
            if (why := self._connector.backlogs.add(self.address.path, self)) is not None:
                return self.finish(CloseReason.OVERLOADED, why)
            self._deadline = self._connector.deadlines.add(self.timeout, self._still_full)
        elif isinstance(self.address, InsideAddress):
            self._race = self._connector.inside(self.address, self.timeout, self.finish_with)
            self._race.start()
        elif _is_literal(self.address.host):
            self._connect(self.address, [self.address.host], self.timeout)
        else:
            self._resolve(self.address)

    def try_again(self) -> bool:
        """Connect to the Unix socket if its backlog has room by now; False: it has none."""
        assert isinstance(self.address, UnixAddress)
        try:
            sock = self._connector.try_unix(self.address.path, self.hops)
        except BlockingIOError:
            return False
        except OSError as error:
            self.finish(*_refusal(error))
        else:
            self.finish(CloseReason.FINISHED, "", sock)
        return True

    def _still_full(self) -> None:
        self.finish(CloseReason.CONNECT_TIMEOUT, f"its backlog was full for {self.timeout:g} s")

    def _resolve(self, address: TcpAddress) -> None:
        latest = trio.current_time() + self.timeout
        self._resolved = partial(self._on_answer, address, latest)
        if self._connector.resolver.ask(address.host, self._resolved):
            self._deadline = self._connector.deadlines.add(self.timeout, self._not_resolved)

    def _not_resolved(self) -> None:
        assert isinstance(self.address, TcpAddress)
        self._connector.resolver.forget(self.address.host, self._resolved)
        self.finish(CloseReason.CONNECT_TIMEOUT, f"{self.address.host} was not resolved in {self.timeout:g} s")

    def _on_answer(self, address: TcpAddress, latest: float, answer: Answer) -> None:
        self._cancel_deadline()
        if isinstance(answer, TooMany):
            self.finish(CloseReason.OVERLOADED, str(answer))
        elif isinstance(answer, OSError):
            self.finish(*_refusal(answer))
        else:
            self._connect(address, answer, max(latest - trio.current_time(), 0.001))

    def _connect(self, address: TcpAddress, hosts: list[str], seconds: float) -> None:
        connector = self._connector
        self._race = Race(
            connector.pump,
            connector.deadlines,
            hosts,
            address.port,
            seconds,
            connector.keep_alive,
            connector.own,
            self.hops,
            self._raced,
            partial(connector.resolver.hold_back, address.host),
            self.sources,
        )
        self._race.start()

    def finish_with(self, sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        """As `finish` (`race.Done`)."""
        self.finish(reason, detail, sock)

    def _raced(self, sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        if reason in (CloseReason.CONNECT_FAILED, CloseReason.CONNECT_TIMEOUT) and isinstance(self.address, TcpAddress):
            self._connector.resolver.doubt(self.address.host)
        self.finish(reason, detail, sock)

    def finish(self, reason: CloseReason, detail: str = "", sock: LocalSocket | None = None) -> None:
        """Call `done`, with the socket if `reason` is FINISHED; after `cancel` the socket is closed instead."""
        done, self._done = self._done, None
        self._cancel_deadline()
        if done is not None:
            if sock is not None:
                self._connector.bound(sock)
            done(sock, reason, detail)
        elif sock is not None:
            sock.close()

    @property
    def source(self) -> Source | None:
        """The near end of the TCP connection that was made. Whoever has it takes it out of `Connector.own` again."""
        return None if self._race is None else self._race.source

    @property
    def pending(self) -> bool:
        """Whether `done` is still to be called."""
        return self._done is not None

    def cancel(self) -> None:
        """Close the sockets if there are any; `done` is not called any more. Idempotent."""
        self._done = None
        if self._deadline is not None and isinstance(self.address, TcpAddress):
            self._connector.resolver.forget(self.address.host, self._resolved)
        self._cancel_deadline()
        if self._race is not None:
            self._race.cancel()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Connector:
    """Makes connections to local services.

    Args:
        lookups: finds the addresses of host names.

    Attributes:
        keep_alive: for the TCP connections that are made from now on.
        own: the TCP connections that there are.
        backlogs: the connections that wait for room in those of Unix sockets.
        stocks: sockets of containers' network namespaces.
    """

    def __init__(
        self,
        pump: Pump,
        deadlines: Deadlines,
        keep_alive: KeepAlive | None = None,
        lookups: LookUps | None = None,
    ) -> None:
        self.pump, self.deadlines, self.keep_alive = pump, deadlines, keep_alive
        self.own = OwnConnections()
        self.lookups = lookups or LookUps()
        self.resolver = Resolver(self.lookups, deadlines, pump.settle)
        self.backlogs = FullBacklogs(deadlines)
        self.stocks = Stocks()

    def bound(self, sock: LocalSocket) -> None:
        """Let the kernel hold no more for a service than the memory of this proxy allows."""
        if bound := self.pump.budget.send_buffer:
            bound_send_buffer(sock, bound)

    def connect(
        self, address: Address, timeout: float, done: Done, hops: int = 0, sources: Sequence[str] = ()
    ) -> ConnectAttempt | None:
        """Connect a non-blocking, prepared socket to `address` within `timeout` seconds and call `done`.

        Returns None if `done` was called already (a Unix socket usually connects at once), else the attempt, which can
        be cancelled.

        Args:
            hops: that the call has passed which it is for (`pump.ourselves`).
            sources: addresses of this host that a TCP connection may come from (`pump.sourceport`); none: any.
        """
        if isinstance(address, UnixAddress) and address.path not in self.backlogs:  # nobody is to be overtaken
            try:
                sock = self.try_unix(address.path, hops)
            except BlockingIOError:
                pass
            except OSError as error:
                done(None, *_refusal(error))
                return None
            else:
                self.bound(sock)
                done(sock, CloseReason.FINISHED, "")
                return None
        attempt = ConnectAttempt(self, address, timeout, done, hops, sources)
        attempt.start()
        return attempt if attempt.pending else None

    def inside(self, address: InsideAddress, timeout: float, done: Done) -> InsideAttempt:
        """A connection to a service inside a container, to be started."""
        return InsideAttempt(self.stocks, self.pump, self.deadlines, address, timeout, self.keep_alive, done)

    @staticmethod
    def try_unix(path: str, hops: int) -> LocalSocket:
        """A non-blocking socket that is connected to a Unix socket, which accepts at once or never. Raises
        BlockingIOError if its backlog is full, OSError if it cannot be, LocalShortage among them.
        """
        sock = None
        try:
            sock = LocalSocket(_UNIX, _STREAM)
            if hops:
                sock.bind(name_for(hops))
            code = sock.connect_ex(path)
        except OSError as error:
            if sock is not None:
                sock.close()
            raise failure(error.errno or 0) from None
        if not code:
            return sock
        sock.close()
        raise BlockingIOError if code == errno.EAGAIN else failure(code)


def _refusal(error: OSError) -> tuple[CloseReason, str]:
    """Close reason and detail of a connection that could not be made."""
    short = isinstance(error, LocalShortage)
    return CloseReason.LOCAL_SHORTAGE if short else CloseReason.CONNECT_FAILED, error.strerror or str(error)


@lru_cache(maxsize=1024)
def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
