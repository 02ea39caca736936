"""The CONNECT socket: callers name the service that they want in the head of an HTTP request (docs/connect.md).

The pump accepts, as it does for upstreams. A task reads the head, in bounds: `MAX_HEAD` bytes, `PATIENCE` seconds,
`opening.MOST` callers at a time; those beyond wait in the kernel's queue. Then the call is like any other, and
the pump moves its bytes (`connectcall`).
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog
import trio

from proxy.config.schema import ConnectConfig
from proxy.errors import CloseReason
from proxy.mux.frames import UNKNOWN_UID, Open
from proxy.outbound.call import Call
from proxy.outbound.calls import CallContext
from proxy.outbound.connectcall import ConnectCall
from proxy.outbound.connecthead import BadHead, ConnectHead, ConnectRequest
from proxy.pump.descriptor import Descriptor, socket_of
from proxy.pump.opening import MOST
from proxy.pump.openings import Batch, OpeningWindow, UnderWay
from proxy.pump.options import OURSELVES, LocalSocket, disarm_reset, peer_uid
from proxy.pump.ourselves import via_unix

log = structlog.get_logger()

PATIENCE = 5.0
"""Seconds that a caller has for the head of its request."""
CROWD, IN_A_CROWD = MOST // 4, 0.5
"""While so many heads are not whole yet, a new one has so many seconds: those who dawdle must not keep others out."""
READ_BYTES = 4096
LINGER, LINGER_BYTES, LINGERERS = 1.0, 64 << 10, 256
"""Seconds that a caller that was refused may go on sending, and bytes; and how many may: a close with bytes unread
would be a reset, and the answer might be lost with it."""


class Heads:
    """What carries heads that are being read (`opening.Asked`): it takes no time, and is in nobody's way."""

    way = 1

    def ask(self, told: Callable[[], None]) -> None:
        """Nothing is handled before it is over: each head leaves the window by itself."""


class Refused(Exception):
    """A call does not begin, for this close reason."""

    def __init__(self, service: str, reason: CloseReason, why: str) -> None:
        super().__init__(why)
        self.service, self.reason = service, reason


class ConnectCaller:
    """A caller whose head is being read.

    Attributes:
        batch: those in whose window it is, until it leaves.
        sock: its socket, until somebody else has it; None: a call has, or it was refused.
        head: what has come of its request.
        begun: whether a call has it.
        received: bytes that have come.
        scope: cancelled when the caller is given up.
    """

    def __init__(self, sock: LocalSocket, batch: Batch) -> None:
        self.sock: LocalSocket | None = sock
        self.batch = batch
        self.head = ConnectHead()
        self.begun, self.received = False, 0
        self.scope = trio.CancelScope()


