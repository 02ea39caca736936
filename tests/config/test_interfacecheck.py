from __future__ import annotations

import pytest

from proxy.config import schema as config
from proxy.errors import ConfigError

HEAD = "host: a\nlinks: {listen: 10.0.0.1:7600, security: none}\npeers: {b: {address: 10.0.0.2:1}}\n"


def problems(text: str) -> list[str]:
    try:
        config.parse(HEAD + text + "\n", "f")
    except ConfigError as error:
        return [problem.split(" ", 1)[1] for problem in error.problems]
    return []


TOGETHER = {
    "no parent": (
        "interfaces: {hl0: {}}",
        "interfaces.hl0.parent: missing; allowed: the interface that the macvlan is made on, such as eth0",
    ),
    "a parent for what exists": (
        "interfaces: {eth0: {kind: existing, parent: eth1}}",
        "interfaces.eth0.parent: found with kind: existing; allowed: with macvlan or vf only",
    ),
    "a mode for a function": (
        "interfaces: {vf0: {kind: vf, parent: eth1, mode: bridge}}",
        "interfaces.vf0.mode: found with kind: vf; allowed: with macvlan only",
    ),
    "functions for a macvlan": (
        "interfaces: {hl0: {parent: eth1, vfs: 4}}",
        "interfaces.hl0.vfs: found with kind: macvlan; allowed: with vf only",
    ),
    "a MAC for a passthru": (
        "interfaces: {hl0: {parent: eth1, mode: passthru, mac: stable}}",
        "interfaces.hl0.mac: found with mode: passthru, which has its parent's; allowed: with other modes",
    ),
    "one table for two": (
        "interfaces: {hl0: {parent: eth1, source_table: 100}, hl1: {parent: eth1, source_table: 100}}",
        "interfaces.hl1.source_table: found 100, which is also that of interfaces.hl0; allowed: a table of its own",
    ),
    "a table for a container": (
        "containers: {web: {parent: eth1, source_table: 100}}",
        "containers.web.source_table: unknown key; allowed: kind, parent, mode, vlan, mac, mtu, vfs, spoof_check, "
        "trust, max_rate, addresses, segment, routes, name",
    ),
    "a leased address without a control plane": (
        "interfaces: {hl0: {parent: eth1, addresses: [auto]}}",
        "interfaces.hl0.addresses[0]: found auto without control; allowed: with a control plane only",
    ),
    "a segment without a lease": (
        "interfaces: {hl0: {parent: eth1, addresses: [10.1.0.1/24], segment: lan}}",
        "interfaces.hl0.segment: found without auto; allowed: with addresses: [auto] only",
    ),
    "a MAC twice": (
        "interfaces: {hl0: {parent: eth1, mac: '02:00:00:00:00:01'}, hl1: {parent: eth2, mac: '02:00:00:00:00:01'}}",
        'interfaces.hl1.mac: found "02:00:00:00:00:01", which is also that of interfaces.hl0; '
        "allowed: a MAC of its own",
    ),
    "its own parent": (
        "interfaces: {hl0: {parent: hl0}}",
        'interfaces.hl0.parent: found "hl0", itself; allowed: another interface',
    ),
    "a child of a child": (
        "interfaces: {hl0: {parent: eth0}, hl1: {parent: hl0}}",
        'interfaces.hl1.parent: found "hl0", which is made here too; allowed: an interface that exists before',
    ),
    "an address twice": (
        "interfaces: {hl0: {parent: eth0, addresses: [10.9.0.1/24]}, hl1: {parent: eth0, addresses: [10.9.0.1/16]}}",
        'interfaces.hl1.addresses[0]: found "10.9.0.1/16", which is also interfaces.hl0.addresses[0]; '
        "allowed: an address of its own",
    ),
    "a container's address twice": (
        "interfaces: {hl0: {parent: eth0, addresses: [10.9.0.1/24]}}\n"
        "containers: {web: {parent: eth0, addresses: [10.9.0.1/24]}}",
        'containers.web.addresses[0]: found "10.9.0.1/24", which is also interfaces.hl0.addresses[0]; '
        "allowed: an address of its own",
    ),
    "a default route to nowhere": (
        "interfaces: {hl0: {parent: eth0, routes: [{to: default}]}}",
        "interfaces.hl0.routes[0].via: missing; allowed with to: default: the router's IP address",
    ),
    "a router that is no neighbour": (
        "interfaces: {hl0: {parent: eth0, addresses: [10.9.0.1/24], routes: [{to: default, via: 10.8.0.1}]}}",
        'interfaces.hl0.routes[0].via: found "10.8.0.1", which no address of this interface has on its network; '
        "allowed: a neighbour",
    ),
    "a router of the other IP version": (
        "interfaces: {hl0: {parent: eth0, routes: [{to: 10.0.0.0/8, via: 'fe80::1'}]}}",
        'interfaces.hl0.routes[0].via: found "fe80::1"; allowed: of the same IP version as to',
    ),
    "beside a passthru": (
        "interfaces: {hl0: {parent: eth0}, hl1: {parent: eth0, mode: passthru}}",
        'interfaces.hl0.parent: found "eth0", which interfaces.hl1 takes for itself (passthru); '
        "allowed: a parent of its own",
    ),
    "a container gets what exists": (
        "containers: {web: {kind: existing}}",
        "containers.web.kind: found existing; allowed: macvlan | vf",
    ),
    "a segment twice": (
        "segments: {x: {parent: eth0, vlan: 5, mac_limit: 9}, y: {parent: eth0, vlan: 5, mac_limit: 9}}",
        'segments.y.parent: found "eth0", vlan 5, which is also segments.x; allowed: each segment once',
    ),
}


