"""A peer that refuses, is silent, or is back, while sessions with it wait for a link; its port is a real one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from control.base.reading.addresses import TcpAddress
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import HandshakeResult
from proxy.links.handshake import Hello
from proxy.mux.frames import FrameKind, encode
from proxy.pool import probing
from proxy.pool.refusals import RefusalRun
from tests.links.wire import silent, tcp_pair
from tests.pool.hosts import Dialling, Record, Recording, observed, pool, running, until
from tests.tools.sockets import free_port

pytestmark = pytest.mark.failure("23")

THEIRS = Hello(host="host-b", to="host-a", instance="old", session="s", stream_credit=65536, max_streams=9)


def nobody() -> TcpAddress:
    return TcpAddress("127.0.0.1", free_port())


async def dialled(home: Recording, dialling: Dialling) -> Record:
    """A stream on a link that this side has dialled and then lost."""
    theirs = dialling.succeeds()
    await dialling.begins()
    await until(lambda: home.up)
    observer = observed(home)
    theirs.close()
    await until(lambda: not home.links)
    return observer


async def accepted(home: Recording, nursery: trio.Nursery) -> Record:
    """A stream on a link that the peer has dialled and that is lost."""
    ours, theirs = tcp_pair()
    nursery.start_soon(home.attend, ours, HandshakeResult(ours, THEIRS, b""), False)
    await until(lambda: home.up)
    observer = observed(home)
    theirs.send(encode(FrameKind.PING, 0, bytes(8)))
    await until(lambda: home.links[0].session.received > 0)
    theirs.close()
    await until(lambda: not home.links)
    return observer


def watched(home: Recording) -> list[float]:
    """How long each refusal's run has lasted, as they come."""
    found: list[float] = []
    plain: Callable[[TcpAddress, RefusalRun], None] = home.sessions.refused_by

    def refused_by(address: TcpAddress, run: RefusalRun) -> None:
        found.append(run.lasted(0.0))
        plain(address, run)

    home.sessions.refused_by = refused_by  # type: ignore[method-assign]
    return found


async def test_the_dialled_peer_is_gone(dialling: Dialling) -> None:
    home = pool(needed=True, address=nobody(), refused_timeout=0.2)
    with capture_logs() as logs:
        async with running(home):
            observer = await dialled(home, dialling)
            runs = watched(home)
            await until(lambda: observer.told == ["peer_gone"])
            assert max(runs) >= 0.2
            assert len(runs) > 2, "one refusal is not enough"
            await until(lambda: bool(home.sessions.gone))  # should the peer be there after all, it is told
    [ended] = [entry for entry in logs if entry["event"] == "session ended"]
    assert (ended["reason"], ended["streams"]) == ("peer_gone", 1)
    assert ended["detail"] == f"{home.peer.address.hostport} has refused connections for 0.2 s"
    [refuses] = [entry for entry in logs if entry["event"] == "peer refuses connections"]
    assert (refuses["peer"], refuses["streams_end_in_s"]) == ("host-b", 0.2)


async def test_the_peer_that_had_dialled_is_gone() -> None:
    home = pool(address=nobody(), refused_timeout=0.2)
    async with running(home) as nursery:
        observer = await accepted(home, nursery)
        await until(lambda: observer.told == ["peer_gone"])
        assert home.dials == 0


async def test_a_peer_that_came_from_another_address_cannot_be_asked() -> None:
    home = pool(address=TcpAddress("127.0.0.2", free_port()), refused_timeout=0.1)
    async with running(home) as nursery:
        observer = await accepted(home, nursery)
        runs = watched(home)
        await until(lambda: bool(runs) and max(runs) > 0.3)
        assert observer.told == []


@pytest.mark.parametrize("by", ["name", "mapped"], ids=str)
async def test_a_peer_that_is_known_by_a_name_or_came_over_a_socket_for_both_families(by: str) -> None:
    address = nobody()
    home = pool(address=TcpAddress("localhost", address.port) if by == "name" else address, refused_timeout=0.1)
    async with running(home) as nursery:
        link = home.links
        nursery.start_soon(_rename_remote, home, by)
        observer = await accepted(home, nursery)
        await until(lambda: observer.told == ["peer_gone"])
        assert link == []


