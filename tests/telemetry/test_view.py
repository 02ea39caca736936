"""What the proxy tells about itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from control.api.messages import PeerStatus, ServiceStatus, UpstreamStatus
from proxy.core.finder import core
from proxy.errors import CloseReason
from proxy.mux.sizes import SLAB_SIZE
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


async def test_an_idle_proxy() -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]))
        status = agent.view.status()
        assert (status.host, status.pid, status.security) == ("host-a", os.getpid(), "none")
        assert status.core == core()
        assert (status.sessions, status.streams, status.streams_opened, status.streams_refused) == (0, 0, 0, 0)
        assert (status.memory_used, status.memory_limit) == (0, 512 << 20)
        assert status.handshakes_avoided == 0
        [peer] = status.peers
        assert peer == PeerStatus(
            name="host-b",
            address=hosts.addresses["host-b"],
            state="down",
            links=0,
            streams=0,
            waiting=0,
            last_error=None,
            retry_in_s=None,
            idle=True,
            ttl_s=peer.ttl_s,
            ttl_reason="no gap between uses seen yet",
        )
        assert agent.view.links() == list(agent.view.streams()) == []


async def test_streams_and_links_of_both_hosts() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        near, far = hosts.agents["host-a"].view, hosts.agents["host-b"].view
        await until(lambda: hosts.agents["host-a"].pools["host-b"].up, "the link")
        caller = hosts.call()
        await caller.send(b"request")
        accepted = await service.accept()
        assert await accepted.read(7) == b"request"
        await accepted.send(b"answer!!!")
        assert await caller.read(9) == b"answer!!!"

        [outbound], [inbound] = near.streams(), far.streams()
        assert (outbound.service, outbound.direction, outbound.peer) == ("echo", "outbound", "host-b")
        assert (inbound.service, inbound.direction, inbound.peer) == ("echo", "inbound", "host-a")
        assert (outbound.state, outbound.bytes_sent, outbound.bytes_received) == ("open", 7, 9)
        assert (inbound.state, inbound.bytes_sent, inbound.bytes_received) == ("open", 9, 7)
        assert outbound.credit == 256 * 1024 - 7
        assert outbound.buffered == 0

        [dialled], [taken] = near.links(), far.links()
        assert outbound.link == dialled.id
        assert (dialled.direction, taken.direction) == ("dialled", "accepted")
        assert (dialled.local, dialled.remote) == (taken.remote, taken.local)
        assert (dialled.peer, dialled.streams, dialled.congested) == ("host-b", 1, False)
        assert dialled.open_ms is not None
        assert dialled.open_ms > 0
        assert taken.open_ms is None
        assert dialled.bytes_sent >= 7 + 16
        assert dialled.bytes_received >= 9 + 16
        assert dialled.ttl_s is not None
        assert dialled.ttl_reason == "no gap between uses seen yet"
        assert (taken.ttl_s, taken.ttl_reason) == (None, "")
        assert (dialled.opened_why, taken.opened_why) == ("an upstream needs the peer", "")

        status = near.status()
        assert (status.sessions, status.streams, status.streams_opened, status.handshakes_avoided) == (1, 1, 1, 1)
        assert [peer.state for peer in status.peers] == ["up"]
        assert status.upstreams == [
            UpstreamStatus(service="echo", listen=hosts.upstream("host-a", "echo"), offered_by=["host-b"])
        ]
        assert far.status().services == [ServiceStatus(name="echo", deliver=service.address, streams=1)]


@pytest.mark.failure(7)
async def test_a_session_without_a_link() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        caller = hosts.call()
        await caller.send(b"x")
        await (await service.accept()).read(1)
        agent = hosts.agents["host-b"]
        [link] = agent.pools["host-a"].links
        link.doom(CloseReason.LINK_LOST, "cut")
        link.pump.settle()
        [shown], [stream] = agent.view.links(), agent.view.streams()
        assert (shown.id, shown.suspended_why) == (link.name, "link_lost: cut")
        assert shown.suspended_s is not None
        assert stream.suspended
        status = agent.view.status()
        assert (status.sessions, status.streams, status.peers[0].suspended) == (1, 1, 1)
        [peer] = status.peers
        assert (peer.suspended_streams, peer.suspended_bytes >= SLAB_SIZE) == (1, True)
        assert peer.suspended_s is not None
        assert peer.suspended_left_s == pytest.approx(900 - peer.suspended_s, abs=5)
        await until(lambda: agent.view.links()[0].suspended_s is None, "another link")
        assert (agent.view.links()[0].resumed, agent.view.status().peers[0].resumed) == (1, 1)
        assert not next(agent.view.streams()).suspended


async def test_handshakes_avoided() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        await until(lambda: hosts.agents["host-a"].pools["host-b"].up, "the link")
        for _ in range(5):
            caller = hosts.call()
            (await service.accept()).close()
            await caller.rest()
            caller.close()
        agent = hosts.agents["host-a"]
        await until(lambda: agent.stats.open == 0, "all over")
        status = agent.view.status()
        assert status.handshakes_avoided == status.peers[0].warm == 5
        assert (status.peers[0].handshakes, status.peers[0].ahead) == (1, 0)
        assert list(agent.view.streams()) == []


async def test_a_call_that_waits_and_one_that_stays_on_this_host() -> None:
    async with mesh() as hosts:
        service = hosts.service("near")
        upstreams = {name: {"listen": hosts.upstream("host-a", name)} for name in ("echo", "web")}
        agent = await hosts.start(
            "host-a",
            **hosts.peers(b=["echo"]),
            upstreams=upstreams,
            services={"web": {"deliver": service.address}},
            limits={"open_timeout": "20s"},
        )
        hosts.call(name="echo")
        local = hosts.call(name="web")
        await local.send(b"hello")
        assert await (await service.accept()).read(5) == b"hello"
        await until(lambda: agent.pools["host-b"].waiting, "waiting")
        streams = {stream.service: stream for stream in agent.view.streams()}
        assert (streams["echo"].state, streams["echo"].link, streams["echo"].direction) == (
            "waiting",
            None,
            "outbound",
        )
        assert (streams["web"].direction, streams["web"].bytes_sent, streams["web"].bytes_received) == ("local", 5, 0)
        status = agent.view.status()
        assert status.streams == 2
        assert status.peers[0].waiting == 1
        assert status.peers[0].state in ("dialling", "down")
        assert status.services == [ServiceStatus(name="web", deliver=service.address, streams=1)]
        assert {upstream.service: upstream.offered_by for upstream in status.upstreams} == {
            "echo": ["host-b"],
            "web": ["host-a"],
        }
        await until(lambda: agent.view.status().peers[0].last_error, "a dial that failed")


async def test_streams_that_end_or_change_while_they_are_told() -> None:
    """Each is told as it is when it is reached."""
    async with mesh() as hosts:
        service = hosts.service()
        agent = await hosts.start(
            "host-a", **hosts.peers(b=["echo"]), upstreams=upstream(hosts), limits={"open_timeout": "20s"}
        )
        hosts.call()
        await until(lambda: agent.pools["host-b"].waiting, "waiting")
        told = agent.view.streams()
        assert next(told).state == "waiting"
        again = agent.view.streams()
        for _ in range(2):
            hosts.call()
        await until(lambda: agent.pools["host-b"].waiting == 3, "three of them")
        assert next(again).state == "waiting"
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        await until(lambda: agent.pools["host-b"].streams == 3, "they are carried")
        assert [stream.peer for stream in again] == ["host-b"] * 2
        later = agent.view.streams()
        assert next(later).peer == "host-b"
        [session] = agent.pools["host-b"].sessions
        for lane in list(session.streams.values())[1:]:
            lane.guard(lane.abort, CloseReason.STOPPED)
        agent.pump.settle()
        assert list(told) == list(later) == []


def upstream(hosts: Mesh) -> dict[str, dict[str, str]]:
    return {"echo": {"listen": hosts.upstream("host-a", "echo")}}


async def test_bytes_for_a_slow_reader_are_counted() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(limits={"stream_credit": "64KiB"})
        caller = hosts.call()
        await service.accept()
        far = hosts.agents["host-b"].view
        await until(lambda: not caller.fill() and next(far.streams()).buffered, "bytes in the proxy")
        [stream] = far.streams()
        assert stream.buffered <= 64 * 1024
        assert far.status().memory_used >= stream.buffered


async def test_a_failed_call_is_counted() -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]))
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        assert await hosts.call().rest() == (b"", False)
        await until(lambda: agent.stats.open == 0, "the end")
        status = agent.view.status()
        assert (status.streams_refused, status.refused_by_reason) == (1, {"no_such_service": 1})
