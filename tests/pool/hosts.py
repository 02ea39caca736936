"""Pools on real links over the loopback interface: a peer that the test plays, or two whole hosts."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from control.base.backoff import Backoff
from control.base.reading.addresses import TcpAddress
from proxy.config.schema import Config, LinksConfig, PeerConfig, ProxyLimits
from proxy.demo.certificates import CertificateAuthority
from proxy.links import accept
from proxy.links.carry import HandshakeResult
from proxy.links.credentials import Credentials
from proxy.links.device import LinkDevice
from proxy.links.handshake import Hello
from proxy.mux.frames import Open, encode_open
from proxy.pool.history import SHARED_MEMORY, GapHistogram
from proxy.pool.pool import Pool
from proxy.pool.suspendedbytes import SuspendedBytes
from proxy.pool.ttl import TtlTerms
from proxy.pool.usage import PoolUsage
from proxy.pump.budget import MemoryBudget
from proxy.pump.lane import Lane
from proxy.pump.link import Link
from proxy.pump.loop import Pump
from proxy.pump.session import CallHandler, LaneSession
from proxy.pump.streamobserver import StreamObserver
from proxy.pump.turn import LaneReader
from tests.links.wire import opened, tcp_pair
from tests.tools.tls import of_host

KEEPING = TtlTerms(handshake=0.001, price=1e-9, low=3600.0, high=3600.0, ahead=False)
CLOSING = TtlTerms(handshake=0.001, price=1.0, low=0.05, high=0.05, ahead=False)
"""Links are kept for an hour, or for an instant."""


class Recording(Pool):
    """A pool that remembers how many links it ever had at a time."""

    most = 0

    def _join(
        self, sock: socket.socket, handshake: HandshakeResult, dialled: bool, ahead: bool, session: LaneSession | None
    ) -> Link:
        link = super()._join(sock, handshake, dialled, ahead, session)
        self.most = max(self.most, len(self.links))
        return link


class Silent(CallHandler):
    """Takes every call and leaves it unanswered."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []

    def call(self, lane: Lane, call: Open) -> None:
        lane.observer = Record()
        self.lanes.append(lane)


class Record(StreamObserver):
    """Owner of a lane: what it was told."""

    service = "web"

    def __init__(self) -> None:
        self.told: list[str] = []

    def lane_opened(self, lane: Lane) -> None:
        self.told.append("opened")

    def lane_refused(self, lane: Lane, reason: object) -> None:
        self.told.append(f"refused {reason!r}")

    def lane_unheard(self, lane: Lane) -> None:
        self.told.append("unheard")

    def lane_ended(self, lane: Lane, reason: object) -> None:
        self.told.append(getattr(reason, "label", ""))


class Waiting:
    """A stream that waits for a link."""

    def __init__(self, pool: Pool | None = None) -> None:
        self.pool = pool
        self.times = 0
        self.link: Link | None = None
        self.up = trio.Event()

    def link_up(self) -> None:
        self.times += 1
        self.link = self.pool.pick() if self.pool else None
        self.up.set()


def hello(own: str, max_streams: int, peer: str, session: str) -> Hello:
    return Hello(host=own, to=peer, instance=own, session=session, stream_credit=65536, max_streams=max_streams)


def pool(
    *,
    own: str = "host-a",
    name: str = "host-b",
    pump: Pump | None = None,
    needed: bool = False,
    address: TcpAddress | None = None,
    max_streams: int = 65535,
    fraction: float = 1.0,
    calls: Silent | None = None,
    limits: ProxyLimits | None = None,
    credentials: Credentials | None = None,
    terms: TtlTerms = KEEPING,
    refused_timeout: float = 3600,
    kept: SuspendedBytes | None = None,
    **links: float,
) -> Recording:
    """A pool of `own` for `name`.

    Args:
        terms: those by which links are kept: unless the test is about that, long enough not to meddle.
        refused_timeout: long, as nobody listens at the addresses of most tests. links: further keys of the section.
        fraction: of the window that each delay takes: 1.0 gives 0.1, 0.2, 0.4 ... seconds.
    """
    peer = PeerConfig(address=address or TcpAddress("127.0.0.1", 1))
    config = Config(
        host=own,
        links=LinksConfig(
            listen=TcpAddress("127.0.0.1", 0), security="none", refused_timeout=refused_timeout, **links
        ),
        peers={name: peer},
        limits=limits or ProxyLimits(),
    )
    return Recording(
        config,
        name,
        peer,
        pump=pump or Pump(MemoryBudget(1 << 20), LaneReader()),
        needed=needed,
        hello=partial(hello, own, max_streams),
        calls=calls or Silent(),
        backoff=Backoff(lambda: fraction),
        credentials=lambda: credentials,
        usage=PoolUsage(GapHistogram(SHARED_MEMORY), terms),
        kept=kept,
    )


