"""The CONNECT socket: whom it takes, what it leads to, and what it bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.config.schema import parse
from proxy.errors import ConfigError
from proxy.outbound import connectsocket
from proxy.pump.openings import UnderWay
from tests.outbound.test_connectcall import HEAD, OK, caller_of, connect_to, refused
from tests.pump.agents import mesh
from tests.pump.rig import KINDS, Kind, until


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.mark.parametrize("kind", KINDS)
async def test_what_it_leads_to(kind: Kind, logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        service = hosts.service()
        offered = {name: {"deliver": service.address} for name in ("echo", "bank")}
        agent = await hosts.start("host-a", services=offered, **connect_to(hosts, kind))
        for name, leads_to, expected in [
            ("late", "all", (404, "no_such_service")),
            ("bank", ["echo"], (403, "not_allowed")),
        ]:
            agent.apply(hosts.config("host-a", {"services": offered, **connect_to(hosts, kind, leads_to)}))
            caller = caller_of(hosts, kind)
            await caller.send(HEAD.replace(b"echo:", name.encode() + b":"))
            assert await refused(caller) == (*expected, False)
        caller = caller_of(hosts, kind)
        await caller.send(HEAD)
        await service.accept()
        assert await caller.read(len(OK)) == OK
        assert {reason.label for reason in agent.stats.failures} == {"not_allowed", "no_such_service"}
        status = agent.view.status()
        assert status.connect is not None
        assert (status.connect.services, status.connect.open) == (["echo"], 1)
    said = [(each["service"], each["reason"], each["why"]) for each in logs if each["event"] == "CONNECT refused"]
    assert said == [
        ("late", "no_such_service", "no host offers it"),
        ("bank", "not_allowed", "it does not stand in connect.services"),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"PING\r\n\r\n", 400),
        (b"CONNECT echo HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (HEAD[:-2] + b"A: " + bytes(b"a" * 20_000), 431),
    ],
)
async def test_requests_that_lead_nowhere(kind: Kind, sent: bytes, status: int) -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **connect_to(hosts, kind))
        caller = caller_of(hosts, kind)
        await caller.send(sent)
        assert await refused(caller) == (status, "", False)
        await until(lambda: agent.stats.open == 0, "the end")
        assert (agent.stats.aborted, agent.outbound.connect.open) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_callers_that_leave(kind: Kind) -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **connect_to(hosts, kind))
        for sent in (b"", HEAD[:10]):
            caller = caller_of(hosts, kind)
            await caller.send(sent)
            await until(lambda: agent.stats.open == 1, "it is there")
            caller.close()
            await until(lambda: agent.stats.open == 0, "it is not")
        assert agent.stats.failures == {}
        assert agent.outbound.connect.callers == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.failure(4)
async def test_slow_heads(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a time, a number, and a shorter time when there are many; others are served meanwhile."""
    monkeypatch.setattr(connectsocket, "PATIENCE", 0.3)
    monkeypatch.setattr(connectsocket, "IN_A_CROWD", 0.05)
    async with mesh() as hosts:
        service = hosts.service()
        services = {"echo": {"deliver": service.address}}
        agent = await hosts.start("host-a", services=services, **connect_to(hosts, kind))
        slow = [caller_of(hosts, kind) for _ in range(300)]
        for caller in slow:
            await caller.send(HEAD[:20])
        caller = caller_of(hosts, kind)
        await caller.send(HEAD)
        await service.accept()
        assert await caller.read(len(OK)) == OK
        assert {(await refused(each))[0] for each in slow} == {408}
        silent = caller_of(hosts, kind)
        assert await silent.rest() == (b"", False)
        await until(lambda: agent.stats.open == 1, "only the call is left")
        assert agent.outbound.connect.window.count == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_only_so_many_heads_at_a_time(kind: Kind) -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **connect_to(hosts, kind))
        callers = [caller_of(hosts, kind) for _ in range(connectsocket.MOST + 10)]
        await until(lambda: agent.outbound.connect.window.is_full(), "the window is full")
        assert len(agent.outbound.connect.callers) == connectsocket.MOST
        for caller in callers:
            caller.close()
        await until(lambda: agent.stats.open == 0, "all are gone")
        assert agent.stats.opened == connectsocket.MOST + 10


