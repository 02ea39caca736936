"""One operation, one change, on the real kernel; and what a refusal says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from proxy.demo import netns
from proxy.errors import NetError
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.observe import observe
from proxy.netdev.plan.steps import (
    CreateLink,
    DeleteLink,
    Operation,
    SetAddress,
    SetLink,
    SetRoute,
    SetRule,
    SetVf,
    SetVfCount,
    VfLink,
)
from tests.netdev.machine import dump, ip

pytestmark = pytest.mark.netns


def run(space: str, *operations: Operation) -> None:
    with netns.entered(space):
        for operation in operations:
            Kernel().run(operation)


def refused(space: str, operation: Operation) -> str:
    before = dump(space)
    with pytest.raises(NetError) as caught:
        run(space, operation)
    assert dump(space) == before
    assert str(caught.value).startswith(f"{operation}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{operation}: ")


def test_an_interface_is_made_with_the_index_that_it_had(space: str) -> None:
    made = CreateLink(
        link="hl0", kind="macvlan", parent="eth0", mode="vepa", mac="02:00:00:00:00:01", mtu=1400, index=77
    )
    run(space, made)
    with netns.entered(space):
        found = observe.snapshot().at(77)
    assert found is not None
    assert (found.name, found.macvlan_mode, found.mac, found.mtu, found.up) == (
        "hl0", "vepa", "02:00:00:00:00:01", 1400, False,
    )  # fmt: skip


def test_addresses_and_routes_bear_the_number_and_can_be_taken_back(space: str) -> None:
    before = dump(space)
    pairs = [
        (SetAddress(link="eth0", address="10.9.0.1/24"), SetAddress(link="eth0", address="10.9.0.1/24", present=False)),
        (SetAddress(link="eth0", address="fd00::1/64"), SetAddress(link="eth0", address="fd00::1/64", present=False)),
        (
            SetRoute(link="eth0", to="10.8.0.0/16", via="10.9.0.254", metric=5, source="10.9.0.1"),
            SetRoute(link="eth0", to="10.8.0.0/16", via="10.9.0.254", metric=5, present=False),
        ),
        (SetRoute(link="eth0", to="fd01::/16"), SetRoute(link="eth0", to="fd01::/16", present=False)),
    ]  # fmt: skip
    run(space, *(add for add, _ in pairs))
    with netns.entered(space):
        found = observe.snapshot()
    assert {str(address) for address in found.addresses if address.protocol == 72} == {"10.9.0.1/24", "fd00::1/64"}
    assert {(route.to, route.metric, route.source) for route in found.routes if route.protocol == 72} == {
        ("10.8.0.0/16", 5, "10.9.0.1"), ("fd01::/16", 1024, None),
    }  # fmt: skip
    run(space, *(delete for _, delete in reversed(pairs)))
    assert dump(space) == before


@pytest.mark.failure("25")
def test_rules_and_routes_of_other_tables_bear_it_too(space: str) -> None:
    before = dump(space)
    adds = [
        SetAddress(link="eth0", address="10.9.0.1/24"),
        SetAddress(link="eth0", address="fd00::1/64"),
        SetRoute(link="eth0", to="10.9.0.0/24", table=100),
        SetRoute(link="eth0", to="fd00::/64", metric=1024, table=7600),
        SetRule(link="eth0", source="10.9.0.1", table=100),
        SetRule(link="eth0", source="fd00::1", table=7600),
    ]
    run(space, *adds)
    others = ("from 10.9.0.7 lookup 100", "from 10.8.0.0/16 lookup 100", "fwmark 1 lookup 100")
    ip(space, *(f"rule add {other}" for other in others))
    with netns.entered(space):
        found = observe.snapshot()
    assert {(each.source, each.table, each.protocol == 72) for each in found.rules} == {
        ("10.9.0.1", 100, True), ("fd00::1", 7600, True), ("10.9.0.7", 100, False),
    }  # fmt: skip
    assert {(route.to, route.table) for route in found.routes if route.protocol == 72} == {
        ("10.9.0.0/24", 100), ("fd00::/64", 7600),
    }  # fmt: skip
    ip(space, *(f"rule del {other}" for other in others))
    run(space, *(msgspec.structs.replace(add, present=False) for add in reversed(adds)))
    assert dump(space) == before


REFUSALS: list[tuple[Operation, str]] = [
    (CreateLink(link="hl0", kind="macvlan", parent="eth7", mode="bridge"), "there is no interface eth7"),
    (CreateLink(link="cable", kind="macvlan", parent="eth0", mode="bridge"), "file exists"),
    (CreateLink(link="hl0", kind="macvlan", parent="lo", mode="bridge"), "invalid argument"),
    (DeleteLink(link="hl0"), "there is no interface hl0"),
    (SetLink(link="eth0", key="mtu", value=70_000), "invalid argument"),
    (SetAddress(link="eth0", address="10.9.0.1/24", present=False), "cannot assign requested address"),
    (SetRoute(link="eth0", to="10.8.0.0/16", via="10.9.0.254"), "network is unreachable"),
    (SetVf(parent="eth0", vf=0, key="vlan", value=5), "not supported by this kernel or driver"),
    (SetVfCount(parent="eth0", count=2), "cannot read "),
    (SetLink(link=VfLink("eth0", 0), key="alias", value="x"), "vf 0 of eth0 has no interface in this namespace"),
]


@pytest.mark.parametrize(("operation", "why"), REFUSALS, ids=[str(operation) for operation, _ in REFUSALS])
def test_a_refusal_is_one_line_and_changes_nothing(space: str, operation: Operation, why: str) -> None:
    assert refused(space, operation).startswith(why)


def test_two_children_with_one_mac(space: str) -> None:
    mac = "02:00:00:00:00:01"
    for name in ("hl0", "hl1"):
        run(space, CreateLink(link=name, kind="macvlan", parent="eth0", mode="bridge", mac=mac))
    ip(space, "link set hl0 up")
    up = SetLink(link="hl1", key="state", value="up")
    assert refused(space, up) == "the parent or another child has this MAC"


def test_without_the_right_it_says_what_is_needed(space: str) -> None:
    program = (
        "import os; from proxy.netdev.apply.kernel import Kernel; from proxy.netdev.plan.steps import DeleteLink\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: Kernel().run(DeleteLink(link='eth0'))\n"
        "except Exception as error: print(type(error).__name__, error, end='')"
    )
    argv = netns.inside(space, [sys.executable, "-c", program])
    said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]).stdout
    assert said == "NetError eth0: delete: needs the capability CAP_NET_ADMIN: run it as root"
