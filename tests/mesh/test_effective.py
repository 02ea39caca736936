"""From the file and the map to one configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest

from control.api.mesh import HostRecord, ServiceOffer
from control.base.reading.addresses import TcpAddress, UnixAddress
from proxy.config.schema import Config, ConnectConfig, LinksConfig, PeerConfig, UpstreamConfig, parse
from proxy.mesh.effective import EffectiveConfig, needed
from proxy.routing.table import RoutingTable

BASE = {"host": "host-a", "links": {"listen": "10.0.0.1:7600"}, "control": {"servers": ["10.0.0.9:7601"]}}


def static(**sections: Any) -> Config:
    return parse(json.dumps({**BASE, **sections}), "test.yaml")


def record(name: str, address: str, *services: str) -> HostRecord:
    offers = tuple(ServiceOffer(name=service) for service in services)
    return HostRecord(name=name, address=address, instance="1", services=offers)


def hosts(*records: HostRecord) -> dict[str, HostRecord]:
    return {each.name: each for each in records}


B = record("host-b", "10.0.0.2:7600", "redis", "web")
C = record("host-c", "10.0.0.3:7600", "redis")
REDIS = {"redis": {"listen": "unix:/x/redis.sock"}}


def test_hosts_become_peers() -> None:
    found = EffectiveConfig(static(upstreams=REDIS)).config(hosts(B, C, record("host-a", "10.0.0.1:7600", "own")))
    assert found.peers == {
        "host-b": PeerConfig(address=TcpAddress("10.0.0.2", 7600), services=("redis", "web")),
        "host-c": PeerConfig(address=TcpAddress("10.0.0.3", 7600), services=("redis",)),
    }
    assert found.upstreams == {"redis": UpstreamConfig(listen=UnixAddress("/x/redis.sock"))}


def test_without_a_map_it_is_what_the_file_says() -> None:
    file = static(upstreams=REDIS, peers={"host-b": {"address": "10.0.0.2:7600", "services": ["redis"]}})
    assert EffectiveConfig(file).config({}) == file


def test_a_peer_of_the_file_is_as_the_file_says() -> None:
    effective = EffectiveConfig(static(peers={"host-b": {"address": "10.9.9.9:7600", "services": ["ledger"]}}))
    found = effective.config(hosts(B, C))
    assert found.peers["host-b"] == PeerConfig(address=TcpAddress("10.9.9.9", 7600), services=("ledger",))
    assert list(found.peers) == ["host-c", "host-b"]


def test_all_upstreams() -> None:
    file = static(
        upstreams=REDIS,
        all_upstreams={"directory": "/run/mesh", "mode": "0660", "group": "shop", "caller": "shop"},
        services={"own": {"deliver": "unix:/srv/own"}},
    )
    effective = EffectiveConfig(file)
    found = effective.config(hosts(B, C))
    assert set(found.upstreams) == {"redis", "web", "own"}
    assert found.upstreams["redis"] == UpstreamConfig(listen=UnixAddress("/x/redis.sock"))
    web = UpstreamConfig(listen=UnixAddress("/run/mesh/web.sock"), mode=0o660, group="shop", caller="shop")
    assert found.upstreams["web"] == web
    assert set(effective.config(hosts(C)).upstreams) == {"redis", "own"}
    assert set(effective.config(hosts(B), without={"web"}).upstreams) == {"redis", "own"}
    assert effective.left_out == {}


@pytest.mark.failure("21")
@pytest.mark.parametrize("directory", [None, "/run/mesh"])
def test_a_directory_for_each_of_all_upstreams(directory: str | None) -> None:
    every = {"directory": directory, "layout": "directories", "mode": "0660"}
    names = ("../x", "web", "a.sock", "z" * 63)
    effective = EffectiveConfig(static(upstreams=REDIS, all_upstreams=every))
    found = effective.config(hosts(record("host-b", "10.0.0.2:7600", *names)))
    root = directory or found.socket_dir
    paths = {name: str(upstream.listen) for name, upstream in found.upstreams.items()}
    assert paths == {
        "redis": "unix:/x/redis.sock",
        "web": f"unix:{root}/web/web.sock",
        "a.sock": f"unix:{root}/a.sock/a.sock.sock",
    }
    assert found.upstreams["web"].mode == 0o660
    assert "more than 107 bytes" in effective.left_out["z" * 63]
    assert needed(found, RoutingTable.from_config(found)) == set(), "nobody has called them yet"


def test_what_has_not_changed_is_the_same_object() -> None:
    effective = EffectiveConfig(static(upstreams="all"))
    first = effective.config(hosts(B, C))
    again = effective.config(hosts(record("host-b", "10.0.0.2:7600", "redis", "web"), C))
    assert again == first
    assert all(again.peers[name] is first.peers[name] for name in first.peers)
    assert all(again.upstreams[name] is first.upstreams[name] for name in first.upstreams)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (record("../x", "10.0.0.2:7600"), 'host left out: found "../x"; allowed: 1 to 63'),
        (record("host-b", "10.0.0.2"), 'host left out: found "10.0.0.2", no port'),
        (record("host-b", "0.0.0.0:1"), 'host left out: found "0.0.0.0:1", which stands for every address'),
        (record("host-b", "[fe80::2%eth0]:1"), 'host left out: found "[fe80::2%eth0]:1", whose interface means'),
        (record("host-b", "10.0.0.1:7600"), 'host left out: found "10.0.0.1:7600"; allowed: another address than this'),
    ],
)
def test_a_record_that_cannot_be_used_is_left_out(wrong: HostRecord, why: str) -> None:
    effective = EffectiveConfig(static(upstreams="all"))
    found = effective.config(hosts(wrong, C))
    assert list(found.peers) == ["host-c"]
    assert effective.left_out[wrong.name].startswith(why)
    assert effective.config(hosts(wrong, C)) == found
    assert effective.left_out, "said each time"


@pytest.mark.failure(15)
def test_no_name_of_a_service_leads_out_of_the_directory_or_onto_another_socket() -> None:
    names = ("../etc/x", "x/y", "", "redis", "redis", "db", "z" * 63, "x" * 64)
    file = static(
        upstreams={"own": {"listen": "unix:/run/hostlane-services/redis.sock"}},
        services={"shop": {"deliver": "unix:/run/hostlane-services/db.sock"}},
        all_upstreams={},
    )
    effective = EffectiveConfig(file)
    found = effective.config(hosts(record("host-b", "10.0.0.2:7600", *names)))
    assert set(found.upstreams) == {"own", "shop", "z" * 63}
    strange = {"host-b/../etc/x", "host-b/x/y", "host-b/"}
    assert set(effective.left_out) >= strange | {"redis", "db"}


def test_a_path_that_is_too_long() -> None:
    effective = EffectiveConfig(static(all_upstreams={"directory": "/" + "d" * 60}))
    found = effective.config(hosts(record("host-b", "10.0.0.2:7600", "short", "long" * 12)))
    assert set(found.upstreams) == {"short"}
    assert "more than 107 bytes; choose a shorter all_upstreams.directory" in effective.left_out["long" * 12]


def test_what_all_have_is_not_needed_before_it_is_called() -> None:
    d = record("host-d", "10.0.0.4:1", "web")
    config = EffectiveConfig(static(upstreams=REDIS, all_upstreams={})).config(hosts(B, d))
    assert set(config.upstreams) == {"redis", "web"}
    assert needed(config, RoutingTable.from_config(config)) == {"host-b"}
    config = EffectiveConfig(static(upstreams=REDIS)).config(hosts(B, C))
    assert needed(config, RoutingTable.from_config(config)) == {"host-b", "host-c"}


def test_a_list_of_what_is_called_by_name_is_needed_and_all_is_not() -> None:
    """As for upstreams: in a large mesh, all would be a link from every host to every other."""
    for services, expected in (("all", set()), (["redis"], {"host-b"})):
        connect = ConnectConfig(listen=TcpAddress("127.0.0.1", 7680), services=services)
        peers = {"host-b": PeerConfig(address=TcpAddress("10.0.0.2", 7600), services=("redis",))}
        config = Config(host="host-a", links=LinksConfig(), peers=peers, connect=connect)
        assert needed(config, RoutingTable.from_config(config)) == expected
