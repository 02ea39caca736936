"""macvlan children and VLAN interfaces: this kernel has no VLANs, so what the plan says about them is all there is."""

from __future__ import annotations

import pytest

from proxy.netdev.observe.mark import stable_mac
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.observe.records import NetInterface
from proxy.netdev.plan.links import wanted_mac
from proxy.netdev.plan.plan import plan
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import interfaces, lines
from tests.netdev.picture import ETH0, HL0, VLAN, changed, world

MAC = "02:00:00:00:00:01"
HL = f'hl0: {{parent: eth0, mac: "{MAC}"}}'
ON_VLAN = f'hl0: {{parent: eth0, vlan: 100, mac: "{MAC}"}}'


def planned(text: str, found: NetworkState) -> NetPlan:
    return plan("a", interfaces(f"{{{text}}}"), found)


def test_a_vlan_is_made_once_for_all_who_stand_on_it() -> None:
    found = planned(f"{ON_VLAN}, hl1: {{parent: eth0, vlan: 100, mode: vepa}}", world(ETH0))
    assert lines(found) == [
        "eth0.100: create vlan on eth0, id 100",
        "eth0.100: mark as hostlane:a:eth0.100",
        "eth0.100: set up",
        f"hl0: create macvlan on eth0.100, mode bridge, mac {MAC}",
        "hl0: mark as hostlane:a:hl0",
        "hl0: set up",
        f"hl1: create macvlan on eth0.100, mode vepa, mac {stable_mac('a', 'hl1')}",
        "hl1: mark as hostlane:a:hl1",
        "hl1: set up",
    ]
    assert [str(step.undo[0]) for step in found.steps[:3]] == [
        "eth0.100: delete", "eth0.100: remove the mark", "eth0.100: set down",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["eth0.100", "storage"])
def test_a_vlan_that_exists_is_used_whatever_its_name(name: str) -> None:
    theirs = changed(VLAN, name=name, alias="")
    assert lines(planned(ON_VLAN, world(ETH0, theirs)))[0] == f"hl0: create macvlan on {name}, mode bridge, mac {MAC}"
    child = changed(HL0, parent=theirs.index)
    assert planned(ON_VLAN, world(ETH0, theirs, child)) == NetPlan()
    assert lines(planned("", world(ETH0, theirs, child))) == ["hl0: delete"], "somebody else's VLAN stays"


def test_our_vlan_goes_with_the_last_who_stands_on_it() -> None:
    child = changed(HL0, parent=VLAN.index)
    vlan = changed(VLAN, unicast=(MAC,))
    assert lines(planned("", world(ETH0, vlan, child))) == ["hl0: delete", "eth0.100: delete"]
    theirs = changed(HL0, index=9, name="mv9", mac="02:00:00:00:00:09", alias="", parent=VLAN.index)
    found = planned("", world(ETH0, vlan, child, theirs))
    assert lines(found) == ["hl0: delete"]
    assert found.notes == ("eth0.100: stays, because others stand on it: mv9",)
    found = planned("", world(ETH0, changed(vlan, unicast=(MAC, "02:00:00:00:00:77")), child))
    assert found.notes == ("eth0.100: stays, because others stand on it: a container's with mac 02:00:00:00:00:77",)


def test_our_vlan_that_is_down_is_set_up() -> None:
    child = changed(HL0, parent=VLAN.index)
    assert lines(planned(ON_VLAN, world(ETH0, changed(VLAN, up=False), child))) == ["eth0.100: set up"]


def test_what_can_be_changed_is_changed() -> None:
    found = planned(f'hl0: {{parent: eth0, mac: "{MAC}", mtu: 1400}}', world(ETH0, changed(HL0, up=False, mac="02::")))
    assert lines(found) == [f"hl0: set mac {MAC}", "hl0: set mtu 1400", "hl0: set up"]
    assert [str(step.undo[0]) for step in found.steps] == ["hl0: set mac 02::", "hl0: set mtu 1500", "hl0: set down"]