async def test_a_reload_changes_what_it_leads_to_and_where_it_is() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        services = {name: {"deliver": service.address} for name in ("echo", "bank")}
        agent = await hosts.start("host-a", services=services)
        assert agent.view.status().connect is None
        for section, allowed in [(["echo"], True), (["bank"], False), ("all", True)]:
            agent.apply(hosts.config("host-a", {"services": services, **connect_to(hosts, "tcp", section)}))
            caller = caller_of(hosts, "tcp")
            await caller.send(HEAD)
            if allowed:
                assert await caller.read(len(OK)) == OK
                await service.accept()
            else:
                assert (await refused(caller))[0] == 403
        changed = agent.apply(hosts.config("host-a", {"services": services, **connect_to(hosts, "unix")}))
        assert [change.key for change in changed.changes] == ["connect.listen"]
        caller = caller_of(hosts, "unix")
        await caller.send(HEAD)
        assert await caller.read(len(OK)) == OK
        with pytest.raises(ConnectionRefusedError):
            caller_of(hosts, "tcp")
        agent.apply(hosts.config("host-a", {"services": services}))
        with pytest.raises(FileNotFoundError):
            caller_of(hosts, "unix")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_takeover_refuses_nobody(kind: Kind) -> None:
    async with mesh() as hosts:
        service = hosts.service()
        sections = {"services": {"echo": {"deliver": service.address}}, **connect_to(hosts, kind)}
        await hosts.start("host-a", **sections)
        before, half = caller_of(hosts, kind), caller_of(hosts, kind)
        await before.send(HEAD)
        assert await before.read(len(OK)) == OK
        first = await service.accept()
        await half.send(HEAD[:20])
        old = hosts.agents["host-a"]
        await until(lambda: len(old.outbound.connect.callers) == 1, "half a head is there")
        await hosts.takeover("host-a", sections)
        await half.send(HEAD[20:])
        assert await half.read(len(OK)) == OK
        await service.accept()
        await before.send(b"goes on")
        assert await first.read(7) == b"goes on"
        after = caller_of(hosts, kind)
        await after.send(HEAD)
        assert await after.read(len(OK)) == OK
        assert old.stats.opened == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stop_answers_those_who_have_begun(kind: Kind) -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **connect_to(hosts, kind), limits={"stop_timeout": "500ms"})
        silent, half = caller_of(hosts, kind), caller_of(hosts, kind)
        await half.send(HEAD[:20])
        await until(lambda: len(agent.outbound.connect.callers) == 2, "both are there")
        agent._stop(0.5)
        assert await refused(half) == (503, "stopped", False)
        await silent.rest()
        await until(lambda: agent.stats.open == 0, "nobody is left")


async def test_a_service_delivered_to_it_is_refused() -> None:
    async with mesh() as hosts:
        listen = hosts.upstream("host-a", "connect", "tcp")
        with pytest.raises(Exception, match=r"where connect\.listen listens"):
            hosts.config("host-a", {"services": {"echo": {"deliver": listen}}, **connect_to(hosts, "tcp")})


async def test_callers_wait_for_their_turn_when_too_many_have_no_answer() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        services = {"echo": {"deliver": service.address}}
        agent = await hosts.start("host-a", services=services, **connect_to(hosts, "unix"))
        window = agent.pump.openings.of("echo")
        heads = UnderWay(connectsocket.Heads())
        stuck = [window.add(heads) for _ in range(connectsocket.MOST)]
        caller = caller_of(hosts, "unix")
        await caller.send(HEAD)
        await until(lambda: bool(window._waiting), "it waits")
        for each in stuck:
            window.drop(each)
        await service.accept()
        assert await caller.read(len(OK)) == OK


def test_configuration_mistakes() -> None:
    base = {"host": "host-a", "links": {"listen": "10.77.0.1:7600", "security": "none"}}

    def problems(**connect: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            parse(json.dumps({**base, "connect": connect}), "a.yaml")
        return [line.split("a.yaml:1: ")[1] for line in caught.value.problems]

    tcp = "tcp:127.0.0.1:7680"
    assert problems(listen=tcp) == [
        "connect.services: missing; allowed: all, or a list of services such as [redis, web]"
    ]
    assert problems(listen=tcp, services="redis") == [
        'connect.services: found "redis"; allowed: all, or a list of services such as [redis, web]'
    ]
    assert problems(listen=tcp, services=["a", "a"]) == [
        'connect.services: found "a", a second time; allowed: each service once'
    ]
    assert problems(listen=tcp, services=["redis"]) == [
        'connect.services: found no peer and no service of this host that offers "redis"; allowed: none so far'
    ]
    assert problems(listen=tcp, services="all", mode="0660") == [
        "connect.mode: found with a tcp: socket, which has none; allowed: with unix: only"
    ]
    assert problems(listen="unix:/run/hostlane/c.sock", services="all")[0].startswith(
        'connect.listen: found "unix:/run/hostlane/c.sock", in run_dir'
    )
