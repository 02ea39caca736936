"""The handshakes of two hosts, dialler and acceptor as they are: each refusal is one clear line on both sides."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import pytest
import trio
import trio.testing
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

from control.api.identity import host_uri
from control.base.reading.addresses import TcpAddress
from proxy.demo.certificates import CertificateAuthority
from proxy.errors import CloseReason, HandshakeError
from proxy.links import accept
from proxy.links.carry import HandshakeResult, dial, listen_to
from proxy.links.credentials import Credentials
from proxy.links.handshake import Hello, encode_hello, encode_refusal
from proxy.links.tls import TlsStream
from proxy.links.tlswire import TlsWire
from tests.links.wire import ANYWHERE, hello, listening, opened, streams
from tests.tools.sockets import fds_since, open_fds
from tests.tools.tls import MESH, credentials, of_host, without_certificate

DAY = timedelta(days=1)
ONLY_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
NOW = datetime.now(UTC)
OURS, OTHER = CertificateAuthority(), CertificateAuthority("Other CA")
A, B, X = (host_uri(MESH, name) for name in ("host-a", "host-b", "host-x"))
EXPIRED = {"start": NOW - 2 * DAY, "end": NOW - DAY}


class RecordingPool:
    def absent(self, hello: Hello) -> Mapping[str, bool]:
        return {}

    def resumes(self, hello: Hello) -> int | None:
        return None

    def refuses(self) -> CloseReason | None:
        return None


class Met(NamedTuple):
    """What came of one dial of host-a to host-b."""

    handshake: HandshakeResult | None
    told: str
    """The dialler's error."""
    reason: CloseReason | None
    logged: str
    """What the acceptor logged."""
    attended: list[HandshakeResult]