class ConnectSocket:
    """Takes the callers that `accept` is given, as long as `run` runs.

    Attributes:
        config: where it listens, and what it leads to; None: there is no such socket, and nobody is accepted.
        window: of the callers whose heads are being read.
        open: connections from here: those callers, and their calls that go on.
        callers: whose heads are being read.
    """

    def __init__(self, context: CallContext[Call], config: ConnectConfig | None) -> None:
        self._context, self.config = context, config
        self._heads = UnderWay(Heads())
        self.window = OpeningWindow()
        self.open = 0
        self.callers: dict[ConnectCaller, None] = {}
        self._running = False
        self._parting: dict[LocalSocket, None] = {}
        self._give, self._coming = trio.open_memory_channel[Callable[[], Awaitable[None]]](math.inf)

    @property
    def listen(self) -> str:
        """Where it listens, for logs."""
        return "" if self.config is None else str(self.config.listen)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read heads until cancelled; callers whose call has not begun by then are closed."""
        try:
            async with trio.open_nursery() as nursery:
                self._running = True
                task_status.started()
                async for work in self._coming:
                    nursery.start_soon(work)
        finally:
            self._running = False
            for caller in list(self.callers):
                self._leave(caller, CloseReason.STOPPED)
            for sock in self._parting:
                sock.close()
            self._parting.clear()

    def accept(self, owner: LocalSocket | Descriptor) -> None:
        """Take over a caller's connection."""
        caller = ConnectCaller(socket_of(owner), self.window.add(self._heads))
        self.callers[caller] = None
        self.open += 1
        self._context.stats.opened += 1
        if self._running:
            self._give.send_nowait(partial(self._serve, caller))
        else:
            self._leave(caller, CloseReason.STOPPED)

    def give_up(self, caller: ConnectCaller) -> None:
        """The proxy stops: end a caller whose call has not begun. Does nothing if it has ended."""
        caller.scope.cancel()  # first, as nobody may wait for a socket that is closed
        self._leave(caller, CloseReason.STOPPED)

    # A head

    async def _serve(self, caller: ConnectCaller) -> None:
        """The barrier for one caller whose call has not begun."""
        reason = CloseReason.STOPPED
        try:
            with caller.scope:
                reason = await self._converse(caller, caller.head)
        except Exception:
            log.exception("unexpected error in a connection", listen=self.listen)
            reason = CloseReason.ABORTED
        finally:
            self._leave(caller, reason)

    async def _converse(self, caller: ConnectCaller, head: ConnectHead) -> CloseReason:
        """Begin the call that a caller asks for. Returns why it has none; of one that has begun, anything."""
        dawdled = "no whole request in time"
        try:
            with trio.fail_after(IN_A_CROWD if len(self.callers) > CROWD else PATIENCE):
                request = await self._read(caller, head)
            if request is not None:
                self._check(request.service)
                await self._room(request.service)
                self._begin(caller, head, request)
            return CloseReason.ABORTED if caller.received else CloseReason.FINISHED
        except BadHead as error:
            self._refuse(caller, head.wrong(error.status, str(error)), error.status, str(error))
            return CloseReason.ABORTED
        except trio.TooSlowError:
            if not caller.received:
                return CloseReason.FINISHED
            self._refuse(caller, head.wrong(408, dawdled), 408, dawdled)
            return CloseReason.ABORTED
        except Refused as error:
            self._refuse(caller, head.refused(error.service, error.reason), error.reason, str(error), error.service)
            return error.reason
        except OSError:  # reset
            return CloseReason.ABORTED

    async def _read(self, caller: ConnectCaller, head: ConnectHead) -> ConnectRequest | None:
        """The request; None if the caller has closed before it was whole. Raises BadHead, and OSError."""
        sock = caller.sock
        assert sock is not None
        while True:
            await trio.lowlevel.wait_readable(sock.fileno())
            try:
                data = sock.recv(READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                return None
            caller.received += len(data)
            if (request := head.receive(data)) is not None:
                return request

    def _check(self, service: str) -> ConnectConfig:
        """Returns the configuration in force. Raises Refused if this socket does not lead to the service, or nobody
        offers it.
        """
        config = self.config
        if config is None:
            raise Refused(service, CloseReason.STOPPED, "the socket was removed from the configuration")
        if config.services != "all" and service not in config.services:
            raise Refused(service, CloseReason.NOT_ALLOWED, "it does not stand in connect.services")
        if self._context.peers(service) is None or self._context.endpoints(service) == (None, []):
            raise Refused(service, CloseReason.NO_SUCH_SERVICE, "no host offers it")
        return config

    async def _room(self, service: str) -> None:
        """Wait until one more call of the service may be under way, as an upstream's callers do. Raises Refused."""
        with trio.move_on_after(self._context.limits.open_timeout):
            while (window := self._context.pump.openings.of(service)).is_full():
                room = trio.Event()
                window.when_room(room.set)
                await room.wait()
            return
        raise Refused(service, CloseReason.OVERLOADED, "too many of its calls have no answer yet")

    def _begin(self, caller: ConnectCaller, head: ConnectHead, request: ConnectRequest) -> None:
        config = self._check(request.service)  # again: another configuration may have come meanwhile
        sock = caller.sock
        assert sock is not None
        if tcp := sock.family != socket.AF_UNIX:
            uid, via = UNKNOWN_UID, self._context.way_of(sock)
        elif (uid := peer_uid(sock)) == OURSELVES:
            uid, via = os.geteuid(), via_unix(sock)
        else:
            via = None
        asked = Open(request.service, uid, config.caller or "", via)
        caller.sock, caller.begun = None, True
        self._context.held[request.service].count += 1
        self._context.stats.counts.called(request.service).opened += 1
        ConnectCall(self._context, asked, sock, tcp, head, request.rest, self).start()
        self._context.pump.settle()

    def _refuse(
        self, caller: ConnectCaller, answer: bytes, what: CloseReason | int, why: str, service: str | None = None
    ) -> None:
        """Answer, and shut the caller out. `what`: close reason, or the status of a request that is wrong."""
        if (sock := caller.sock) is None:
            return
        caller.sock = None
        with suppress(OSError):
            sock.send(answer)
            sock.shutdown(socket.SHUT_WR)
        reason = what.label if isinstance(what, CloseReason) else f"status {what}"
        log.info("CONNECT refused", kind=(self.listen, what), listen=self.listen, reason=reason, why=why,
                 service=service)  # fmt: skip
        self.part(sock)

    def _leave(self, caller: ConnectCaller, reason: CloseReason) -> None:
        """A head is over. Unless a call has begun, the connection is, which is counted with this reason. Idempotent."""
        if caller not in self.callers:
            return
        del self.callers[caller]
        self.window.drop(caller.batch)
        if caller.begun:
            return
        self.open -= 1
        self._context.stats.end(reason)
        if reason is CloseReason.STOPPED and caller.received:
            self._refuse(caller, caller.head.refused("", reason), reason, "the proxy stops")
        if caller.sock is not None:
            if reason is CloseReason.FINISHED:
                disarm_reset(caller.sock)
            caller.sock.close()

    # What became of calls

    def part(self, sock: LocalSocket) -> None:
        """See `connectcall.ConnectCallKeeper`."""
        with suppress(OSError):
            disarm_reset(sock)
        if not self._running or len(self._parting) >= LINGERERS:
            return sock.close()
        self._parting[sock] = None
        self._give.send_nowait(partial(self._linger, sock))

    async def _linger(self, sock: LocalSocket) -> None:
        try:
            with trio.move_on_after(LINGER), suppress(OSError):
                for _ in range(LINGER_BYTES // READ_BYTES):
                    await trio.lowlevel.wait_readable(sock.fileno())
                    if not sock.recv(READ_BYTES):
                        break
        finally:
            del self._parting[sock]
            sock.close()

    def ended(self) -> None:
        """See `connectcall.ConnectCallKeeper`."""
        self.open -= 1
