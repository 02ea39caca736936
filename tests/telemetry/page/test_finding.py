"""Since when something is wrong is known, whether anybody asks or not; and the control server is told."""

from __future__ import annotations

import os
import time

import trio

from proxy.telemetry.page.finding import EVERY
from tests.pump.agents import mesh
from tests.pump.rig import until
from tests.telemetry.metrics.told import free_port


async def test_it_is_known_since_when_though_nobody_has_asked() -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]))
        page = {"listen": f"127.0.0.1:{free_port()}", "page": True}
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), telemetry=page, upstreams=upstreams)
        await until(lambda: agent.pools["host-b"].up, "the link")
        hosts.kill("host-b")
        await until(lambda: ("host", "host-b") in agent.finder._noticed.times, "somebody has looked")
        noticed = dict(agent.finder._noticed.times)
        await trio.sleep(2 * EVERY)
        found = {(each.kind, each.name): each.since for each in (await agent.finder.find()).problems}
        assert found == noticed
        assert found.keys() == {("host", "host-b"), ("service", "echo")}
        assert all(since < time.time() - EVERY for since in found.values())
        told = await agent.finder.told()
        assert {(each.kind, each.name) for each in told} == found.keys()
        assert all(each.lasts_s >= EVERY for each in told)


async def test_who_tells_is_told_of_what_begins() -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]))
        page = {"listen": f"127.0.0.1:{free_port()}", "page": True}
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), telemetry=page, upstreams=upstreams)
        await until(lambda: agent.pools["host-b"].up, "the link")
        agent.finder.look()
        told: list[set[tuple[str, str]]] = []
        agent.finder.changed = lambda: told.append(agent.finder._last)
        agent.finder.look()
        assert told == []
        hosts.kill("host-b")
        await until(lambda: ("host", "host-b") in told[-1] if told else False, "a look")
        await until(lambda: ("service", "echo") in told[-1], "what follows")
        count = len(told)
        agent.finder.look()
        assert len(told) == count


async def test_what_knows_its_own_age() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        os.unlink(service.address.removeprefix("unix:"))
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo"), "caller": "shop"}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        await until(lambda: agent.pools["host-b"].up, "the link")
        await hosts.call().rest()
        [problem] = (await agent.finder.find()).problems
        assert (problem.kind, problem.name) == ("service", "echo at host-b")
        assert 0 <= time.time() - problem.since < 60