async def meet(dialler: Credentials | None, acceptor: Credentials | None, *, claims: str = "host-a") -> Met:
    """Dial once; everything is closed afterwards but the socket of ``handshake``."""
    attended: list[HandshakeResult] = []
    handshake, told, reason = None, "", None

    async def attend(pool: accept.AcceptingPool, handshake: HandshakeResult) -> None:
        attended.append(handshake)

    with capture_logs() as logs:
        listeners = opened(TcpAddress("127.0.0.1", 0))
        serve = partial(
            accept.serve,
            listeners,
            own="host-b",
            patience=lambda: 30,
            find={"host-a": RecordingPool()}.get,
            expected=lambda source: False,
            hello=lambda name, session: hello("host-b", name, session),
            attend=attend,
            credentials=lambda: acceptor,
        )
        address = TcpAddress("127.0.0.1", listeners[0].socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            try:
                handshake = await dial(address, device=ANYWHERE, hello=hello(claims), credentials=dialler)
            except HandshakeError as error:
                told, reason = str(error), error.reason
            while not attended and not logs:
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert [entry["event"] for entry in logs] in ([], ["link refused"])
    assert "\n" not in told
    return Met(handshake, told, reason, logs[0]["error"] if logs else "", attended)


REFUSED = "the peer refused this host's certificate: "
REFUSES = "the peer's certificate is refused: "
NO_HOST = "the peer's certificate names no host: "

CASES: dict[str, tuple[Callable[[], Credentials | None], Callable[[], Credentials | None], str, str]] = {
    "dialler of another CA": (
        lambda: of_host(OTHER, "host-a", trusts=OURS),
        lambda: of_host(OURS, "host-b"),
        REFUSED + "it is not signed by a CA that the peer trusts",
        REFUSES + "it is not signed by a CA in links.tls.ca",
    ),
    "acceptor of another CA": (
        lambda: of_host(OURS, "host-a"),
        lambda: of_host(OTHER, "host-b", trusts=OURS),
        REFUSES + "it is not signed by a CA in links.tls.ca",
        REFUSED + "it is not signed by a CA that the peer trusts",
    ),
    "another CA of the same name": (
        lambda: of_host(OURS, "host-a"),
        lambda: of_host(CertificateAuthority(), "host-b", trusts=OURS),
        REFUSES + "it is not signed by a CA in links.tls.ca",
        REFUSED + "it is not signed by a CA that the peer trusts",
    ),
    "dialler expired": (
        lambda: of_host(OURS, "host-a", **EXPIRED),
        lambda: of_host(OURS, "host-b"),
        REFUSED + "it has expired, says the peer's clock",
        REFUSES + "certificate has expired",
    ),
    "acceptor expired": (
        lambda: of_host(OURS, "host-a"),
        lambda: of_host(OURS, "host-b", **EXPIRED),
        REFUSES + "certificate has expired",
        REFUSED + "it has expired, says the peer's clock",
    ),
    "acceptor from tomorrow": (
        lambda: of_host(OURS, "host-a"),
        lambda: of_host(OURS, "host-b", start=NOW + DAY, end=NOW + 2 * DAY),
        REFUSES + "certificate is not yet valid",
        REFUSED + "it is malformed, not valid yet, or wrongly signed",
    ),
    "dialler without a certificate": (
        lambda: without_certificate(OURS),
        lambda: of_host(OURS, "host-b"),
        REFUSED + "it got none",
        "the peer sent no certificate",
    ),
    "dialler with two URIs": (
        lambda: credentials(OURS, A, B),
        lambda: of_host(OURS, "host-b"),
        "the peer refused: wrong_host",
        NO_HOST + f"found 2 URI names; allowed: exactly one, spiffe://{MESH}/host/<name>",
    ),
    "acceptor with two URIs": (
        lambda: of_host(OURS, "host-a"),
        lambda: credentials(OURS, B, B),
        NO_HOST + f"found 2 URI names; allowed: exactly one, spiffe://{MESH}/host/<name>",
        "the peer refused: wrong_host",
    ),
    "acceptor without a URI": (
        lambda: of_host(OURS, "host-a"),
        lambda: credentials(OURS),
        NO_HOST + f"found 0 URI names; allowed: exactly one, spiffe://{MESH}/host/<name>",
        "the peer refused: wrong_host",
    ),
    "dialler of another mesh": (
        lambda: credentials(OURS, "spiffe://elsewhere/host/host-a"),
        lambda: of_host(OURS, "host-b"),
        "the peer refused: wrong_host",
        NO_HOST + f'found "spiffe://elsewhere/host/host-a"; allowed: spiffe://{MESH}/host/<name>',
    ),
    "acceptor is another host": (
        lambda: of_host(OURS, "host-a"),
        lambda: of_host(OURS, "host-x"),
        "host 'host-x' answered instead of 'host-b', says its certificate",
        "the peer refused: wrong_host",
    ),
    "dialler is another host": (
        lambda: of_host(OURS, "host-x"),
        lambda: of_host(OURS, "host-b"),
        "the peer refused: wrong_host",
        "host 'host-x', says its certificate, calls itself 'host-a'",
    ),
    "plaintext to a TLS port": (
        lambda: None,
        lambda: of_host(OURS, "host-b"),
        "the peer speaks TLS, this host has links.security: none",
        "the peer speaks plaintext, this host has links.security: mtls",
    ),
    "TLS to a plaintext port": (
        lambda: of_host(OURS, "host-a"),
        lambda: None,
        "the peer speaks plaintext, this host has links.security: mtls",
        "the peer speaks TLS, this host has links.security: none",
    ),
    "certificate for servers only": (
        lambda: of_host(OURS, "host-a", usages=[ONLY_SERVER]),
        lambda: of_host(OURS, "host-b"),
        REFUSED + "it is of a kind that the peer does not take",
        REFUSES + "unsuitable certificate purpose",
    ),
}  # fmt: skip


@pytest.mark.failure(11)
@pytest.mark.parametrize("case", CASES)
async def test_who_is_refused_is_told_and_so_is_the_log(case: str) -> None:
    dialler, acceptor, told, logged = CASES[case]
    met = await meet(dialler(), acceptor())
    assert (met.told, met.logged, met.attended) == (told, logged, [])
    assert met.reason is (CloseReason.PROTOCOL_ERROR if "plaintext" in case else CloseReason.WRONG_HOST)


async def test_who_belongs_together_meets() -> None:
    before = open_fds()
    met = await meet(of_host(OURS, "host-a"), of_host(OURS, "host-b"))
    assert (met.told, met.logged) == ("", "")
    assert met.handshake is not None
    [there] = met.attended
    with met.handshake.sock, there.sock:
        assert (met.handshake.hello.host, there.hello.host) == ("host-b", "host-a")
        for one, other in ((met.handshake, there), (there, met.handshake)):
            assert isinstance(one.wire, TlsWire)
            assert isinstance(other.wire, TlsWire)
            assert one.wire.tls.version() == "TLSv1.3"
            assert one.wire.tls.session_reused is False
            assert one.wire.send(memoryview(b"hello")) == 5
            await trio.lowlevel.wait_readable(other.sock)
            buffer = bytearray(65536)
            assert other.wire.recv_into(memoryview(buffer)) == 5
            assert buffer[:5] == b"hello"
        for one in (met.handshake, there):
            with pytest.raises(BlockingIOError):
                one.sock.recv(1)  # no session ticket, nothing but what the session says
    assert not fds_since(before)


async def test_a_revoked_certificate_is_refused_by_the_acceptor() -> None:
    dialler, acceptor = of_host(OURS, "host-a"), of_host(OURS, "host-b")
    acceptor.revoked.adopt([dialler.serial])
    met = await meet(dialler, acceptor)
    assert (met.told, met.reason, met.attended) == ("the peer refused: revoked", CloseReason.REVOKED, [])
    assert met.logged == "the certificate of host 'host-a' has been revoked"


async def test_a_revoked_certificate_is_refused_by_the_dialler() -> None:
    dialler, acceptor = of_host(OURS, "host-a"), of_host(OURS, "host-b")
    dialler.revoked.adopt([acceptor.serial, "ab"])
    met = await meet(dialler, acceptor)
    assert (met.told, met.reason) == ("the certificate of host 'host-b' has been revoked", CloseReason.REVOKED)
    assert (met.logged, met.attended) == ("the peer refused: revoked", [])


async def test_the_serial_of_the_peers_certificate_is_known() -> None:
    dialler, acceptor = of_host(OURS, "host-a"), of_host(OURS, "host-b")
    acceptor.revoked.adopt(["ab"])
    met = await meet(dialler, acceptor)
    assert met.handshake is not None
    [there] = met.attended
    with met.handshake.sock, there.sock:
        assert (met.handshake.serial, there.serial) == (acceptor.serial, dialler.serial)


@pytest.mark.failure(1)
@pytest.mark.parametrize(
    "case", ["dialler without a certificate", "acceptor is another host", "plaintext to a TLS port"]
)
async def test_a_refusal_leaves_nothing_open(case: str) -> None:
    dialler, acceptor, _, _ = CASES[case]
    before = open_fds()
    await meet(dialler(), acceptor())
    assert not fds_since(before)


@asynccontextmanager
async def played(*, dialling: bool) -> AsyncIterator[tuple[TlsStream, trio.SocketStream]]:
    """Our end of a handshake, and the connection to it of a peer that the test plays."""
    with streams() as (ours, theirs):
        yield TlsStream(ours, of_host(OURS, "host-b"), dialling=dialling), theirs


@pytest.mark.failure(18)
@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the peer does not speak TLS, this host has links.security: mtls"),
        (encode_hello(hello()), "the peer speaks plaintext, this host has links.security: mtls"),
        (encode_refusal(CloseReason.DRAINING), "the peer speaks plaintext, this host has links.security: mtls"),
        (bytes(70_000), "the peer does not speak TLS, this host has links.security: mtls"),
        (b"\x16\x03\x01\x02\x00" + bytes(600), ""),
        (b"\x15\x03\x03\x00\x02\x02\x28", "TLS: "),
        (b"\x16\x03\x01", "the peer closed the connection during the handshake"),
        (b"", "the peer closed the connection during the handshake"),
    ],
    ids=["http", "hello", "goaway", "zeros", "broken", "alert", "half", "nothing"],
)
@pytest.mark.parametrize("dialling", [False, True])
async def test_whatever_the_peer_says_is_one_error(dialling: bool, said: bytes, complaint: str) -> None:
    async with played(dialling=dialling) as (ours, theirs):
        await theirs.send_all(said)
        await theirs.send_eof()
        with pytest.raises(HandshakeError) as caught:
            await ours.shake_hands()
        assert str(caught.value).startswith(complaint)
        assert "\n" not in str(caught.value)


