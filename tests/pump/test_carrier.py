"""Where sessions and links meet: what lanes ask of their session is asked of the link that carries it."""

from __future__ import annotations

from time import monotonic_ns

import pytest
import trio

from proxy.errors import CloseReason
from proxy.mux.frames import Open, encode_open
from proxy.pump.carrier import FAR
from tests.pump.rig import rig, until


async def test_what_lanes_share_is_their_sessions_whichever_link_carries_it() -> None:
    async with rig(survives=True) as joined:
        stream = await joined.stream()
        session = stream.outbound.lane.session
        assert session is joined.near.session
        assert (session.name, session.peer, session.pump) == ("peer/1", "peer", joined.a.pump)
        assert session.link is joined.near
        await joined.cut()
        assert session.suspended
        assert session.link is joined.near, "the last one"
        joined.relink()
        assert session.link is joined.near
        assert (session.link.local_address, session.link.remote_address) == (
            joined.far.remote_address, joined.far.local_address,
        )


async def test_bytes_are_sent_in_the_middle_of_a_turn() -> None:
    async with rig() as joined:
        stream = await joined.stream()
        lane = stream.outbound.lane
        session = joined.near.session
        lane.out.mem[lane.out.pos + 8 : lane.out.pos + 13] = b"hello"
        session.sent(lane, 5)
        assert session.out.unsent == 13
        session.send_now()
        assert session.out.unsent == 0
        assert await stream.service.read(5) == b"hello"
        joined.a.pump.settle()


async def test_a_lane_that_waits_for_room_goes_on_when_there_is_some() -> None:
    async with rig() as joined:
        caller, record = joined.call()
        lane, session = record.lane, joined.near.session
        lane._wait()
        assert list(session.waiting) == [lane]
        joined.near.flush()
        assert not session.waiting
        await caller.send(b"hello")
        service, _ = await joined.handover.next.receive()
        joined.ends.append(service)
        assert await service.read(5) == b"hello"
        assert session.open(encode_open(Open("x"))).session is session


async def test_who_asks_is_told_when_the_peer_has_handled_all() -> None:
    async with rig() as joined:
        told: list[str] = []
        session = joined.near.session
        session.ask(lambda: told.append("one"))
        session.ask(lambda: told.append("two"))
        joined.a.pump.settle()
        assert not told
        await until(lambda: len(told) == 2, "the answers")
        assert told == ["one", "two"]


@pytest.mark.failure("21b-c")
async def test_who_asks_a_peer_that_answers_no_ping_is_told_nevertheless() -> None:
    async with rig() as joined:
        joined.b.pump.interest(joined.far_sock.fileno(), 0)
        told: list[str] = []
        session = joined.near.session
        session.ask(lambda: told.append("one"))
        joined.a.pump.settle()
        await trio.sleep(0)
        session.ask(lambda: told.append("two"))
        joined.a.pump.settle()
        await until(lambda: told, "the first")
        session.ask(lambda: told.append("three"))
        joined.a.pump.settle()
        await until(lambda: len(told) == 3, "all")
        assert told == ["one", "two", "three"]


@pytest.mark.failure("21b-c")
async def test_the_way_is_as_long_as_the_shortest_round_trip_on_this_link() -> None:
    async with rig(survives=True) as joined:
        session, second = joined.near.session, 10**9
        assert session.way == 1, "not known"
        session.on_pong(monotonic_ns() - 60 * second)
        assert session.way == FAR
        session.on_pong(monotonic_ns() - second // 20)
        assert 50 <= session.way < FAR
        shortest = session.way
        session.on_pong(monotonic_ns() - second)
        assert session.way == shortest, "a queue"
        session.on_pong(monotonic_ns() + second)
        assert session.way == 1, "what a peer may invent"
        session.on_pong(monotonic_ns() - second // 20)
        assert session.way == 1
        await joined.cut()
        joined.relink()
        joined.near.session.on_pong(monotonic_ns() - second // 20)
        assert session.way >= 50, "another link may go another way"


async def test_who_asks_is_told_of_a_lost_link_too() -> None:
    async with rig(survives=True) as joined:
        told: list[str] = []
        session = joined.near.session
        session.ask(lambda: told.append("before"))
        await joined.cut()
        assert told == ["before"]
        session.ask(lambda: told.append("meanwhile"))
        assert told == ["before", "meanwhile"]
        joined.relink()
        session.ask(lambda: told.append("afterwards"))
        session.end(CloseReason.STOPPED)
        assert told == ["before", "meanwhile", "afterwards"]
        session.ask(lambda: told.append("too late"))
        assert told[-1] == "too late"
