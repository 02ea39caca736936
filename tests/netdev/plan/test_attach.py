"""Plans across two namespaces; those with virtual functions on a faked device (sriov.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import schema as config
from proxy.config.schema import Config
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.apply.manage import look
from proxy.netdev.observe import observe, sysfs
from proxy.netdev.observe.mark import stable_mac
from proxy.netdev.observe.networkstate import NetworkState, VfDevice
from proxy.netdev.observe.records import NetInterface, NetSnapshot
from proxy.netdev.plan.attach import given_to, plan_attachment, plan_detachment, plan_return
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import HEAD, lines
from tests.netdev.picture import ETH0, HL0, address, changed, world
from tests.netdev.sriov import Machine

TEMPORARY = "hltemp"
LO = NetInterface(index=1, name="lo", up=True)
EMPTY = NetSnapshot(interfaces=(LO,))
THERE = changed(HL0, index=2, name="eth1", alias="hostlane:a:@web", parent_netns=0)


def parsed(container: str, rest: str = "") -> Config:
    return config.parse(f"{HEAD}containers: {{web: {container}}}\n{rest}\n", "f")


def attached(container: str, found: NetworkState, inside: NetSnapshot = EMPTY, rest: str = "") -> NetPlan:
    whole = parsed(container, rest)
    return plan_attachment(whole, "web", whole.containers["web"], found, inside, TEMPORARY)


def test_a_macvlan_child_is_made_where_it_belongs() -> None:
    routes = "routes: [{to: default, via: 10.9.0.254}]"
    found = attached(f"{{parent: eth0, mtu: 1400, addresses: [10.9.0.5/24], {routes}}}", world(ETH0))
    assert lines(found) == [
        f"hltemp: create macvlan on eth0, mode bridge, mac {stable_mac('a', '@web:eth1')}, mtu 1400, in the container",
        "hltemp: mark as hostlane:a:@web",
        "hltemp: rename to eth1",
        "eth1: set up",
        "eth1: add address 10.9.0.5/24",
        "eth1: add route 0.0.0.0/0 via 10.9.0.254",
    ]
    assert [step.do.inside for step in found.steps] == [False, True, True, True, True, True]
    assert [str(operation) for step in found.steps for operation in step.undo][:3] == [
        "hltemp: delete", "hltemp: remove the mark", "eth1: rename to hltemp",
    ]  # fmt: skip
    assert all(operation.inside for step in found.steps for operation in step.undo)


def test_on_a_vlan_its_interface_is_made_first() -> None:
    assert lines(attached("{parent: eth0, vlan: 100, name: net0}", world(ETH0)))[:4] == [
        "eth0.100: create vlan on eth0, id 100",
        "eth0.100: mark as hostlane:a:eth0.100",
        "eth0.100: set up",
        f"hltemp: create macvlan on eth0.100, mode bridge, mac {stable_mac('a', '@web:net0')}, in the container",
    ]


def test_a_second_time_nothing_is_done() -> None:
    found = attached("{parent: eth0}", world(ETH0), NetSnapshot(interfaces=(LO, THERE)))
    assert found == NetPlan(notes=("eth1: web has it already; detach gives it back",))


@pytest.mark.parametrize(
    ("container", "found", "inside", "rest", "problem"),
    [
        (
            "{parent: eth0}", world(ETH0), NetSnapshot(interfaces=(changed(THERE, alias=""),)), "",
            "eth1: web has an interface of that name; choose another with name",
        ),
        (
            "{parent: eth0}", world(ETH0), NetSnapshot(interfaces=(changed(THERE, alias="hostlane:a:@pid-7"),)), "",
            "eth1: web has it already, as pid-7; detach gives it back",
        ),
        (
            "{parent: eth0, addresses: [10.9.0.5/24]}", world(ETH0, address(ETH0, "10.9.0.5/16")), EMPTY, "",
            "eth1: eth0 of this host has address 10.9.0.5 already",
        ),
        (
            "{parent: eth0, addresses: [10.9.0.5/24]}", world(ETH0),
            NetSnapshot(interfaces=(changed(LO, name="eth9"),), addresses=(address(LO, "10.9.0.5/16"),)), "",
            "eth1: eth9 of the container has address 10.9.0.5 already",
        ),
        (
            "{parent: eth7}", world(ETH0), EMPTY, "",
            "eth1: parent eth7 does not exist; there are: eth0",
        ),
        (
            "{parent: eth0, kind: vf}", world(ETH0), EMPTY, "",
            "eth1: parent eth0 has no virtual functions; no interface here can have them (sriov_totalvfs in sysfs)",
        ),
        (
            "{parent: eth0, kind: vf}", world(ETH0, functions=(VfDevice(index=0),)), EMPTY, "",
            "@web: none of the 1 functions of eth0 is free: vf 0 in another namespace or without a driver",
        ),
        (
            "{parent: eth0}", world(ETH0), EMPTY, "segments: {front: {parent: eth0, mac_limit: 1}}",
            "segment front: this host would use 2 MACs of its share of 1 (1 for 1 host)",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be(container: str, found: NetworkState, inside: NetSnapshot, rest: str, problem: str) -> None:
    assert attached(container, found, inside, rest).problems == (problem,)


def test_only_what_hostlane_gave_is_taken_away() -> None:
    """By whatever name: a container that was attached by its process's number is detached by its name, too."""
    other = changed(THERE, index=3, name="eth2", alias="hostlane:a:@pid-7")
    inside = NetSnapshot(interfaces=(LO, THERE, other, changed(HL0, index=4)))
    assert lines(plan_detachment("a", inside, TEMPORARY)) == ["eth1: delete", "eth2: delete"]
    assert given_to("a", inside) == {"web", "pid-7"}
    assert plan_detachment("b", inside, TEMPORARY) == NetPlan()
    assert given_to("b", inside) == set()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(observe, "IPRoute", made.netlink)
    monkeypatch.setattr(sysfs, "write", made.write)
    return made


