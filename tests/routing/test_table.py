"""The routing table of a static mesh."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec
import pytest

from control.base.reading.addresses import TcpAddress
from proxy.config.schema import Config, PeerConfig, parse
from proxy.routing.table import RoutingTable, ServiceHosts, called


def config(**sections: Any) -> Config:
    base = {"host": "host-a", "links": {"listen": "127.0.0.1:7600", "security": "none"}}
    return parse(json.dumps({**base, **sections}), "test.yaml")


PEERS = {
    "host-b": {"address": "127.0.0.2:7600", "services": ["redis", "web"]},
    "host-c": {"address": "127.0.0.3:7600", "services": ["redis"]},
    "host-d": {"address": "127.0.0.4:7600"},
}


def test_peers_in_the_order_of_the_configuration() -> None:
    table = RoutingTable.from_config(config(peers=PEERS, upstreams={"redis": {"listen": "unix:/run/x/redis.sock"}}))
    assert table.find("redis") == ServiceHosts("redis", local=False, peers=("host-b", "host-c"))


def test_a_service_of_this_host() -> None:
    table = RoutingTable.from_config(config(services={"web": {"deliver": "unix:/srv/web.sock"}}))
    assert table.find("web") == ServiceHosts("web", local=True, peers=())


def test_a_service_of_this_host_and_a_peer() -> None:
    table = RoutingTable.from_config(config(peers=PEERS, services={"web": {"deliver": "unix:/srv/web.sock"}}))
    assert table.find("web") == ServiceHosts("web", local=True, peers=("host-b",))


def test_a_service_that_nobody_offers() -> None:
    assert RoutingTable().find("nothing") == ServiceHosts("nothing", local=False, peers=())


def test_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RoutingTable().routes = {}  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServiceHosts("a", True, ()).local = False  # type: ignore[misc]


def test_a_peer_that_names_a_service_twice_offers_it_once() -> None:
    """No file says so; a map that somebody else made might."""
    twice = PeerConfig(address=TcpAddress("127.0.0.2", 1), services=("web", "web"))
    found = msgspec.structs.replace(config(services={"web": {"deliver": "unix:/x"}}), peers={"host-b": twice})
    assert RoutingTable.from_config(found).find("web").peers == ("host-b",)


@pytest.mark.parametrize(
    ("services", "names"), [("all", {"redis", "web", "own"}), (["redis"], {"redis"}), ([], set())]
)
def test_what_the_connect_socket_leads_to_has_routes(services: object, names: set[str]) -> None:
    connect = {"listen": "tcp:127.0.0.1:7680", "services": services}
    found = config(peers=PEERS, services={"own": {"deliver": "unix:/srv/own.sock"}}, connect=connect)
    assert called(found) == names
    table = RoutingTable.from_config(found)
    assert set(table.routes) == names | {"own"}
    if "redis" in names:
        assert table.find("redis").peers == ("host-b", "host-c")


@pytest.mark.parametrize(
    ("offered", "needs"),
    [
        ([], []),
        (["redis"], []),
        (["web"], ["host-b"]),
        (["redis", "web"], ["host-b"]),
        (["redis", "mine"], ["host-b", "host-c", "host-d"]),
    ],
)
def test_who_has_nobody_else_for_a_service_of_this_host(offered: list[str], needs: list[str]) -> None:
    """A peer is no other host for itself."""
    services = {name: {"deliver": f"unix:/srv/{name}.sock"} for name in offered}
    table = RoutingTable.from_config(config(peers=PEERS, services=services))
    assert [peer for peer in PEERS if table.needed_by(peer)] == needs
