"""Delivering what peers open at once, and who does not get it (what takes time is in test_inbound.py)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from control.base.tokenbucket import TokenBucket
from proxy.errors import CloseReason
from proxy.inbound import delivery
from proxy.inbound.inbound import SLACK
from proxy.mux.frames import Open, Via, encode_open
from proxy.pump.lane import Lane
from proxy.pump.proxyheader import header
from tests.pump.agents import Mesh, Service, mesh
from tests.pump.rig import KINDS, Kind, until


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def ended(logs: list[MutableMapping[str, Any]], direction: str) -> list[tuple[str, str]]:
    return [
        (entry["reason"], entry["detail"])
        for entry in logs
        if entry["event"] == "stream ended" and entry["direction"] == direction
    ]


@pytest.mark.failure(2, 16)
@pytest.mark.parametrize("kind", KINDS)
async def test_delivered(kind: Kind) -> None:
    async with mesh() as hosts:
        service = await hosts.pair(to=kind)
        caller = hosts.call()
        accepted = await service.accept()
        await accepted.send(b"speaks first")
        assert await caller.read(12) == b"speaks first"
        agent = hosts.agents["host-b"]
        assert agent.inbound.open["echo"].count == agent.stats.open == 1
        caller.finish()
        assert await accepted.rest() == (b"", False)
        await accepted.send(b"answer")
        accepted.close()
        assert await caller.rest() == (b"answer", False)
        await until(lambda: agent.stats.open == 0, "the end")
        assert agent.inbound.open["echo"].count == 0
        assert agent.stats.failed == 0


@pytest.mark.failure(18)
async def test_a_bug_in_delivering_one_stream_costs_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service = await hosts.pair("tcp")
        first = hosts.call(kind="tcp")
        accepted = await service.accept()
        monkeypatch.setattr(hosts.agents["host-b"].inbound, "_local_services", None)
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        monkeypatch.undo()
        await first.send(b"still here")
        assert await accepted.read(10) == b"still here"
        second = hosts.call(kind="tcp")
        await second.send(b"and others")
        assert await (await service.accept()).read(10) == b"and others"


async def guarded(hosts: Mesh, kind: Kind = "tcp", caller: str | None = None, **keys: Any) -> Service:
    """host-a calls ``echo``, which host-b offers with these keys; callers of host-a have this name."""
    service = hosts.service(kind=kind)
    await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address, **keys}})
    upstream = {"listen": hosts.upstream("host-a", "echo"), **({"caller": caller} if caller else {})}
    await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams={"echo": upstream})
    return service


@pytest.mark.parametrize(
    "rule",
    [{"host": "host-a"}, {"service": "shop"}, {"uid": os.getuid()},
     {"host": "host-a", "service": "shop", "uid": os.getuid()}],
    ids=str,
)  # fmt: skip
async def test_a_caller_that_a_rule_fits(rule: dict[str, Any]) -> None:
    async with mesh() as hosts:
        service = await guarded(hosts, caller="shop", allow=[{"uid": os.getuid() + 1}, rule])
        caller = hosts.call()
        await caller.send(b"hello")
        assert await (await service.accept()).read(5) == b"hello"


@pytest.mark.parametrize(
    "rules", [[], [{"host": "host-b"}], [{"service": "billing"}], [{"host": "host-a", "uid": os.getuid() + 1}]], ids=str
)
async def test_a_caller_that_no_rule_fits_is_refused_told_logged_and_counted(
    rules: list[dict[str, Any]], logs: list[MutableMapping[str, Any]]
) -> None:
    async with mesh() as hosts:
        await guarded(hosts, caller="shop", allow=rules)
        caller = hosts.call()
        await caller.send(b"early")
        assert (await caller.rest()).received == b""
        far = hosts.agents["host-b"]
        await until(lambda: far.stats.open == hosts.agents["host-a"].stats.open == 0, "the end")
        assert ended(logs, "inbound") == [("not_allowed", f"caller shop, uid {os.getuid()}")]
        assert ended(logs, "outbound") == [("not_allowed", "by host-b")]
        assert far.stats.failed == 1


async def test_a_caller_through_tcp_has_no_uid(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        services = {"echo": {"deliver": "tcp:127.0.0.1:9", "allow": [{"uid": os.getuid()}]}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=services)
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo", "tcp")}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        assert await hosts.call(kind="tcp").rest() == (b"", True)
        await until(lambda: ended(logs, "inbound"), "the end")
        assert ended(logs, "inbound") == [("not_allowed", "caller unknown, no uid")]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_service_is_told_who_calls_before_the_first_byte(kind: Kind) -> None:
    async with mesh() as hosts:
        service = await guarded(hosts, kind, caller="shop", proxy_protocol="v2")
        caller = hosts.call()
        await caller.send(b"early")
        accepted = await service.accept()
        far = hosts.agents["host-b"]
        [link] = far.pools["host-a"].links
        wanted = header(Open("echo", os.getuid(), "shop"), "host-a", link.remote_address, link.local_address)
        assert await accepted.read(len(wanted) + 5) == wanted + b"early"
        [lane] = link.session.streams.values()
        assert (lane.bytes_received, lane.buffered) == (5, 0), "the header costs the stream no credit"
        await accepted.send(b"answer")
        assert await caller.read(6) == b"answer"
        silent = hosts.call()
        assert await (await service.accept()).read(len(wanted)) == wanted
        silent.finish()


@pytest.mark.failure(20)
async def test_a_header_that_the_socket_does_not_take_at_once_is_never_half() -> None:
    """It waits with the early bytes behind it, like any bytes for a socket that is full."""
    taken = 0

    class Reluctant(Lane):
        def _send(self, data: bytearray) -> int:
            nonlocal taken
            taken += 1
            return -errno.EAGAIN if taken % 3 == 1 else super()._send(data[:7])

    async with mesh() as hosts:
        service = await guarded(hosts, proxy_protocol="v2")
        for link in hosts.agents["host-b"].pools["host-a"].links:
            link.session._stream_type = Reluctant
        caller = hosts.call()
        await caller.send(b"early")
        accepted = await service.accept()
        [link] = hosts.agents["host-b"].pools["host-a"].links
        wanted = header(Open("echo", os.getuid()), "host-a", link.remote_address, link.local_address)
        await caller.send(bytes(100))
        caller.finish()
        assert await accepted.rest() == (wanted + b"early" + bytes(100), False)
        assert taken > len(wanted) / 7


@pytest.mark.failure(19)
async def test_no_budget_for_a_header(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        await guarded(hosts, proxy_protocol="v2")
        budget = hosts.agents["host-b"].pump.budget
        assert budget.take(budget.limit)
        caller = hosts.call()
        assert (await caller.rest()).received == b""
        await until(lambda: ended(logs, "inbound"), "the end")
        assert ended(logs, "inbound") == [("over_budget", "")]
        budget.give(budget.limit)


@pytest.mark.failure(18)
async def test_a_peer_that_opens_too_fast_is_told_and_its_streams_go_on(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        service = await guarded(hosts)
        far = hosts.agents["host-b"]
        await until(lambda: len(far.pools["host-a"].links) == 1, "the link")
        (session,) = far.pools["host-a"].sessions
        session.local = replace(session.local, opens_per_second=3)  # as if its peer had not listened
        far.inbound._opens["host-a", 3] = TokenBucket(rate=1e-9, burst=3)
        callers = [hosts.call() for _ in range(3)]
        accepted = [await service.accept() for _ in callers]
        for _ in range(5):
            assert (await hosts.call().rest()).received == b""
        await until(lambda: far.stats.open == 3, "the ends")
        for caller in callers:
            await caller.send(b"still here")
        assert sorted([await each.read(10) for each in accepted]) == [b"still here"] * 3
        why = "the peer opens more than 3 streams a second"
        assert ended(logs, "inbound") == [("overloaded", why)] * 5
        assert ended(logs, "outbound") == [("overloaded", "by host-b")] * 5


async def test_each_peer_has_a_rate_of_its_own() -> None:
    async with mesh() as hosts:
        far = await hosts.start("host-b", **hosts.peers(a=[], c=[]), limits={"opens_per_second": 7})
        assert sum(far.inbound._bucket("host-a", 7).take(0.0) for _ in range(20)) == 7 + SLACK
        assert far.inbound._bucket("host-c", 7).take(0.0)


async def test_callers_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they say and who says it, however the call has come there."""
    monkeypatch.setattr(delivery, "MOST_KEPT", 3)
    async with mesh() as hosts:
        await hosts.pair()
        local = hosts.agents["host-b"].inbound._local_services["echo"]
        shop, again, other = Open("echo", 1, "shop"), Open("echo", 1, "shop"), Open("echo", 2, "shop")
        one = local.caller("host-a", shop)
        assert local.caller("host-a", shop) is local.caller("host-a", again) is one
        assert len({one, local.caller("host-a", other), local.caller("host-c", shop)}) == 3
        local.forget("host-c")
        assert local.caller("host-a", shop) is one
        local.caller("host-c", other)
        local.caller("host-d", other)
        assert local.caller("host-a", shop) is not one, "there were too many"


async def test_a_call_that_says_its_way_is_no_other_caller() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        near, far = hosts.agents["host-a"], hosts.agents["host-b"]
        await until(lambda: near.pools["host-b"].up, "the link")
        for port in (1000, 1001):
            call = Open("echo", 1, "shop", Via(0, ("10.9.9.9", port)))
            lane = near.pools["host-b"].links[0].session.open(encode_open(call))
            near.pump.settle()
            await service.accept()
            lane.abort(CloseReason.ABORTED)
            near.pump.settle()
        assert [len(callers) for callers in far.inbound._local_services["echo"]._callers.values()] == [1]
        await until(lambda: not far.stats.open, "the end")
