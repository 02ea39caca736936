"""What differs between two configurations, and what of it a running proxy can follow."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.config.difference import FIXED, RESTART, between, is_fixed
from proxy.config.schema import Config, PeerConfig, ProxyLimits, parse

BASE: dict[str, Any] = {
    "host": "host-a",
    "links": {"listen": "10.0.0.1:7600", "security": "none"},
    "peers": {"host-b": {"address": "10.0.0.2:7600", "services": ["redis"]}},
    "upstreams": {"redis": {"listen": "unix:/run/x/redis.sock"}},
    "services": {"web": {"deliver": "tcp:127.0.0.1:80"}},
}


def config(**sections: Any) -> Config:
    found = json.loads(json.dumps(BASE))
    for name, section in sections.items():
        found[name] = {**found.get(name, {}), **section} if isinstance(section, dict) else section
    return parse(json.dumps(found), "f")


def said(new: Config, old: Config | None = None) -> list[str]:
    return [str(change) for change in between(old or config(), new).changes]


def test_nothing() -> None:
    found = between(config(), config())
    assert not found
    assert not found.settings
    assert [*found.peers, *found.upstreams, *found.services, *found.fixed] == []


def test_peers_come_go_and_change() -> None:
    c = {"address": "10.0.0.3:7600"}
    new = config(peers={"host-c": c, "host-b": {"address": "[::2]:7600", "services": ["redis", "web"]}})
    assert said(new) == [
        "peers.host-b.address: 10.0.0.2:7600 → [::2]:7600",
        'peers.host-b.services: ["redis"] → ["redis","web"]',
        "peers.host-c: added",
    ]
    assert between(config(), new).peers == {"host-b", "host-c"}
    back = between(new, config())
    assert back.peers == {"host-b", "host-c"}
    assert "peers.host-c: removed" in [str(change) for change in back.changes]
    assert not back.settings


def test_the_access_log_changes_but_for_its_place() -> None:
    old = config(access={"to": "/a", "only": "failed"})
    new = between(old, config(access={"to": "/a", "only": {"slower_than": "50ms"}, "sample": 0.5}))
    assert [str(change) for change in new.changes] == ["access.only: failed → 0.05", "access.sample: 1 → 0.5"]
    assert not new.fixed
    assert between(old, config(access={"to": "/b", "only": "failed"})).fixed == [
        f"access.to: found /b, running with /a; {RESTART}"
    ]


def test_a_name_with_dots_is_one_name() -> None:
    new = config(peers={"host.c.example": {"address": "10.0.0.3:7600"}})
    assert between(config(), new).peers == {"host.c.example"}


def test_upstreams_and_services() -> None:
    upstreams = {"redis": {"listen": "tcp:127.0.0.1:1"}}
    services = {"web": {"deliver": "unix:/x", "connect_timeout": "1s", "allow": [{"uid": 1}]}}
    assert said(config(upstreams=upstreams, services=services)) == [
        "upstreams.redis.listen: unix:/run/x/redis.sock → tcp:127.0.0.1:1",
        "services.web.deliver: tcp:127.0.0.1:80 → unix:/x",
        "services.web.connect_timeout: 5 → 1",
        'services.web.allow: [{"host":null,"service":null,"uid":null}] → [{"host":null,"service":null,"uid":1}]',
    ]
    mode = {"redis": {"listen": "unix:/run/x/redis.sock", "mode": "0600"}}
    assert said(config(upstreams=mode)) == ["upstreams.redis.mode: 0666 → 0600"]
    found = between(config(), config(upstreams=upstreams, services=services))
    assert (found.upstreams, found.services, found.peers, found.settings) == ({"redis"}, {"web"}, frozenset(), False)


def test_settings() -> None:
    new = config(limits={"stop_timeout": "1m"}, log={"level": "debug"}, links={"max_per_peer": 4})
    assert said(new) == [
        "links.max_per_peer: 2 → 4",
        "limits.stop_timeout: 5 → 60",
        "log.level: info → debug",
    ]
    found = between(config(), new)
    assert (found.settings, found.fixed) == (True, [])


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"host": "host-x"}, "host: found host-x, running with host-a"),
        ({"mesh": "m"}, "mesh: found m, running with hostlane"),
        ({"run_dir": "/run/y"}, "run_dir: found /run/y, running with /run/hostlane"),
        ({"links": {"listen": "10.0.0.9:7600"}}, "links.listen: found 10.0.0.9:7600, running with 10.0.0.1:7600"),
        ({"log": {"format": "json"}}, "log.format: found json, running with auto"),
        ({"admin": {"from": "any"}}, "admin.from: found any, running with own"),
        ({"admin": {"group": "ops"}}, "admin.group: found ops, running with null"),
        ({"pool": {"record": "/var/x"}}, "pool.record: found /var/x, running with null"),
        ({"interfaces": {"hl0": {"parent": "eth0"}}}, "interfaces.hl0: found this, running without"),
    ],
)
def test_keys_that_a_running_proxy_cannot_follow(sections: dict[str, Any], line: str) -> None:
    found = between(config(), config(**sections))
    assert found.fixed == [f"{line}; {RESTART}"]


def test_each_of_them_is_reported() -> None:
    new = config(host="host-x", mesh="m", run_dir="/run/y")
    assert [line.partition(":")[0] for line in between(config(), new).fixed] == ["host", "run_dir", "mesh"]


def test_an_interface_that_is_gone() -> None:
    old = config(interfaces={"hl0": {"parent": "eth0"}})
    assert between(old, config()).fixed == [f"interfaces.hl0: found nothing, running with it; {RESTART}"]


def test_what_only_hostlane_net_reads_is_no_difference() -> None:
    assert not between(config(), config(segments={"s": {"parent": "eth0", "mac_limit": 9}}))


def test_fixed_keys_exist() -> None:
    for key in FIXED:
        kind: Any = Config
        for word in key.split("."):
            field = {each.name: each for each in msgspec.structs.fields(kind)}[word]
            kind = field.type
    assert is_fixed("interfaces.hl0.mtu")
    assert not is_fixed("hosts")


def test_what_is_the_same_object_is_not_looked_into() -> None:
    class Unlike(dict[str, PeerConfig]):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("looked into")

        __hash__ = None  # type: ignore[assignment]

    old = msgspec.structs.replace(config(), peers=Unlike())
    new = msgspec.structs.replace(old, limits=ProxyLimits(stop_timeout=1.0))
    assert [change.key for change in between(old, new).changes] == ["limits.stop_timeout"]
