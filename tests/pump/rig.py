"""Two pumps in one trio run, joined by a real link, and real sockets whose other ends the test holds."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import trio

from control.api.messages import StreamDirection
from proxy.errors import CloseReason
from proxy.mux.frames import Open, encode_open
from proxy.mux.session import SessionSettings
from proxy.pump.budget import MemoryBudget
from proxy.pump.busypoll import BusyPoll
from proxy.pump.carrier import UsageObserver
from proxy.pump.connecting import Connector
from proxy.pump.lane import Lane
from proxy.pump.lastwords import untaken
from proxy.pump.link import Link
from proxy.pump.loop import Pump
from proxy.pump.options import prepare_local
from proxy.pump.session import CallHandler, LaneSession
from proxy.pump.streamobserver import StreamObserver
from proxy.pump.turn import LaneReader
from tests.tools.sockets import PATIENCE, Ending, abort, fds_since, open_fds

Kind = Literal["unix", "tcp"]
KINDS: list[Kind] = ["unix", "tcp"]
MEMORY = 64 << 20
REPLAY = 4 << 20
_PIECE = 65536


class End:
    """A test's end of a connection, in trio's hands. The test may leave it open: the rig closes it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.raw = sock
        self.sock = trio.socket.from_stdlib_socket(sock)

    async def send(self, data: bytes) -> None:
        """All of it."""
        view = memoryview(data)
        while view:
            view = view[await self.sock.send(view) :]

    async def read(self, length: int) -> bytes:
        """Exactly so many bytes."""
        received = bytearray()
        while len(received) < length:
            piece = await self.sock.recv(min(_PIECE, length - len(received)))
            assert piece, f"the stream ended after {len(received)} of {length} bytes"
            received += piece
        return bytes(received)

    async def rest(self) -> Ending:
        """All bytes until the end or the reset, whichever it is."""
        received = bytearray()
        try:
            while piece := await self.sock.recv(_PIECE):
                received += piece
        except ConnectionResetError:
            return Ending(bytes(received), reset=True)
        return Ending(bytes(received), reset=False)

    def fill(self) -> int:
        """Send zeros until no more are taken at once; returns how many were."""
        taken = 0
        try:
            while True:
                taken += self.raw.send(bytes(_PIECE))
        except BlockingIOError:
            return taken

    @property
    def kind(self) -> Kind:
        """The type of the socket."""
        return "unix" if self.raw.family == socket.AF_UNIX else "tcp"

    @property
    def untaken(self) -> int:
        """Bytes sent that the kernel of the other end has not taken (TCP), or that nobody has read (Unix)."""
        return untaken(self.raw)

    def finish(self) -> None:
        """Half-close: no more bytes will come."""
        self.raw.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close without an end, as far as the type of socket can."""
        trio.lowlevel.notify_closing(self.raw)
        abort(self.raw)

    def close(self) -> None:
        """Close; cleanly if everything was read."""
        self.sock.close()


def sockets(kind: Kind) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets."""
    if kind == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def proxied(kind: Kind) -> tuple[socket.socket, End]:
    """A connection: the proxy's end, prepared as the proxy prepares it, and the test's."""
    ours, theirs = sockets(kind)
    ours.setblocking(False)
    prepare_local(ours)
    return ours, End(theirs)


async def until(check: Callable[[], object], what: str) -> None:
    """Wait for what no event tells about."""
    with trio.move_on_after(PATIENCE):
        while not check():
            await trio.sleep(0.001)
        return
    raise AssertionError(f"not within {PATIENCE:g} s: {what}")


class Record(StreamObserver):
    """An observer (``pump.streamobserver.StreamObserver``) that writes down what it is told."""

    service = "test"

    def __init__(self, direction: StreamDirection) -> None:
        self.direction: StreamDirection = direction
        self.opened = trio.Event()
        self.over = trio.Event()
        self.reason: CloseReason | None = None
        self.refused = False
        self.lane: Lane

    def lane_opened(self, lane: Lane) -> None:
        assert lane is self.lane
        self.opened.set()

    def lane_refused(self, lane: Lane, reason: CloseReason) -> None:
        assert not self.over.is_set()
        self.refused, self.reason = True, reason
        if sock := lane.surrender(lane):
            lane.session.pump.close(sock)
        self.over.set()

    def lane_unheard(self, lane: Lane) -> None:
        self.lane_refused(lane, CloseReason.LINK_LOST)

    def lane_ended(self, lane: Lane, reason: CloseReason) -> None:
        assert lane is self.lane
        assert not self.over.is_set()
        self.reason = reason
        self.over.set()

    async def ended(self) -> CloseReason:
        """Why it ended, once it has."""
        await self.over.wait()
        assert self.reason is not None
        return self.reason


