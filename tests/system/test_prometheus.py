"""Debian's Prometheus scrapes real proxies and a control server: what the dashboard asks for is there, alerts work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from control.base.reading.addresses import TcpAddress
from control.base.reading.keys import ScrapeConfig
from proxy.errors import CloseReason
from tests.control.server.conftest import World, record, world
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until
from tests.rules.test_monitoring import RULES, panels, rules
from tests.telemetry.metrics.told import converse, free_port
from tests.tools.prometheus import PATIENCE, Prometheus

__all__ = ["world"]

pytestmark = pytest.mark.prometheus

OF_MEMBERS = ("hostlane_map_age_seconds", "hostlane_control_connected")
"""What a proxy without a control plane does not tell."""


def queries() -> Iterator[str]:
    """All of the dashboard that always have an answer."""
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            if not query.endswith("> 0") and not any(name in query for name in OF_MEMBERS):
                for name in ("instance", "service", "peer"):
                    query = query.replace(f"${name}", ".*")
                yield query.replace("$__rate_interval", "20s")


async def start(hosts: Mesh, near: int, far: int) -> Any:
    """host-a calls ``echo`` on host-b, ``here`` on itself, ``gone`` on a host that is not there, ``none`` in vain."""
    service, here = hosts.service(), hosts.service("here")
    await hosts.start(
        "host-b",
        **hosts.peers(a=[]),
        services={"echo": {"deliver": service.address}},
        telemetry={"listen": f"127.0.0.1:{far}"},
    )
    names = ("echo", "here", "gone", "none")
    await hosts.start(
        "host-a",
        **hosts.peers(b=["echo", "none"], c=["gone"]),
        services={"here": {"deliver": here.address}},
        upstreams={name: {"listen": hosts.upstream("host-a", name)} for name in names},
        telemetry={"listen": f"127.0.0.1:{near}"},
        limits={"open_timeout": "100ms"},
    )
    return service


async def traffic(hosts: Mesh, service: Any) -> None:
    """Something of all that is counted, again and again."""
    while True:
        await converse(hosts, service)
        for name in ("none", "gone"):
            await hosts.call(name=name).rest()
        agent = hosts.agents["host-a"]
        for link in agent.pools["host-b"].links:
            link.ping()
        await trio.sleep(0.2)


async def test_the_dashboard_has_data_and_alerts_fire(world: World, tmp_path: Path) -> None:
    near, far, plane = free_port(), free_port(), free_port()
    targets = [f"127.0.0.1:{port}" for port in (near, far, plane)]
    telemetry = ScrapeConfig(listen=TcpAddress("127.0.0.1", plane))
    async with (
        mesh(mtls=True, patience=4 * PATIENCE) as hosts,
        world.serving(telemetry=telemetry),
        world.client("host-a") as member,
    ):
        await member.register(record("host-a", "web"))
        service = await start(hosts, near, far)
        async with trio.open_nursery() as nursery, httpx.AsyncClient() as client:
            await until(lambda: hosts.agents["host-a"].pools["host-b"].up, "the link")
            nursery.start_soon(traffic, hosts, service)
            with Prometheus(tmp_path, targets, RULES) as prometheus:
                up = {}
                with trio.fail_after(PATIENCE):
                    while len(up) < 3 or set(up.values()) != {"1"}:
                        found = await prometheus.ask(client, "query", query="up")
                        up = {each["metric"]["instance"]: each["value"][1] for each in found["data"]["result"]}
                        await trio.sleep(0.2)
                [link] = hosts.agents["host-a"].pools["host-b"].links
                link.doom(CloseReason.LINK_LOST, "a test")
                hosts.agents["host-a"].pump.settle()
                left = set(queries())
                assert len(left) > 40
                with trio.move_on_after(PATIENCE):
                    while left:
                        for query in list(left):
                            found = await prometheus.ask(client, "query", query=query)
                            assert found["status"] == "success", (query, found)
                            if found["data"]["result"]:
                                left.discard(query)
                        await trio.sleep(0.5)
                assert left == set()
                told = await prometheus.ask(client, "rules")
                alerts = {rule["name"]: rule for group in told["data"]["groups"] for rule in group["rules"]}
                assert {name: rule["health"] for name, rule in alerts.items()} == {
                    rule["alert"]: "ok" for rule in rules()
                }
                active = [each["labels"]["service"] for each in alerts["HostlaneNoUsableHost"]["alerts"]]
                assert "gone" in active
                assert "echo" not in active
            nursery.cancel_scope.cancel()