def test_a_function_is_set_up_in_the_host_and_moved(machine: Machine) -> None:
    found = attached("{parent: eth1, kind: vf, vlan: 7, addresses: [10.9.0.5/24]}", look(sysfs_root=machine.root))
    mac = stable_mac("a", "@web:eth1")
    assert [(str(step.do), step.do.inside) for step in found.steps] == [
        ("eth1: set the number of virtual functions to 1", False),
        ("eth1 vf 0: mark as hostlane:a:@web:::0", False),
        ("eth1 vf 0: rename to hltemp", False),
        (f"hltemp: set mac {mac}", False),
        (f"eth1 vf 0: set mac {mac}", False),
        ("eth1 vf 0: set vlan 7", False),
        ("hltemp: move into the container", False),
        ("hltemp: rename to eth1", True),
        ("eth1: set up", True),
        ("eth1: add address 10.9.0.5/24", True),
    ]
    assert [str(operation) for operation in found.steps[6].undo] == ["hltemp: move back to the host"]
    before = machine.dump()
    apply(NetPlan(steps=found.steps[:6]), Kernel(netlink=machine.netlink, sysfs_root=machine.root))
    # The container ends here: the kernel moves the function back, as it was.
    back = plan_return("a", {"web"}, look(sysfs_root=machine.root))
    assert not plan_return("a", {"other"}, look(sysfs_root=machine.root)).steps
    apply(back, Kernel(netlink=machine.netlink, sysfs_root=machine.root))
    assert machine.dump() == before


def test_a_function_is_moved_back_with_a_way_to_undo_it() -> None:
    function = changed(THERE, kind="", alias="hostlane:a:@web:eth1v0:0a0000000000", parent=None)
    inside = NetSnapshot(interfaces=(LO, function), addresses=(address(function, "10.9.0.5/24"),))
    found = plan_detachment("a", inside, TEMPORARY)
    assert lines(found) == ["eth1: set down", "eth1: rename to hltemp0", "hltemp0: move back to the host"]
    assert [str(operation) for operation in found.steps[0].undo] == ["eth1: set up", "eth1: add address 10.9.0.5/24"]
    assert [str(operation) for operation in found.steps[2].undo] == ["hltemp0: move into the container"]