async def test_before_the_handshake_nothing_is_said_in_plaintext() -> None:
    async with played(dialling=False) as (ours, theirs):
        await ours.send_all(b"secret")
        await ours.aclose()
        assert await theirs.receive_some() == b""


async def test_older_versions_of_tls_are_refused() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    async with played(dialling=False) as (ours, theirs):
        async with trio.open_nursery() as nursery:

            async def dial_old() -> None:
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await trio.SSLStream(theirs, old).do_handshake()
                assert "protocol version" in str(caught.value.__cause__).replace("_", " ").lower()

            nursery.start_soon(dial_old)
            with pytest.raises(HandshakeError, match="the peer does not speak TLS 1.3"):
                await ours.shake_hands()


async def test_frames_right_behind_the_hello_are_not_lost() -> None:
    """However TLS cuts them: what came with HELLO, the link gets."""
    async with played(dialling=False) as (ours, theirs):
        client = of_host(OURS, "host-a").dialling
        async with trio.open_nursery() as nursery:

            async def peer() -> None:
                stream = trio.SSLStream(theirs, client, https_compatible=True)
                await stream.send_all(encode_hello(hello()) + bytes(50_000))

            nursery.start_soon(peer)
            said, leftover = await listen_to(ours)
        assert said == hello()
        assert set(leftover) <= {0}
        assert ours.peer == "host-a"


async def test_a_record_that_comes_byte_by_byte() -> None:
    async with played(dialling=False) as (ours, theirs):
        async with trio.open_nursery() as nursery:

            async def peer() -> None:
                wire = TlsStream(theirs, of_host(OURS, "host-a"), dialling=True)
                await wire.shake_hands()
                wire.wire.tls.write(encode_hello(hello()) + bytes(5000))
                for byte in wire.wire.outgoing.read():
                    await theirs.send_all(bytes([byte]))

            nursery.start_soon(peer)
            said, _ = await listen_to(ours)
        assert said == hello()


@pytest.mark.failure(1)
async def test_cancelled_in_the_tls_handshake_it_leaves_nothing_open() -> None:
    before = open_fds()
    with listening() as (_, address):
        with trio.move_on_after(0.05) as scope:
            await dial(address, device=ANYWHERE, hello=hello(), credentials=of_host(OURS, "host-a"))
    assert scope.cancelled_caught
    assert not fds_since(before)
