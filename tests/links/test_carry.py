from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

from control.base.reading.addresses import TcpAddress
from proxy.demo.certificates import CertificateAuthority
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import HandshakeResult, answer, dial, listen_to, new_id, protected, refuse
from proxy.links.device import LinkDevice
from proxy.links.handshake import encode_hello, encode_refusal, resuming
from proxy.mux.frames import FrameKind, encode
from tests.links.wire import ANYWHERE, hello, listening, streams
from tests.tools.sockets import fds_since, free_port, open_fds
from tests.tools.tls import of_host

Peer = Callable[[trio.SocketStream], Awaitable[None]]


async def dialling(peer: Peer, *, device: LinkDevice = ANYWHERE) -> HandshakeResult:
    """Dial a peer that does what the test says, once."""

    async def serve(listener: trio.SocketListener) -> None:
        async with await listener.accept() as stream:
            await peer(stream)

    error: HandshakeError
    with listening() as (listener, address):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener)
            try:
                return await dial(address, device=device, hello=hello())
            except HandshakeError as failure:  # raised in here, it would come out as a group
                error = failure
            finally:
                nursery.cancel_scope.cancel()
    raise error


async def refusal(peer: Peer) -> HandshakeError:
    """The error that dialling such a peer gives; nothing is left open."""
    before = open_fds()
    with pytest.raises(HandshakeError) as caught:
        await dialling(peer)
    assert not fds_since(before)
    return caught.value


async def test_both_halves_together() -> None:
    met: list[HandshakeResult] = []

    async def peer(stream: trio.SocketStream) -> None:
        theirs, leftover = await listen_to(stream)
        met.append(HandshakeResult(answer(stream, hello("host-b", "host-a", theirs.session)), theirs, leftover))

    handshake = await dialling(peer, device=LinkDevice("127.0.0.1"))
    with handshake.sock, met[0].sock:
        assert handshake.hello == hello("host-b", "host-a")
        assert met[0].hello == hello("host-a", "host-b")
        for sock in (handshake.sock, met[0].sock):
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        handshake.sock.send(b"x")
        assert handshake.sock.getsockname() == met[0].sock.getpeername()


async def test_frames_right_behind_the_hello_are_not_lost() -> None:
    async def peer(stream: trio.SocketStream) -> None:
        await listen_to(stream)
        await stream.send_all(encode_hello(hello("host-b", "host-a")) + encode(FrameKind.PING, 0, bytes(8)))
        await trio.sleep_forever()

    handshake = await dialling(peer)
    handshake.sock.close()
    assert handshake.leftover == encode(FrameKind.PING, 0, bytes(8))


async def test_a_hello_that_comes_in_pieces() -> None:
    with streams() as (ours, theirs):
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                for byte in encode_hello(hello()) + b"!":
                    await theirs.send_all(bytes([byte]))

            nursery.start_soon(trickle)
            told, leftover = await listen_to(ours)
        assert told == hello()
        assert leftover in (b"", b"!")


@pytest.mark.failure(11)
async def test_another_host_answers() -> None:
    async def peer(stream: trio.SocketStream) -> None:
        await stream.send_all(encode_hello(hello("host-z", "host-a")))
        await trio.sleep_forever()

    error = await refusal(peer)
    assert str(error) == "host 'host-z' answered instead of 'host-b'"
    assert error.reason is CloseReason.WRONG_HOST


async def test_an_answer_for_another_session() -> None:
    async def peer(stream: trio.SocketStream) -> None:
        await stream.send_all(encode_hello(hello("host-b", "host-a", "other")))
        await trio.sleep_forever()

    assert str(await refusal(peer)) == "the peer answered for another session"


async def test_a_refusal_says_why() -> None:
    async def peer(stream: trio.SocketStream) -> None:
        await refuse(stream, CloseReason.DUPLICATE)

    assert (await refusal(peer)).reason is CloseReason.DUPLICATE


@pytest.mark.parametrize("data", [b"", encode_hello(hello())[:-1], encode_refusal(CloseReason.DRAINING)[:3]])
async def test_an_end_in_the_middle(data: bytes) -> None:
    async def peer(stream: trio.SocketStream) -> None:
        await stream.send_all(data)
        await stream.send_eof()
        await trio.sleep_forever()

    error = await refusal(peer)
    assert str(error) == "the peer closed the connection during the handshake"
    assert error.reason is CloseReason.LINK_LOST