@pytest.mark.parametrize(
    "there", [changed(HL0, macvlan_mode="vepa"), changed(HL0, parent=7), changed(HL0, parent=VLAN.index)]
)
def test_what_cannot_be_changed_is_made_again(there: NetInterface) -> None:
    seven = changed(ETH0, index=7, name="eth7", mac="02:00:00:00:00:77")
    assert lines(planned(HL, world(ETH0, seven, changed(VLAN, alias=""), there)))[:2] == [
        "hl0: delete",
        f"hl0: create macvlan on eth0, mode bridge, mac {MAC}",
    ]


BRIDGE = NetInterface(index=20, name="br0", kind="bridge", mac="02:00:00:00:00:20", mtu=1500, up=True)

PROBLEMS: dict[str, tuple[str, NetworkState, str]] = {
    "no parent": (HL, world(HL0), "hl0: parent eth0 does not exist; there are: hl0"),
    "a bridge port": (
        HL, world(changed(ETH0, master=20), BRIDGE),
        "hl0: parent eth0 is a port of br0, which receives its frames; use br0",
    ),
    "a child": (
        "hl1: {parent: mv9}", world(ETH0, changed(HL0, name="mv9", alias="")),
        "hl1: parent mv9 is a macvlan child itself; use eth0",
    ),
    "a child from elsewhere": (
        "hl1: {parent: mv9}", world(ETH0, changed(HL0, name="mv9", alias="", parent_netns=0)),
        "hl1: parent mv9 is a macvlan child itself; use its parent, which is in another namespace",
    ),
    "loopback": (
        "hl1: {parent: lo}", world(NetInterface(index=1, name="lo")),
        "hl1: parent lo is the loopback interface; use one with a MAC",
    ),
    "somebody's": (
        HL, world(ETH0, changed(HL0, alias="uplink")),
        "hl0: exists and is not marked as this host's (alias uplink); choose another name, or remove or rename it",
    ),
    "another host's": (
        HL, world(ETH0, changed(HL0, alias="hostlane:b:hl0")),
        "hl0: exists and is not marked as this host's (alias hostlane:b:hl0); choose another name, or remove or "
        "rename it",
    ),
    "mtu": (
        "hl1: {parent: eth0, mtu: 9000}", world(ETH0),
        "hl1: mtu 9000 is more than the 1500 of eth0; allowed: at most that",
    ),
    "a MAC twice": (
        HL, world(ETH0, changed(HL0, name="mv9", alias="")), f"hl0: mac {MAC} is that of mv9; choose another",
    ),
    "a container's MAC": (
        HL, world(changed(ETH0, unicast=(MAC,))),
        f"hl0: mac {MAC} is that of a container's child on eth0; choose another",
    ),
    "passthru beside others": (
        "hl1: {parent: eth0, mode: passthru}", world(ETH0, changed(HL0, name="mv9", alias="")),
        "hl1: mv9 stands on eth0 already, and a passthru child stands alone",
    ),
    "passthru beside a container's": (
        "hl1: {parent: eth0, mode: passthru}", world(changed(ETH0, unicast=("02:00:00:00:00:77",))),
        "hl1: a container's child with mac 02:00:00:00:00:77 stands on eth0; passthru stands alone",
    ),
    "beside a passthru": (
        "hl1: {parent: eth0}", world(ETH0, changed(HL0, name="mv9", alias="", macvlan_mode="passthru")),
        "hl1: mv9 stands on eth0 already, and a passthru child stands alone",
    ),
    "a VLAN's name": (
        ON_VLAN, world(ETH0, changed(ETH0, index=9, name="eth0.100", mac="")),
        "hl0: eth0.100 exists and is not VLAN 100 of eth0; rename it",
    ),
    "a VLAN on what is down": (
        ON_VLAN, world(changed(ETH0, up=False)),
        "hl0: eth0 is down, so VLAN 100 on it cannot be up: ip link set eth0 up",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "found", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_cannot_be(text: str, found: NetworkState, problem: str) -> None:
    assert planned(text, found).problems == (problem,)


def test_macs() -> None:
    wanted = interfaces(f"{{{HL}, hl1: {{parent: eth0}}, hl2: {{parent: eth5, mode: passthru}}}}")
    assert {name: wanted_mac("a", name, item) for name, item in wanted.items()} == {
        "hl0": MAC, "hl1": stable_mac("a", "hl1"), "hl2": "",
    }  # fmt: skip