async def _rename_remote(home: Recording, by: str) -> None:
    await until(lambda: home.up)
    if by == "mapped":
        home.links[0].remote_address = "[::ffff:127.0.0.1]:4000"


@pytest.mark.parametrize("dialler", [True, False])
async def test_refusals_that_end_in_time_end_nothing(dialling: Dialling, dialler: bool) -> None:
    """It dials at once then, and if the peer was to dial, finds that it is another process."""
    address = nobody()
    home = pool(needed=dialler, address=address, refused_timeout=2.0)
    async with running(home) as nursery:
        observer = await (dialled(home, dialling) if dialler else accepted(home, nursery))
        if dialler:
            await dialling.begins()
            dialling.fails(HandshakeError("Connection refused", CloseReason.PEER_UNREACHABLE))
        runs = watched(home)
        await until(lambda: len(runs) > 1)
        with socket.create_server((address.host, address.port)):
            await dialling.begins()
            assert observer.told == []
            if not dialler:
                dialling.succeeds()
                await until(lambda: observer.told == ["peer_restarted"])


async def test_a_silent_peer_is_waited_for(dialling: Dialling) -> None:
    with silent() as address:
        home = pool(needed=True, address=address, refused_timeout=0.05, resume_timeout=1.0, dial_timeout=0.1)
        async with running(home):
            observer = await dialled(home, dialling)
            await until(lambda: observer.told != [])
            assert observer.told == ["resume_timeout"]


async def test_refused_and_silent_in_turn(dialling: Dialling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is shorter than the time; all of them together are longer."""
    monkeypatch.setattr(probing, "AGAIN", 0.0)
    address, timeout = nobody(), 2.0
    home = pool(needed=True, address=address, refused_timeout=timeout, dial_timeout=0.1)
    with capture_logs() as logs:
        async with running(home):
            observer = await dialled(home, dialling)
            runs = watched(home)
            together = 0.0
            while together <= timeout:
                seen = len(runs)
                await until(lambda seen=seen: len(runs) >= seen + 3)  # type: ignore[misc]
                with silent(address.port):
                    seen, together = len(ends(logs)), together + runs[-1]
                    await until(lambda seen=seen: len(ends(logs)) > seen)  # type: ignore[misc]
            assert observer.told == []
    assert {*ends(logs)} == {"none"}


def ends(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The answers that have ended a run of refusals."""
    return [entry["answer"] for entry in logs if entry["event"] == "peer refuses no longer"]


async def test_a_peer_that_listens_and_does_not_come_back_is_asked_who_it_is(dialling: Dialling) -> None:
    """Its machine was switched off and on: no refusal was seen."""
    home = pool(address=nobody(), refused_timeout=0.1)
    with socket.create_server((home.peer.address.host, home.peer.address.port)):
        async with running(home) as nursery:
            observer = await accepted(home, nursery)
            await dialling.begins()
            dialling.succeeds()
            await until(lambda: observer.told == ["peer_restarted"])


async def test_and_asked_again_if_it_gave_no_answer(dialling: Dialling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its proxy was about to stop, say, or slow to start."""
    monkeypatch.setattr(probing, "AGAIN", 0.05)
    monkeypatch.setattr(probing, "ASK_AGAIN", 0.05)
    home = pool(address=nobody(), refused_timeout=0.1)
    with socket.create_server((home.peer.address.host, home.peer.address.port), backlog=64):
        async with running(home) as nursery:
            observer = await accepted(home, nursery)
            await dialling.begins()
            dialling.fails(HandshakeError("the peer refused: draining", CloseReason.DRAINING))
            await dialling.begins()
            dialling.succeeds()
            await until(lambda: observer.told == ["peer_restarted"])


async def test_a_link_that_is_replaced_soon_is_no_reason_to_ask(dialling: Dialling) -> None:
    home = pool(needed=True, address=nobody(), refused_timeout=20)
    async with running(home):
        runs = watched(home)
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        theirs.close()
        await until(lambda: not home.links)
        dialling.succeeds()
        await until(lambda: home.up)
        assert runs == []