async def test_a_reset_in_the_middle() -> None:
    async def peer(stream: trio.SocketStream) -> None:
        await listen_to(stream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    error = await refusal(peer)
    assert str(error) == "Connection reset by peer"
    assert error.reason is CloseReason.LINK_LOST


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        (TcpAddress("127.0.0.1", free_port()), "Connection refused"),
        (TcpAddress("no-such-host.invalid", 7600), ""),
    ],
    ids=["refused", "no such name"],
)
async def test_nobody_there(address: TcpAddress, complaint: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        await dial(address, device=ANYWHERE, hello=hello())
    assert caught.value.reason is CloseReason.PEER_UNREACHABLE
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_cancelled_it_leaves_nothing_open() -> None:
    async def peer(stream: trio.SocketStream) -> None:
        await listen_to(stream)
        scope.cancel()
        await trio.sleep_forever()

    before = open_fds()
    with trio.CancelScope() as scope:
        await dialling(peer)
    assert scope.cancelled_caught
    assert not fds_since(before)


@pytest.mark.failure(6)
@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("mtls", [False, True])
async def test_cancelled_while_a_session_waits_for_its_answer_the_peer_is_told(mtls: bool, resumes: bool) -> None:
    """It may have answered, and use a link that nobody will ever hold. A session that goes on tries again."""
    authority, got = CertificateAuthority(), bytearray()
    ours, theirs = (of_host(authority, name) if mtls else None for name in ("host-a", "host-b"))

    async def serve(listener: trio.SocketListener, dialler: trio.CancelScope) -> None:
        async with await listener.accept() as tcp:
            stream = protected(tcp, theirs, dialling=False)
            _, leftover = await listen_to(stream)
            got.extend(leftover)
            await stream.send_all(encode_hello(hello("host-b", "host-a"))[:9])
            dialler.cancel()
            with suppress(trio.BrokenResourceError):  # a dialler that had not read all of the answer ends by a reset
                while data := await stream.receive_some(1000):
                    got.extend(data)

    before = open_fds()
    with listening() as (listener, address):
        async with trio.open_nursery() as nursery:
            with trio.fail_after(10), trio.CancelScope() as scope:
                nursery.start_soon(serve, listener, scope)
                said = resuming(hello(), 0) if resumes else hello()
                await dial(address, device=ANYWHERE, hello=said, credentials=ours)
    assert bytes(got) == (b"" if resumes else encode_refusal(CloseReason.PEER_UNREACHABLE))
    assert not fds_since(before)


async def test_cancelled_just_when_it_has_succeeded_the_caller_has_the_socket() -> None:
    """The answer is there when the deadline passes: whoever wins, no descriptor is lost."""
    before = open_fds()
    handshake = None
    with listening() as (listener, address):
        async with trio.open_nursery() as nursery:

            async def peer() -> None:
                async with await listener.accept() as stream:
                    await listen_to(stream)
                    await stream.send_all(encode_hello(hello("host-b", "host-a")))
                    scope.cancel()

            nursery.start_soon(peer)
            with trio.CancelScope() as scope:
                handshake = await dial(address, device=ANYWHERE, hello=hello())
    if handshake is not None:
        handshake.sock.close()
    assert not fds_since(before)


async def test_answering_a_peer_that_is_gone() -> None:
    with streams() as (ours, theirs):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.socket.close()
        await trio.lowlevel.wait_readable(ours.socket)
        with pytest.raises(HandshakeError) as caught:
            answer(ours, hello())
        assert caught.value.reason is CloseReason.LINK_LOST
        assert ours.socket.fileno() == -1
        await refuse(ours, CloseReason.LINK_LOST)


async def test_refusing_a_peer_that_is_gone() -> None:
    with streams() as (ours, theirs):
        theirs.socket.close()
        await refuse(ours, CloseReason.DUPLICATE)
        assert ours.socket.fileno() == -1


def test_ids_are_random() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000
    assert len(new_id()) == 32