@pytest.mark.parametrize(("text", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_values_that_do_not_go_together(text: str, expected: str) -> None:
    assert problems(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "interfaces: {eth0: {kind: existing, routes: [{to: default, via: 10.8.0.1}]}}",
        "interfaces: {eth0: {kind: existing}, hl0: {parent: eth0}}",
        "interfaces: {hl0: {parent: eth0, routes: [{to: default, via: 'fe80::1'}, {to: 10.7.0.0/16}]}}",
        "interfaces: {hl0: {parent: eth0}, hl1: {parent: eth0, vlan: 5, mode: passthru}}",
        "segments: {x: {parent: eth0, mac_limit: 9}, y: {parent: eth0, vlan: 5, mac_limit: 9}}",
    ],
)
def test_values_that_go_together(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "interfaces: 5",
        "interfaces: {hl0: 5}",
        "interfaces: {hl0: {parent: 5}}",
        "interfaces: {hl0: {kind: other, parent: eth0}}",
        "interfaces: {hl0: {parent: eth0, addresses: [5]}}",
        "interfaces: {hl0: {parent: eth0, routes: [{to: 5}]}}",
        "containers: {web: 5}",
        "segments: {x: 5}",
        "segments: {x: {parent: eth0, vlan: 5000, mac_limit: 1}}",
    ],
)
def test_one_mistake_gives_one_line(text: str) -> None:
    assert len(problems(text)) == 1


LEASED = "host: a\nlinks: {address: auto, segment: lan}\ncontrol: {servers: ['10.0.0.9:1']}\ninterfaces: {%s}\n"


@pytest.mark.parametrize(
    ("interfaces", "found"),
    [
        ("hl0: {parent: eth0, addresses: [auto], routes: [{to: default, via: 10.79.0.1}]}", None),
        ("hl0: {parent: eth0, addresses: [auto]}, hl1: {parent: eth1, addresses: [auto], segment: wan}", None),
        (
            "hl0: {parent: eth0, addresses: [10.79.0.5/24]}",
            "links.address: found auto, and no interface that gets it; allowed: with interfaces: NAME: "
            "{addresses: [auto]} on segment lan",
        ),
        (
            "hl0: {parent: eth0, addresses: [auto]}, hl1: {parent: eth1, addresses: [auto]}",
            "interfaces.hl1.addresses[0]: found auto, as in interfaces.hl0, on segment lan; allowed: one interface of "
            "this host for each segment",
        ),
        (
            "hl0: {parent: eth0, addresses: [auto, auto]}",
            "interfaces.hl0.addresses[1]: found auto a second time; allowed: once an interface",
        ),
        (
            "hl0: {parent: eth0, addresses: [auto], mac: '02:00:00:00:00:01'}",
            'interfaces.hl0.mac: found "02:00:00:00:00:01" with addresses: [auto]; allowed: no mac, because the '
            "control plane gives it too",
        ),
        (
            "hl0: {parent: eth0, addresses: [any]}",
            'interfaces.hl0.addresses[0]: found "any"; allowed: an IP address with its prefix length, such as '
            "10.77.0.1/24 or fd00::1/64, or auto",
        ),
    ],
)
def test_leased_addresses(interfaces: str, found: str | None) -> None:
    try:
        config.parse(LEASED % interfaces, "f")
    except ConfigError as error:
        assert [problem.split(" ", 1)[1] for problem in error.problems] == [found]
    else:
        assert found is None
