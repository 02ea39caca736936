"""Connecting to a local service without ever blocking a turn."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from functools import lru_cache, partial

import trio

from control.base.reading.addresses import Address, TcpAddress, UnixAddress
from proxy.errors import CloseReason
from proxy.pump.deadlines import Deadline, Deadlines
from proxy.pump.lookups import LookUps
from proxy.pump.loop import Pump
from proxy.pump.options import KeepAlive, LocalSocket, bound_send_buffer
from proxy.pump.ourselves import OwnConnections, Source, name_for
from proxy.pump.race import Done, Race
from proxy.pump.resolver import Answer, Resolver, TooMany
from proxy.pump.sourceport import LocalShortage, failure, no_thread

WAITERS = 1024
"""Connections that may wait for room in the backlogs of Unix sockets; more are refused as OVERLOADED."""
WAITER_THREADS = 16
# inlined: socket.AF_UNIX, socket.SOCK_STREAM
_UNIX, _STREAM = int(socket.AF_UNIX), int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class ConnectAttempt:
    """One connection being made. Calls `done` exactly once, unless `cancel` comes first."""

    def __init__(self, connector: Connector, address: Address, timeout: float, done: Done, hops: int) -> None:
        self.address, self.timeout, self.hops = address, timeout, hops
        self._connector = connector
        self._done: Done | None = done
        self._race: Race | None = None
        self._deadline: Deadline | None = None

    def start(self) -> None:
        """Begin; may call `done` before it returns."""
        if isinstance(self.address, UnixAddress):
            self._connector.wait(self)
        elif _is_literal(self.address.host):
            self._connect(self.address, [self.address.host], self.timeout)
        else:
            self._resolve(self.address)

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
        )
        self._race.start()

    def _raced(self, sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        if reason in (CloseReason.CONNECT_FAILED, CloseReason.CONNECT_TIMEOUT) and isinstance(self.address, TcpAddress):
            self._connector.resolver.doubt(self.address.host)
        self.finish(reason, detail, sock)

    def finish(self, reason: CloseReason, detail: str = "", sock: LocalSocket | None = None) -> None:
        """Call `done`, with the socket if `reason` is FINISHED; after `cancel` the socket is closed instead."""
        done, self._done = self._done, None
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

    A Unix socket whose backlog is full answers EAGAIN, and epoll cannot tell when it has room again: only a blocking
    connect waits for that. Such connects block in worker threads, with SO_SNDTIMEO as their timeout (unix(7),
    socket(7)).

    Args:
        lookups: finds the addresses of host names.

    Attributes:
        keep_alive: for the TCP connections that are made from now on.
        own: the TCP connections that there are.
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
        self._threads = trio.CapacityLimiter(WAITER_THREADS)
        self._waiting = 0
        self._send, self._receive = trio.open_memory_channel[ConnectAttempt](WAITERS)

    def at_once(self, path: bytes) -> LocalSocket | None:
        """Connect to a Unix socket, which usually succeeds at once. Returns a non-blocking socket; None if it did not
        succeed: `connect` then says why, or waits.
        """
        # inlined: Connector.connect, Connector.bound
        try:
            sock = LocalSocket(_UNIX, _STREAM)
            if not sock.connect_ex(path):
                if bound := self.pump.budget.send_buffer:
                    bound_send_buffer(sock, bound)
                return sock
        except OSError:
            return None
        sock.close()
        return None

    def bound(self, sock: LocalSocket) -> None:
        """Let the kernel hold no more for a service than the memory of this proxy allows."""
        if bound := self.pump.budget.send_buffer:
            bound_send_buffer(sock, bound)

    def connect(self, address: Address, timeout: float, done: Done, hops: int = 0) -> ConnectAttempt | None:
        """Connect a non-blocking, prepared socket to `address` within `timeout` seconds and call `done`.

        Returns None if `done` was called already (a Unix socket usually connects at once), else the attempt, which can
        be cancelled.

        Args:
            hops: that the call has passed which it is for (`pump.ourselves`).
        """
        if isinstance(address, UnixAddress):
            try:
                sock = LocalSocket(_UNIX, _STREAM)
                if hops:
                    sock.bind(name_for(hops))
                code = sock.connect_ex(address.path)
            except OSError as error:
                done(None, *_refusal(failure(error.errno or 0)))
                return None
            if not code:
                self.bound(sock)
                done(sock, CloseReason.FINISHED, "")
                return None
            sock.close()
            if code != errno.EAGAIN:
                done(None, *_refusal(failure(code)))
                return None
        attempt = ConnectAttempt(self, address, timeout, done, hops)
        attempt.start()
        return attempt if attempt.pending else None

    def wait(self, attempt: ConnectAttempt) -> None:
        """Hand over to `run` what needs a thread: waiting for room in a backlog."""
        if self._waiting >= WAITERS:
            return attempt.finish(CloseReason.OVERLOADED, f"{WAITERS} connections are waiting already")
        self._waiting += 1
        self._send.send_nowait(attempt)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the attempts that need a thread, until cancelled. Threads that are still connecting then end by
        themselves within their timeout.
        """
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for attempt in self._receive:
                nursery.start_soon(self._wait, attempt)

    async def _wait(self, attempt: ConnectAttempt) -> None:
        try:
            assert isinstance(attempt.address, UnixAddress)
            sock = await self._wait_for_backlog(attempt.address.path, attempt.timeout, attempt.hops)
        except TimeoutError as error:
            attempt.finish(CloseReason.CONNECT_TIMEOUT, str(error))
        except LocalShortage as error:
            attempt.finish(*_refusal(error))
        except OSError as error:
            attempt.finish(*_refusal(failure(error.errno or 0)))
        else:
            attempt.finish(CloseReason.FINISHED, "", sock)
        finally:
            self._waiting -= 1
        self.pump.settle()

    async def _wait_for_backlog(self, path: str, seconds: float, hops: int) -> LocalSocket:
        try:
            with trio.fail_after(seconds):  # includes the wait for a free thread
                return await trio.to_thread.run_sync(
                    _connect_blocking, path, seconds, hops, limiter=self._threads, abandon_on_cancel=True
                )
        except (BlockingIOError, trio.TooSlowError):
            raise TimeoutError(f"its backlog was full for {seconds:g} s") from None
        except RuntimeError:
            raise no_thread() from None


def _refusal(error: OSError) -> tuple[CloseReason, str]:
    """Close reason and detail of a connection that could not be made."""
    short = isinstance(error, LocalShortage)
    return CloseReason.LOCAL_SHORTAGE if short else CloseReason.CONNECT_FAILED, error.strerror or str(error)


def _connect_blocking(path: str, seconds: float, hops: int) -> LocalSocket:
    """Connect to a Unix socket, blocking while its backlog is full; runs in a thread. Returns a non-blocking socket.
    Raises OSError, which is BlockingIOError after `seconds` seconds.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if hops:
            sock.bind(name_for(hops))
        whole = int(seconds)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, int((seconds - whole) * 1e6)))
        sock.connect(path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


@lru_cache(maxsize=1024)
def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
