from __future__ import annotations

import socket

import trio
import trio.testing

from control.server.pacedstream import PacedStream, has_left
from tests.control.server.conftest import PATIENCE


def pair() -> tuple[trio.SocketStream, socket.socket]:
    ours, theirs = socket.socketpair()
    return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs


async def test_so_many_receive_in_one_round() -> None:
    turns = trio.CapacityLimiter(2)
    pairs = [pair() for _ in range(8)]
    rounds: list[int] = []
    now = 0

    class Rounds(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal now
            now += 1

    async def receive(stream: trio.SocketStream) -> None:
        assert await PacedStream(stream, turns).receive_some() == b"x"
        rounds.append(now)

    for _, theirs in pairs:
        theirs.send(b"x")
    instrument = Rounds()
    trio.lowlevel.add_instrument(instrument)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for stream, _ in pairs:
                nursery.start_soon(receive, stream)
    trio.lowlevel.remove_instrument(instrument)
    assert max(rounds.count(each) for each in rounds) == 2
    for stream, theirs in pairs:
        await stream.aclose()
        theirs.close()


async def test_without_turns_nobody_waits() -> None:
    stream, theirs = pair()
    full = trio.CapacityLimiter(1)
    await full.acquire_on_behalf_of("somebody else")
    ours = PacedStream(stream, full)
    ours.turns = None
    theirs.send(b"x")
    with trio.fail_after(PATIENCE):
        assert await ours.receive_some() == b"x"
        await ours.wait_send_all_might_not_block()
        await ours.send_all(b"y")
    assert theirs.recv(1) == b"y"
    await ours.aclose()
    assert theirs.recv(1) == b""
    theirs.close()


async def test_who_has_left_is_known_although_bytes_wait() -> None:
    stream, theirs = pair()
    theirs.send(b"hello")
    assert not has_left(stream)
    theirs.close()
    assert has_left(stream)
    assert await stream.receive_some() == b"hello"
    await stream.aclose()
