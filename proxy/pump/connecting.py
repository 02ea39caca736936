"""Connecting to a local service without ever blocking a turn."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable
from select import EPOLLOUT

import trio

from control.base.reading.addresses import Address, TcpAddress, UnixAddress
from proxy.errors import CloseReason
from proxy.pump.deadlines import Deadline, Deadlines
from proxy.pump.loop import Pump
from proxy.pump.options import LocalSocket, prepare_local

WAITERS = 1024
"""Connections that may wait for room in the backlogs of Unix sockets, or for a name to be resolved; more are refused
as OVERLOADED."""
WAITER_THREADS = 16
# inlined: socket.AF_UNIX, socket.SOCK_STREAM
_UNIX, _STREAM = int(socket.AF_UNIX), int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

Done = Callable[[LocalSocket | None, CloseReason, str], None]
"""Called once with the connected socket, or with None, the close reason and a detail for the log."""


class ConnectAttempt:
    """One connection being made. Calls `done` exactly once, unless `cancel` comes first."""

    def __init__(self, connector: Connector, address: Address, timeout: float, done: Done) -> None:
        self.address, self.timeout = address, timeout
        self._connector = connector
        self._done: Done | None = done
        self._sock: LocalSocket | None = None
        self._deadline: Deadline | None = None
        self._untried: list[TcpAddress] = []

    def start(self) -> None:
        """Begin; may call `done` before it returns."""
        if isinstance(self.address, UnixAddress) or not _is_literal(self.address.host):
            self._connector.wait(self)
        else:
            self._connect(self.address)

    def resolved(self, addresses: list[TcpAddress]) -> None:
        """The host name has these addresses: try one after the other."""
        if self._done is not None:
            self._untried = addresses[1:]
            self._connect(addresses[0])

    def _connect(self, address: TcpAddress) -> None:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            sock = self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            prepare_local(sock)
            code = sock.connect_ex((address.host, address.port))
        except OSError as error:
            return self.finish(CloseReason.CONNECT_FAILED, error.strerror or str(error))
        if code == errno.EINPROGRESS:
            self._connector.pump.watch(sock.fileno(), self, EPOLLOUT)
            self._deadline = self._connector.deadlines.add(self.timeout, self._expire)
        else:
            self._connected(code)

    def _connected(self, code: int) -> None:
        if not code:
            self.finish()
        elif self._untried:
            self._give_up_socket()
            self._connect(self._untried.pop(0))
        else:
            self.finish(CloseReason.CONNECT_FAILED, os.strerror(code))

    def ready(self, mask: int) -> None:
        """The connection is made, or has failed (Watcher)."""
        assert self._sock is not None
        self._unwatch()
        self._connected(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def crashed(self) -> None:
        """An unexpected exception was raised and logged: fail (Watcher)."""
        self._unwatch()
        self.finish(CloseReason.CONNECT_FAILED, "internal error")

    def abandoned(self) -> None:
        """Never called: whoever asked for the connection cancels it before the pump ends (Watcher)."""

    def _unwatch(self) -> None:
        """Take the socket out of the pump if it is there, which it is as long as there is a deadline."""
        if self._deadline is not None and self._sock is not None:
            self._deadline.cancel()
            self._deadline = None
            self._connector.pump.release(self._sock)

    def _expire(self) -> None:
        self._unwatch()
        self.finish(CloseReason.CONNECT_TIMEOUT, f"no answer in {self.timeout:g} s")

    def _give_up_socket(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def replace(self, sock: LocalSocket) -> None:
        """Finish with a socket that a worker thread has connected."""
        self._give_up_socket()
        self._sock = sock
        self.finish()

    def finish(self, reason: CloseReason = CloseReason.FINISHED, detail: str = "") -> None:
        """Call `done` with the socket, or with None if `reason` is not FINISHED; the socket is closed then, as it is
        after `cancel`.
        """
        done, self._done = self._done, None
        if done is None or reason is not CloseReason.FINISHED:
            self._give_up_socket()
        sock, self._sock = self._sock, None
        if done is not None:
            done(sock, reason, detail)

    @property
    def pending(self) -> bool:
        """Whether `done` is still to be called."""
        return self._done is not None

    def cancel(self) -> None:
        """Close the socket if there is one; `done` is not called any more. Idempotent."""
        self._unwatch()
        self._done = None
        self._give_up_socket()


class Connector:
    """Makes connections to local services.

    A Unix socket whose backlog is full answers EAGAIN, and epoll cannot tell when it has room again: only a blocking
    connect waits for that. Such connects block in worker threads, with SO_SNDTIMEO as their timeout (unix(7),
    socket(7)).
    """

    def __init__(self, pump: Pump, deadlines: Deadlines) -> None:
        self.pump, self.deadlines = pump, deadlines
        self._threads = trio.CapacityLimiter(WAITER_THREADS)
        self._waiting = 0
        self._send, self._receive = trio.open_memory_channel[ConnectAttempt](WAITERS)

    def at_once(self, path: bytes) -> LocalSocket | None:
        """Connect to a Unix socket, which usually succeeds at once. Returns a non-blocking socket; None if it did not
        succeed: `connect` then says why, or waits.
        """
        # inlined: Connector.connect
        try:
            sock = LocalSocket(_UNIX, _STREAM)
            if not sock.connect_ex(path):
                return sock
        except OSError:
            return None
        sock.close()
        return None

    def connect(self, address: Address, timeout: float, done: Done) -> ConnectAttempt | None:
        """Connect a non-blocking, prepared socket to `address` within `timeout` seconds and call `done`.

        Returns None if `done` was called already (a Unix socket usually connects at once), else the attempt, which can
        be cancelled.
        """
        if isinstance(address, UnixAddress):
            try:
                sock = LocalSocket(_UNIX, _STREAM)
                code = sock.connect_ex(address.path)
            except OSError as error:
                done(None, CloseReason.CONNECT_FAILED, error.strerror or str(error))
                return None
            if not code:
                done(sock, CloseReason.FINISHED, "")
                return None
            sock.close()
            if code != errno.EAGAIN:
                done(None, CloseReason.CONNECT_FAILED, os.strerror(code))
                return None
        attempt = ConnectAttempt(self, address, timeout, done)
        attempt.start()
        return attempt if attempt.pending else None

    def wait(self, attempt: ConnectAttempt) -> None:
        """Hand over to `run` what needs a thread: waiting for room in a backlog, resolving a host name."""
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
            if isinstance(attempt.address, UnixAddress):
                attempt.replace(await self._wait_for_backlog(attempt.address.path, attempt.timeout))
            else:
                attempt.resolved(await _resolve(attempt.address, attempt.timeout))
        except TimeoutError as error:
            attempt.finish(CloseReason.CONNECT_TIMEOUT, str(error))
        except OSError as error:
            attempt.finish(CloseReason.CONNECT_FAILED, error.strerror or str(error))
        finally:
            self._waiting -= 1
        self.pump.settle()

    async def _wait_for_backlog(self, path: str, seconds: float) -> LocalSocket:
        try:
            with trio.fail_after(seconds):  # includes the wait for a free thread
                return await trio.to_thread.run_sync(
                    _connect_blocking, path, seconds, limiter=self._threads, abandon_on_cancel=True
                )
        except (BlockingIOError, trio.TooSlowError):
            raise TimeoutError(f"its backlog was full for {seconds:g} s") from None


async def _resolve(address: TcpAddress, seconds: float) -> list[TcpAddress]:
    """The addresses of a host name. Raises OSError, and TimeoutError after `seconds` seconds."""
    with trio.move_on_after(seconds):
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return [TcpAddress(str(sockaddr[0]), address.port) for *_rest, sockaddr in found]
    raise TimeoutError(f"{address.host} was not resolved in {seconds:g} s")


def _connect_blocking(path: str, seconds: float) -> LocalSocket:
    """Connect to a Unix socket, blocking while its backlog is full; runs in a thread. Returns a non-blocking socket.
    Raises OSError, which is BlockingIOError after `seconds` seconds.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        whole = int(seconds)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, int((seconds - whole) * 1e6)))
        sock.connect(path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
