"""Settings without which links could not be bound to a macvlan child."""

from __future__ import annotations

import msgspec
import pytest

from proxy.netdev.observe.mark import InterfaceMark
from proxy.netdev.observe.networkstate import Ipv4Settings, NetworkState
from proxy.netdev.observe.records import NetInterface
from proxy.netdev.plan.plan import plan
from proxy.netdev.plan.settings import QUIETED, quieted
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import interfaces, lines
from tests.netdev.picture import ETH0, HL0, VLAN, address, changed, world

pytestmark = pytest.mark.failure("25")

MAC = "02:00:00:00:00:01"
FOUR = f'hl0: {{parent: eth0, mac: "{MAC}", addresses: [10.0.0.1/24]}}'
SIX = f'hl0: {{parent: eth0, mac: "{MAC}", addresses: ["fd00::1/64"]}}'
LO = NetInterface(index=1, name="lo", up=True)
KERNELS = Ipv4Settings(0, 0, 0)
QUIET = Ipv4Settings(1, 2, 0)


def having(found: NetworkState, **settings: Ipv4Settings) -> NetworkState:
    return msgspec.structs.replace(found, settings={"all": KERNELS, "default": KERNELS, **settings})


def planned(text: str, found: NetworkState) -> NetPlan:
    return plan("a", interfaces(f"{{{text}}}"), found)


def settings(found: NetPlan) -> list[str]:
    return [line for line in lines(found) if "arp" in line or "rp_filter" in line]


def test_the_parent_answers_for_itself_alone() -> None:
    found = planned(FOUR, having(world(ETH0), eth0=KERNELS))
    assert settings(found) == [
        "hl0: mark as hostlane:a:hl0:arp", "eth0: set arp_ignore 1", "eth0: set arp_announce 2",
        "hl0: set arp_ignore 1", "hl0: set arp_announce 2",
    ]  # fmt: skip
    undone = [str(step.undo[0]) for step in found.steps if str(step.do).startswith("eth0: ")]
    assert undone == ["eth0: set arp_ignore 0", "eth0: set arp_announce 0"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SIX, having(world(ETH0), eth0=KERNELS)),
        (FOUR, having(world(ETH0), eth0=QUIET, default=QUIET)),
        (FOUR, having(world(ETH0), all=QUIET, eth0=KERNELS)),
        (FOUR, world(ETH0)),
    ],
)
def test_nothing_is_set_that_is_so_already_or_cannot_be(text: str, found: NetworkState) -> None:
    assert settings(planned(text, found)) == []


def test_strict_filters_are_loosened_on_what_is_hostlanes_own() -> None:
    strict = Ipv4Settings(1, 2, 1)
    found = planned(FOUR, having(world(ETH0), all=strict, default=strict, eth0=strict))
    assert settings(found) == ["hl0: set rp_filter 2"]
    there = having(world(ETH0, HL0, address(HL0, "10.0.0.1/24")), all=QUIET, eth0=strict, hl0=strict)
    assert settings(planned(FOUR, there)) == ["hl0: set rp_filter 2"]
    assert str(planned(FOUR, there).steps[0].undo[0]) == "hl0: set rp_filter 1"


def test_one_that_was_made_before_is_brought_up_to_that() -> None:
    there = having(world(ETH0, HL0, address(HL0, "10.0.0.1/24")), eth0=KERNELS, hl0=QUIET)
    assert settings(planned(FOUR, there)) == [
        "hl0: mark as hostlane:a:hl0:arp", "eth0: set arp_ignore 1", "eth0: set arp_announce 2",
    ]  # fmt: skip
    marked = changed(HL0, alias="hostlane:a:hl0:arp")
    done = having(world(ETH0, marked, address(marked, "10.0.0.1/24")), eth0=QUIET, hl0=QUIET)
    assert planned(FOUR, done) == NetPlan()


def test_two_children_set_it_once_and_a_vlan_is_the_parent() -> None:
    second = 'hl1: {parent: eth0, mac: "02:00:00:00:00:02", addresses: [10.0.1.1/24]}'
    found = planned(f"{FOUR}, {second}", having(world(ETH0), eth0=KERNELS, default=QUIET))
    assert settings(found).count("eth0: set arp_ignore 1") == 1
    tagged = FOUR.replace("parent: eth0", "parent: eth0, vlan: 100")
    found = planned(tagged, having(world(ETH0), eth0=KERNELS))
    assert "eth0.100: set arp_ignore 1" in settings(found)
    assert "eth0: set arp_ignore 1" not in settings(found)
    found = planned(tagged, having(world(ETH0, VLAN), **{"eth0.100": KERNELS}))
    assert "eth0.100: set arp_ignore 1" in settings(found)


def test_an_address_that_may_need_the_parents_answer_keeps_it() -> None:
    found = planned(FOUR, having(world(ETH0, LO, address(LO, "10.0.0.50/32")), eth0=KERNELS))
    assert not any(line.startswith("eth0: ") for line in lines(found))
    (note,) = found.notes
    assert note.startswith("eth0: goes on answering ARP for all addresses of this host, as 10.0.0.50 on lo may need it")


def test_what_was_set_is_set_back_with_the_last_child() -> None:
    marked = changed(HL0, alias="hostlane:a:hl0:arp")
    found = planned("", having(world(ETH0, marked, address(marked, "10.0.0.1/24")), eth0=QUIET))
    assert lines(found) == ["hl0: delete", "eth0: set arp_announce 0", "eth0: set arp_ignore 0"]
    found = planned("", having(world(ETH0, HL0), eth0=QUIET))
    assert lines(found) == ["hl0: delete"], "it was so before"
    other = Ipv4Settings(2, 2, 0)
    found = planned("", having(world(ETH0, marked), eth0=other))
    assert lines(found) == ["hl0: delete"], "somebody has changed it since"
    moved = FOUR.replace("eth0", "eth0, mode: vepa")
    found = planned(moved, having(world(ETH0, marked), eth0=QUIET, default=QUIET))
    assert settings(found) == ["hl0: mark as hostlane:a:hl0:arp"], "made again in another mode, it needs it still"


def test_the_mark_says_so() -> None:
    assert quieted(InterfaceMark(host="a", name="hl0", original=QUIETED))
    assert not quieted(InterfaceMark(host="a", name="hl0"))


def test_a_deleted_one_comes_back_with_its_settings() -> None:
    found = planned("", having(world(ETH0, HL0), hl0=QUIET))
    undone = [str(operation) for operation in found.steps[0].undo]
    assert "hl0: set arp_ignore 1" in undone
    assert "hl0: set arp_announce 2" in undone
