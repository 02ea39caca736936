from __future__ import annotations

import json
import os
import resource
import socket

import pytest
import trio

from proxy.door import channel
from proxy.door.channel import Broken, Channel
from proxy.door.messages import FromDoor, FromProxy, Held, Hello, Listener, Shown, Stock
from tests.tools.sockets import fds_since, open_fds


class Pair:
    def __init__(self) -> None:
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.raw = two
        self.door: Channel[FromProxy] = Channel(one, FromProxy)
        self.proxy: Channel[FromDoor] = Channel(two, FromDoor)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.door.close()
        self.proxy.close()


async def test_messages_and_descriptors_arrive_together() -> None:
    with Pair() as pair, socket.create_server(("127.0.0.1", 0)) as listening:
        before = open_fds()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.door.send)
            pair.door.say(Hello())
            pair.door.say(Listener(7, "127.0.0.1:1", "redis", "", "web"), [listening])
            assert await pair.proxy.receive() == (Hello(), [])
            message, [descriptor] = await pair.proxy.receive()
            nursery.cancel_scope.cancel()
        assert message == Listener(7, "127.0.0.1:1", "redis", "", "web")
        with socket.socket(fileno=descriptor) as same:
            assert same.getsockname() == listening.getsockname()
            assert not os.get_inheritable(descriptor)
        assert not fds_since(before)


async def test_many_descriptors_at_once() -> None:
    with Pair() as pair:
        sockets = [socket.socket() for _ in range(64)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.door.send)
            pair.door.say(Stock(7, 4), sockets)
            for sock in sockets:
                sock.close()  # what is said has duplicates
            message, descriptors = await pair.proxy.receive()
            nursery.cancel_scope.cancel()
        assert (message, len(descriptors)) == (Stock(7, 4), 64)
        for descriptor in descriptors:
            os.close(descriptor)


async def test_the_end() -> None:
    with Pair() as pair:
        pair.proxy.close()
        with pytest.raises(Broken, match="the other end has closed the connection"):
            await pair.door.receive()
        pair.door.say(Hello())
        with pytest.raises(Broken, match="the connection is lost"):
            await pair.door.send()


@pytest.mark.parametrize("packet", [b"x", b"[]", b'{"type":"listener"}', json.dumps({"type": "end"}).encode()])
async def test_what_cannot_be_understood(packet: bytes) -> None:
    with Pair() as pair, socket.socket() as sock:
        before = open_fds()
        socket.send_fds(pair.raw, [packet], [sock.fileno()])
        with pytest.raises(Broken, match="it is not understood: "):
            await pair.door.receive()
        assert not fds_since(before)


async def test_a_message_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MOST_BYTES", 10)
    with Pair() as pair:
        pair.raw.send(b"x" * 11)
        with pytest.raises(Broken, match="a message was cut off"):
            await pair.door.receive()


async def test_no_descriptors_are_left_to_say_it_with() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Pair() as pair:
        sockets = [socket.socket() for _ in range(3)]
        before = open_fds()
        highest = int(before[-1]) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                pair.door.say(Held(1, "127.0.0.1:1"), [*sockets] * 400)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not fds_since(before)
        pair.door.say(Shown())
        for sock in sockets:
            sock.close()


async def test_what_was_not_sent_is_closed() -> None:
    with socket.socket() as sock:
        before = open_fds()
        with Pair() as pair:
            pair.door.say(Held(1, "127.0.0.1:1"), [sock])
        assert not fds_since(before)