class Dialling:
    """Stands in for `proxy.links.carry.dial`: counts, and does what the test says next.

    Attributes:
        at: when each dial began; now, most: dials under way, and most of them at a time; resumes: whether the peer
            goes on with the session that it is asked for, of which it has received nothing.
    """

    def __init__(self) -> None:
        self.at: list[float] = []
        self.now = self.most = 0
        self.resumes = False
        self.others: list[socket.socket] = []
        self.began, self._begun = trio.open_memory_channel[None](1000)
        self._outcomes, self._next = trio.open_memory_channel[socket.socket | Exception](1000)

    async def __call__(
        self,
        address: TcpAddress,
        *,
        device: LinkDevice,
        hello: Hello,
        credentials: Credentials | None = None,
        says_hello: Callable[[], None] = lambda: None,
    ) -> HandshakeResult:
        self.at.append(trio.current_time())
        self.now += 1
        self.most = max(self.most, self.now)
        self.began.send_nowait(None)
        try:
            outcome = await self._next.receive()
        finally:
            self.now -= 1
        if isinstance(outcome, Exception):
            raise outcome
        answer = Hello(
            host=hello.to,
            to=hello.host,
            instance="2",
            session=hello.session,
            resumes=hello.resumes and self.resumes,
            stream_credit=65536,
            max_streams=65535,
        )
        return HandshakeResult(outcome, answer, b"")

    async def begins(self) -> None:
        """Return when the next dial has begun."""
        await self._begun.receive()

    def fails(self, error: Exception) -> None:
        """Let a dial fail."""
        self._outcomes.send_nowait(error)

    def succeeds(self) -> socket.socket:
        """Let a dial succeed; the peer's end of the connection, which `close` closes at the latest."""
        ours, theirs = tcp_pair()
        self.others.append(theirs)
        self._outcomes.send_nowait(ours)
        return theirs

    def close(self) -> None:
        for sock in self.others:
            sock.close()


async def until(check: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not check():
            await trio.sleep(0.001)


@asynccontextmanager
async def running(*pools: Pool) -> AsyncIterator[trio.Nursery]:
    """The pools and their pumps run; afterwards everything is closed."""
    async with trio.open_nursery() as pumps:
        for each in {id(each._pump): each._pump for each in pools}.values():
            await pumps.start(each.run)
        async with trio.open_nursery() as nursery:
            for each in pools:
                await nursery.start(each.run)
            yield nursery
            nursery.cancel_scope.cancel()
        pumps.cancel_scope.cancel()
    for each in pools:
        each._pump.shut_down()


def observed(home: Recording) -> Record:
    """What a stream is told, on the link that the pool picks."""
    link = home.pick()
    assert link is not None
    observer = link.session.open(encode_open(Open("web"))).observer = Record()
    home._pump.settle()
    return observer


@asynccontextmanager
async def two_hosts(
    *,
    needed: tuple[bool, bool] = (True, True),
    mtls: bool = False,
    terms: tuple[TtlTerms, TtlTerms] = (KEEPING, KEEPING),
    **links: float,
) -> AsyncIterator[list[Recording]]:
    """host-a and host-b, each with a pool for the other, both listening."""
    names, authority = ("host-a", "host-b"), CertificateAuthority()
    secrets = [of_host(authority, name) if mtls else None for name in names]
    listeners = [opened(TcpAddress("127.0.0.1", 0)) for _ in names]
    addresses = [TcpAddress("127.0.0.1", each[0].socket.getsockname()[1]) for each in listeners]
    pools = [
        pool(own=own, name=name, address=address, needed=need, credentials=secret, terms=keeping, **links)
        for own, name, address, need, secret, keeping in zip(
            names, names[::-1], addresses[::-1], needed, secrets, terms, strict=True
        )
    ]

    async def attend(home: accept.AcceptingPool, handshake: HandshakeResult) -> None:
        assert isinstance(home, Pool)
        await home.attend(handshake.sock, handshake, False)

    async with running(*pools) as nursery:
        for own, each, home, secret in zip(names, listeners, pools, secrets, strict=True):
            nursery.start_soon(
                partial(
                    accept.serve,
                    each,
                    own=own,
                    patience=lambda: 30,
                    find={home.name: home}.get,
                    expected=lambda source: False,
                    hello=lambda peer, session, home=home: home._hello(peer, session),
                    attend=attend,
                    credentials=lambda secret=secret: secret,
                )
            )
        yield pools
