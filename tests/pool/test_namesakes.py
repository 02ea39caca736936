"""Two processes of one name, as their peer sees them, and what they hear of it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from time import monotonic
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from control.base.reading.units import service_name
from proxy.agent.agent import Agent
from proxy.mux.frames import NAMESAKE
from proxy.pool import namesakes
from proxy.pool.namesakes import Namesakes
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until

pytestmark = pytest.mark.failure("22")

PINGS = {"ping_interval": "1s", "ping_timeout": "1s"}


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namesakes, "LOOK", 0.05)


def ip(hosts: Mesh, host: str) -> str:
    return hosts.addresses[host].rpartition(":")[0]


async def twice(hosts: Mesh) -> tuple[Agent, Agent, Agent]:
    """host-a with links to two processes of the name host-b, one of which it has dialled; the other one is where host-c
    would be.
    """
    fast = {"links": PINGS}
    service = hosts.service()
    first = await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}}, **fast)
    upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
    peer = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, **fast)
    await until(lambda: peer.pools["host-b"].up, "the first link")
    other = {"other": {"listen": hosts.upstream("host-c", "other")}}
    config = hosts.config("host-c", {**hosts.peers(a=["other"]), "upstreams": other, **fast})
    second = hosts.agents["host-c"] = Agent(msgspec.structs.replace(config, host="host-b"))
    await hosts.run("host-c")
    await until(lambda: second.pools["host-a"].up, "the second link")
    return peer, first, second


async def test_the_peer_says_so_and_tells_both(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        peer, first, second = await twice(hosts)
        here, there = ip(hosts, "host-b"), ip(hosts, "host-c")
        await until(lambda: first.namesakes.told() and second.namesakes.told(), "both are told")
        [said] = [entry for entry in logs if entry["event"] == "two proxies bear the name of one host"]
        assert (said["peer"], said["at"]) == ("host-b", sorted((here, there)))
        name = "another proxy bears the name host-b"
        assert first.namesakes.told() == [f"{name}: at {there}; this one is at {here}, says host-a"]
        assert second.view.status().namesakes == [f"{name}: at {here}; this one is at {there}, says host-a"]
        told = [entry for entry in logs if entry["event"] == "another proxy bears this host's name"]
        assert {(entry["here"], *entry["others"]) for entry in told} == {(here, there), (there, here)}
        assert first.stats.failed == second.stats.failed == peer.stats.open == 0, "it is no stream"


async def test_a_restart_and_a_takeover_are_none(logs: list[MutableMapping[str, Any]]) -> None:
    """Links of the process before have ended, or are leaving."""
    async with mesh() as hosts:
        await hosts.pair(links=PINGS)
        peer = hosts.agents["host-a"]
        pool = peer.pools["host-b"]
        await until(lambda: pool.up, "a link")
        sections = {**hosts.peers(a=[]), "services": {"echo": {"deliver": "unix:/nowhere"}}}
        before = {link.session.instance for link in pool.links}
        await hosts.takeover("host-b", sections)
        await until(lambda: pool.up and not before & {link.session.instance for link in pool.links}, "the new one")
        for _ in range(3):
            peer.namesakes.look(monotonic())
        assert peer.namesakes._seen == {}
        assert not [entry for entry in logs if "two proxies" in entry["event"]]


def told(text: str) -> list[str]:
    found = Namesakes("host-b", list, lambda: None)
    found.heard_untrusted("host-a", text)
    return found.told()


@pytest.mark.parametrize("text", ["", "10.0.0.1 \x1b[2J", "x" * 200, "10.0.0.1, 10.0.0.2", "host-x"])
def test_what_is_no_address_is_not_shown(text: str) -> None:
    assert told(text) == []


@pytest.mark.failure("27")
def test_a_peer_that_says_something_else_each_time_is_one_kind_in_the_log(logs: list[MutableMapping[str, Any]]) -> None:
    found = Namesakes("host-b", list, lambda: None)
    for number in range(10):
        found.heard_untrusted("host-a", f"10.0.0.1 10.0.0.{number + 2}")
    assert [entry["kind"] for entry in logs] == [("host-a",)] * 10


def test_what_is_told_is_over_some_time_after_the_last_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told("fd00::1 10.0.0.2") == [
        "another proxy bears the name host-b: at 10.0.0.2; this one is at fd00::1, says host-a"
    ]
    assert told("10.0.0.1 10.0.0.1") == [
        "another proxy bears the name host-b: at 10.0.0.1; this one is at 10.0.0.1, says host-a"
    ]
    monkeypatch.setattr(namesakes, "KEPT", 0.0)
    assert told("10.0.0.1 10.0.0.2") == []


def test_no_service_can_have_that_name() -> None:
    with pytest.raises(ValueError, match="allowed"):
        service_name(NAMESAKE)
