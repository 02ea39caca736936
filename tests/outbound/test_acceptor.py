"""Calls that a link takes at once, without an object of their own. What else becomes of calls is in test_call.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from control.base.reading.addresses import UnixAddress
from proxy.config.schema import UpstreamConfig
from proxy.errors import CloseReason
from proxy.mux.frames import Open, decode_open_untrusted
from proxy.outbound import acceptor
from proxy.outbound.acceptor import KnownCaller, UpstreamAcceptor
from proxy.outbound.call import Call
from proxy.pump import options
from proxy.pump.opening import LEAST, MOST
from proxy.pump.ourselves import MAX_HOPS
from tests.pump.agents import mesh
from tests.pump.rig import KINDS, Kind, until
from tests.tools.sockets import parse


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


async def test_a_call_that_a_link_takes_is_told_as_any_other() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        await until(lambda: agent.pools["host-b"].up, "the link")
        caller = hosts.call()
        await caller.send(b"hello")
        accepted = await service.accept()
        assert await accepted.read(5) == b"hello"
        [lane] = agent.pools["host-b"].links[0].session.streams.values()
        assert isinstance(lane.observer, KnownCaller)
        assert not agent.outbound.context.calls
        [stream] = agent.view.streams()
        assert (stream.service, stream.direction, stream.peer) == ("echo", "outbound", "host-b")
        assert (stream.uid, stream.pid) == (os.getuid(), os.getpid())
        caller.close()
        await until(lambda: not agent.stats.open, "the end")


async def test_so_many_users_are_kept_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "MOST_KEPT", 2)
    async with mesh() as hosts:
        await hosts.pair()
        agent = hosts.agents["host-a"]
        context, pool = agent.outbound.context, agent.pools["host-b"]
        one = UpstreamAcceptor(context, "echo", UpstreamConfig(listen=UnixAddress("/x"), caller="shop"), None)
        for uid in (1, 2, 3, 2):
            assert decode_open_untrusted(one._know(uid, pool.name).written) == Open("echo", uid, "shop")
            assert len(one._callers) <= 2


async def test_a_call_that_no_link_takes_at_once_waits_as_a_call() -> None:
    async with mesh() as hosts:
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        caller = hosts.call()
        await caller.send(b"hello")
        await until(lambda: agent.outbound.context.calls, "the call")
        service = hosts.service()
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        assert await (await service.accept()).read(5) == b"hello"
        assert not agent.outbound.context.calls
        [lane] = agent.pools["host-b"].links[0].session.streams.values()
        assert isinstance(lane.observer, Call)


async def test_a_call_that_the_only_peer_refuses(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": f"unix:{hosts.folder}/missing"}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        await until(lambda: agent.pools["host-b"].up, "the link")
        caller = hosts.call()
        assert (await caller.rest()).received == b""
        await until(lambda: not agent.stats.open, "the end")
        [said] = [each for each in logs if each["event"] == "stream ended" and each["direction"] == "outbound"]
        assert (said["reason"], said["detail"]) == ("connect_failed", "by host-b")
        record = agent.outbound.context.ejections.record("echo", "host-b")
        assert record is not None
        assert record.failures == 1.0


async def test_what_another_services_hosts_did_costs_a_delivered_call_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        context = hosts.agents["host-a"].outbound.context
        context.ejections.failed("nobody calls it again", "host-b", CloseReason.CONNECT_FAILED, 0.0)
        told: list[str] = []
        monkeypatch.setattr(context.ejections, "succeeded", lambda service, host: told.append(service))
        await until(lambda: hosts.agents["host-a"].pools["host-b"].up, "the link")
        for held in (False, True):
            if held:
                context.ejections.failed("echo", "host-b", CloseReason.CONNECT_FAILED, 0.0)
            caller = hosts.call()
            await caller.send(b"hello")
            accepted = await service.accept()
            assert await accepted.read(5) == b"hello"
            await accepted.send(b"hello")
            assert await caller.read(5) == b"hello", "and so the answer to OPEN has come"
            assert told == ["echo"] * held


@pytest.mark.failure(18)
async def test_a_bug_between_accept_and_lane_loses_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        await until(lambda: agent.pools["host-b"].up, "the link")
        with monkeypatch.context() as patch:
            patch.setattr(agent.stats.counts, "called", None)
            assert await hosts.call().rest() == (b"", False)
        agent.stats.opened -= 1  # it was counted, and has no end that would be
        caller = hosts.call()
        await caller.send(b"hello")
        assert await (await service.accept()).read(5) == b"hello"


@pytest.mark.failure("28")
async def test_a_call_from_this_very_process_counts_a_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "own_pid", os.getpid())
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        await until(lambda: agent.pools["host-b"].up, "the link")
        caller = hosts.call()
        await caller.send(b"hello")
        accepted = await service.accept()
        assert await accepted.read(5) == b"hello"
        assert accepted.raw.getpeername().endswith(b"-1"), "so its next upstream can read it"
        [stream] = agent.view.streams()
        assert (stream.uid, stream.direction) == (os.getuid(), "outbound")


@pytest.mark.failure("28")
async def test_a_call_that_has_passed_too_many_upstreams_is_refused(logs: list[MutableMapping[str, Any]]) -> None:
    """A TCP caller that is known as our own connection, by its address."""
    async with mesh() as hosts:
        await hosts.pair("tcp")
        agent = hosts.agents["host-a"]
        await until(lambda: agent.pools["host-b"].up, "the link")
        family, target = parse(hosts.upstream("host-a", "echo", "tcp"))
        sock = socket.socket(family)
        sock.bind(("127.0.0.1", 0))
        agent.connector.own.add(sock, MAX_HOPS)
        caller = hosts.hold(sock)
        sock.connect_ex(target)
        assert await caller.rest() == (b"", True)
        await until(lambda: not agent.stats.open, "the end")
        [said] = [entry for entry in logs if entry["event"] == "stream ended"]
        assert (said["reason"], said["direction"]) == ("loop", "outbound")
        assert said["detail"].startswith(f"it has come through {MAX_HOPS + 1} upstreams")


@pytest.mark.failure("21b-c")
async def test_calls_that_end_unanswered_leave_the_window() -> None:
    """Their callers reset them, or their session ends: others' share would be smaller for ever."""
    async with mesh() as hosts:
        service = hosts.service(backlog=0)
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        await until(lambda: agent.pools["host-b"].up, "the link")
        window = agent.pump.openings.of("echo")
        callers = [hosts.call(kind="tcp") for _ in range(9)]
        await until(lambda: window.count == 8, "those that the service has no room for")
        for caller in callers[1:5]:
            caller.abort()
        await until(lambda: not window.count, "what the peer has handled")
        assert window.size == MOST // 16
        hosts.kill("host-b")
        await until(lambda: not agent.stats.open, "the end of all")
        assert window.size == MOST // 16, "whose callers did wait"
        assert not window.count