class Handover(CallHandler):
    """Connects every stream to a socket of the test's, in order, at once.

    Attributes:
        refuse: answer so instead; hold: leave calls unanswered until `release`; bug: raise, with (`owned`) or without
            an observer for the lane.
    """

    def __init__(self) -> None:
        self.kind: Kind = "unix"
        self.refuse: CloseReason | None = None
        self.hold = self.bug = False
        self.bug_owned = True
        self.records: list[Record] = []
        self.sockets: list[socket.socket] = []
        self._held: list[Record] = []
        self._send, self.next = trio.open_memory_channel[tuple[End, Record]](65536)

    def call(self, lane: Lane, call: Open) -> None:
        if self.bug and not self.bug_owned:
            raise RuntimeError("a bug")
        record = Record("inbound")
        record.lane = lane
        lane.observer = record
        self.records.append(record)
        if self.bug:
            raise RuntimeError("a bug")
        if self.refuse is not None:
            lane.abort(self.refuse)
        elif self.hold:
            self._held.append(record)
        else:
            self._deliver(record)

    def release(self) -> None:
        """Answer the calls that were held."""
        self.hold, held, self._held = False, self._held, []
        for record in held:
            self._deliver(record)
            record.lane.session.pump.settle()

    def _deliver(self, record: Record) -> None:
        ours, theirs = proxied(self.kind)
        self.sockets += (ours, theirs.raw)
        self._send.send_nowait((theirs, record))
        record.lane.attach(ours, tcp=self.kind == "tcp")
        record.lane.start_called()


class Counting(UsageObserver):
    """Is told of a session's streams, as the pool is."""

    def __init__(self) -> None:
        super().__init__()
        self.uses = self.over = self.ends = 0

    def began(self) -> None:
        assert self.uses == self.over
        self.uses += 1

    def ended(self) -> None:
        self.over += 1
        assert self.uses == self.over

    def stream_ended(self, lane: Lane) -> None:
        self.ends += 1


class Host:
    """A pump and what belongs to it."""

    def __init__(self, *, memory: int = MEMORY, busy_poll: float = 0.0) -> None:
        self.pump = Pump(MemoryBudget(memory), LaneReader(), BusyPoll(busy_poll))
        self.deadlines = self.pump.deadlines
        self.connector = Connector(self.pump, self.deadlines)
        self.counting = Counting()
        self.sessions: list[LaneSession] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.pump.run)
            task_status.started()

    def link(
        self,
        sock: socket.socket,
        *,
        dialled: bool,
        calls: CallHandler,
        local: SessionSettings,
        remote: SessionSettings,
        replay: int,
        survives: bool = False,
    ) -> Link:
        """Take a connection as a link, with a session of its own. The caller dooms it in the end."""
        session = LaneSession(
            self.pump,
            key="1",
            name="peer/1",
            peer="peer",
            dialled=dialled,
            local=local,
            remote=remote,
            replay=replay,
            calls=calls,
            usage=self.counting,
            survives=survives,
        )
        return self.carry(sock, session)

    def carry(self, sock: socket.socket, session: LaneSession) -> Link:
        """Take a connection as the link of a session."""
        self.sessions.append(session)
        sock.setblocking(False)
        link = Link(self.pump, sock, session)
        link.start(b"")
        return link

    def check_empty(self) -> None:
        """Nothing of any stream or link is left."""
        pump = self.pump
        assert self.counting.uses == self.counting.over
        assert not any(pump.lanes)
        assert not pump.watchers()
        assert pump.touched.first is None
        assert [session for session in self.sessions if session.out.flusher is not None] == []
        for window in pump.openings._windows.values():
            assert window._batches.keys().isdisjoint(self.sessions)
        assert not pump._closing
        assert pump.budget.used == 0
        assert not any(account.used for account in pump.budget.accounts.values())
        assert pump.slabs.in_use == 0


