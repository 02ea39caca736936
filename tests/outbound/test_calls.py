"""What calls share: which hosts are left alone because calls failed there, and which one a call gets."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.agent.agent import Agent
from proxy.outbound import calls
from tests.pump.agents import mesh, two_peers
from tests.pump.rig import until
from tests.tools.sockets import PATIENCE


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


async def test_a_host_that_fails_is_ejected_and_comes_back_when_it_delivers(
    logs: list[MutableMapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(calls, "monotonic", lambda: now)
    async with mesh() as hosts:
        service = hosts.service("good")
        await two_peers(
            hosts, {"echo": {"deliver": f"unix:{hosts.folder}/bad.service"}}, {"echo": {"deliver": service.address}}
        )
        outbound = hosts.agents["host-a"].outbound

        async def one_call() -> None:
            await hosts.call(kind="tcp").send(b"x")
            assert await (await service.accept()).read(1) == b"x"

        for _ in range(200):
            await one_call()
            if outbound.context.ejected("echo"):
                break
        assert outbound.context.ejected("echo") == {"host-b"}
        [entry] = [entry for entry in logs if entry["event"] == "host ejected"]
        assert (entry["offered_by"], entry["reason"], entry["for_s"]) == ("host-b", "connect_failed", 30)
        refused = hosts.agents["host-b"].stats.failed
        for _ in range(20):
            await one_call()
        assert hosts.agents["host-b"].stats.failed == refused, "left alone"
        now = 31.0
        late = hosts.service("bad")
        caller = hosts.call(kind="tcp")
        for _ in range(200):
            await caller.send(b"x")
            with trio.move_on_after(0.01):
                await (await late.accept()).read(1)
                break
            caller = hosts.call(kind="tcp")
        await until(lambda: outbound.context.ejections.record("echo", "host-b") is None, "nothing held against it")


async def test_the_service_of_this_host_is_passed_over_when_it_fails_and_a_peer_does_not() -> None:
    async with mesh() as hosts:
        far = hosts.service("far")
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": far.address}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        services = {"echo": {"deliver": f"unix:{hosts.folder}/missing"}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, services=services)
        await until(lambda: agent.pools["host-b"].up, "the link")
        for _ in range(5):
            await hosts.call().send(b"hello")
            assert await (await far.accept()).read(5) == b"hello"
        assert agent.outbound.context.ejected("echo") == {"host-a"}
        assert agent.outbound.context.endpoints("echo")[0] is None
        hosts.kill("host-b")
        await until(lambda: not agent.pools["host-b"].up, "the loss")
        assert agent.outbound.context.endpoints("echo")[0] is not None, "nobody else is there"


def holding(agent: Agent, service: str) -> int:
    """Descriptors of a service's calls, counted one by one: the callers', and the service's where it is here."""
    context = agent.outbound.context
    splices = sum(call.service == service for call in context.splices.values())
    sessions = (session for pool in agent.pools.values() for session in pool.sessions)
    observers = [lane.observer for session in sessions for lane in session.streams.values()]
    lanes = sum(each.direction == "outbound" and each.service == service for each in observers)
    return 2 * splices + sum(call.service == service for call in context.calls) + lanes


@pytest.mark.failure("21b-b")
async def test_what_calls_hold_is_counted_right_through_thousands_of_lives() -> None:
    """Delivered here and at a peer, refused by one or by all; ended by either side, cleanly or not; while an upstream
    is removed and comes back.
    """
    random = Random(1)
    async with mesh(patience=4 * PATIENCE) as hosts:
        far, here = hosts.service("far"), hosts.service("here")
        await hosts.start(
            "host-b",
            **hosts.peers(a=[]),
            services={"far": {"deliver": far.address}, "refused": {"deliver": f"unix:{hosts.folder}/nobody"}},
        )
        names = ["far", "here", "refused"]
        sections: dict[str, Any] = {
            **hosts.peers(b=["far", "refused"]),
            "services": {"here": {"deliver": here.address}},
            "upstreams": {name: {"listen": hosts.upstream("host-a", name)} for name in names},
        }
        agent = await hosts.start("host-a", **sections)
        fewer = sections | {"upstreams": {name: sections["upstreams"][name] for name in names[1:]}}
        context = agent.outbound.context

        async def serve(service: Any) -> None:
            while True:
                end = await service.accept()
                if random.random() < 0.3:
                    await trio.sleep(0)
                if random.random() < 0.3:
                    with suppress(OSError):
                        end.raw.send(b"x")
                end.close()

        async def live(number: int) -> None:
            for _ in range(number):
                try:
                    caller = hosts.call(name=random.choice(names))
                except OSError:  # the upstream is away
                    await trio.sleep(0)
                    continue
                with suppress(OSError):
                    if random.random() < 0.7:
                        await caller.send(bytes(random.choice((1, 1000, 30_000))))
                    if random.random() < 0.5:
                        await caller.rest()
                caller.close()

        async def compare() -> None:
            for turn in range(10_000):
                await trio.sleep(0.003)
                assert {name: context.held_by(name) for name in names} == {name: holding(agent, name) for name in names}
                if turn % 10 == 3:
                    agent.apply(hosts.config("host-a", fewer if turn % 20 < 10 else sections))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, far)
            nursery.start_soon(serve, here)
            nursery.start_soon(compare)
            async with trio.open_nursery() as lives:
                for _ in range(10):
                    lives.start_soon(live, 200)
            # The services serve on: what nobody accepts waits in their backlogs, and its stream with it.
            await until(lambda: agent.stats.open == 0, "all have ended")
            nursery.cancel_scope.cancel()
        assert agent.stats.opened > 1000
        assert not any(tally.count for tally in context.held.values())