@pytest.mark.failure("21b-c")
@pytest.mark.parametrize("says", [b"", b"a question"])
@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("near", [False, True], ids=["over a link", "on one host"])
@pytest.mark.parametrize("kind", KINDS)
async def test_who_has_only_finished_does_wait_for_an_answer(
    kind: Kind, near: bool, says: bytes, closes: bool
) -> None:
    """TCP says it by what comes back for the answer."""
    async with mesh() as hosts:
        if near:
            service = hosts.service()
            agent = await hosts.start(
                "host-a",
                services={"echo": {"deliver": service.address}},
                upstreams={"echo": {"listen": hosts.upstream("host-a", "echo", kind)}},
            )
        else:
            service = await hosts.pair(kind)
            agent = hosts.agents["host-a"]
            await until(lambda: agent.pools["host-b"].up, "the link")
        window = agent.pump.openings.of("echo")
        window.size = LEAST
        for _ in range(4):
            caller = hosts.call(kind=kind)
            caller.raw.send(says)  # without a pause, in which the answer to OPEN might come
            if closes:
                caller.close()
            else:
                caller.finish()
            accepted = await service.accept()
            assert (await accepted.rest()).received == says
            if not closes or kind == "tcp":
                await accepted.send(b"an answer")
            accepted.close()
            if not closes:
                assert (await caller.rest()).received == b"an answer"
        await until(lambda: not agent.stats.open, "the end of all")
        assert window.size == (LEAST if closes else LEAST + 4)


async def test_a_user_is_found_once_until_edges_are_forgotten() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        await until(lambda: agent.pools["host-b"].up, "the link")
        found = []
        for _ in range(3):
            caller = hosts.call()
            await caller.send(b"hello")
            assert await (await service.accept()).read(5) == b"hello"
            [*_, lane] = agent.pools["host-b"].links[0].session.streams.values()
            found.append(lane.observer)
            if len(found) == 2:
                for holder in agent.stats.edges._holders:
                    holder.forget_edges()
        assert found[0] is found[1] is not found[2]
        assert [observer.uid for observer in found] == 3 * [os.getuid()]