class Rig:
    """Host a calls, host b delivers; ``near`` and ``far`` are the two ends of the one link between them.

    Attributes:
        near_sock, far_sock: what the link runs on, for tests that cut it.
    """

    def __init__(self, a: Host, b: Host, settings: SessionSettings, replay: int, survives: bool = False) -> None:
        self.a, self.b = a, b
        self.handover = Handover()
        self.records: list[Record] = []
        self.ends: list[End] = []
        self.sockets: list[socket.socket] = []
        self.near_sock, self.far_sock = sockets("tcp")
        self.near, self.far = (
            host.link(
                sock,
                dialled=dialled,
                calls=self.handover,
                local=settings,
                remote=settings,
                replay=replay,
                survives=survives,
            )
            for host, sock, dialled in ((a, self.near_sock, True), (b, self.far_sock, False))
        )

    async def cut(self) -> None:
        """Lose the link; both sessions are suspended."""
        self.near_sock.shutdown(socket.SHUT_RDWR)
        await self.near.ended.wait()
        await self.far.ended.wait()

    def relink(self) -> None:
        """Give the suspended sessions another one, as the pools of the two hosts do."""
        near, far = self.near.session, self.far.session
        received = near.received, far.received
        near.resume(received[1])
        far.resume(received[0])
        self.near_sock, self.far_sock = sockets("tcp")
        self.near, self.far = self.a.carry(self.near_sock, near), self.b.carry(self.far_sock, far)

    def call(self, kind: Kind = "unix", *, early: bytes = b"") -> tuple[End, Record]:
        """A caller on host a opens a stream; ``early`` is in its socket already."""
        ours, caller = proxied(kind)
        self.sockets.append(ours)
        if early:
            caller.raw.send(early)
        record = Record("outbound")
        lane = record.lane = self.near.session.open(encode_open(Open("test")))
        lane.observer = record
        lane.attach(ours, tcp=kind == "tcp")
        lane.start_calling()
        self.a.pump.settle()
        self.ends.append(caller)
        self.records.append(record)
        return caller, record

    async def stream(self, kind: Kind = "unix", to: Kind = "unix", *, early: bytes = b"") -> Stream:
        """A caller and the service that got it. One call at a time: streams are matched by their order."""
        self.handover.kind = to
        caller, outbound = self.call(kind, early=early)
        service, inbound = await self.handover.next.receive()
        self.ends.append(service)
        return Stream(caller, service, outbound, inbound)

    def close(self) -> None:
        """Close every socket, also after a failure, so that the next test does not see them."""
        for sock in (*self.handover.sockets, *self.sockets, self.near_sock, self.far_sock):
            sock.close()
        for end in self.ends:
            end.close()

    async def end(self) -> None:
        """End everything and check that nothing is left."""
        for link in (self.near, self.far):
            if link.session.suspended:
                link.session.end(CloseReason.STOPPED)
            link.doom(CloseReason.STOPPED)
            link.pump.settle()
        for end in self.ends:
            end.close()
        for record in self.records + self.handover.records:
            await record.over.wait()
        await self.near.ended.wait()
        await self.far.ended.wait()
        self.a.check_empty()
        self.b.check_empty()


class Stream:
    """One stream through both pumps: the test's two ends, and what the two observers were told."""

    def __init__(self, caller: End, service: End, outbound: Record, inbound: Record) -> None:
        self.caller, self.service = caller, service
        self.outbound, self.inbound = outbound, inbound

    def ends(self, closer: str) -> tuple[End, End]:
        """The closer ("caller" or "service") and the other one."""
        return (self.caller, self.service) if closer == "caller" else (self.service, self.caller)

    async def over(self) -> None:
        """Return when both sides have been told of the end."""
        await self.outbound.over.wait()
        await self.inbound.over.wait()


@asynccontextmanager
async def running(*hosts: Host, patience: float = PATIENCE) -> AsyncIterator[None]:
    """The pumps of `hosts`, for the time of the block and at most `patience` seconds."""
    with trio.fail_after(patience):
        async with trio.open_nursery() as nursery:
            for host in hosts:
                await nursery.start(host.run)
            yield
            nursery.cancel_scope.cancel()
    for host in hosts:
        host.pump.shut_down()


@asynccontextmanager
async def rig(
    *,
    credit: int = 256 * 1024,
    memory: int = MEMORY,
    replay: int = REPLAY,
    busy_poll: float = 0.0,
    patience: float = PATIENCE,
    survives: bool = False,
) -> AsyncIterator[Rig]:
    """Two hosts and their link; checks at the end that no descriptor, task, lane or byte of the budget is left."""
    before, tasks = open_fds(), trio.lowlevel.current_statistics().tasks_living
    a, b = Host(memory=memory, busy_poll=busy_poll), Host(memory=memory, busy_poll=busy_poll)
    async with running(a, b, patience=patience):
        joined = Rig(a, b, SessionSettings(stream_credit=credit), replay, survives)
        try:
            yield joined
            await joined.end()
        finally:
            joined.close()
    assert not fds_since(before)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
