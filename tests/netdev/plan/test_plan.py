from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.netdev.plan.plan import plan, removal
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import interfaces, lines
from tests.netdev.picture import ETH0, HL0, VLAN, address, changed, world


def test_what_is_not_wanted_goes_first() -> None:
    old = changed(HL0, index=9, name="old0", alias="hostlane:a:old0")
    found = plan("a", interfaces('{hl0: {parent: eth0, mac: "02:00:00:00:00:01"}}'), world(ETH0, old))
    assert not found.problems, "its MAC is free then"
    assert lines(found)[:2] == [
        "old0: delete", "hl0: create macvlan on eth0, mode bridge, mac 02:00:00:00:00:01",
    ]  # fmt: skip


def test_a_deleted_interface_comes_back_with_all_it_had() -> None:
    found = removal("a", world(ETH0, HL0, address(HL0, "10.9.0.1/24")))
    (step,) = found.steps
    assert [str(operation) for operation in step.undo] == [
        "hl0: create macvlan on eth0, mode bridge, mac 02:00:00:00:00:01, mtu 1500",
        "hl0: mark as hostlane:a:hl0",
        "hl0: set up",
        "hl0: add address 10.9.0.1/24",
    ]


def test_what_others_made_stays() -> None:
    theirs = changed(HL0, index=9, name="mv9", alias="")
    other = changed(HL0, index=10, name="mv10", alias="hostlane:b:hl0")
    assert removal("a", world(ETH0, theirs, other, changed(VLAN, alias=""))) == NetPlan()


def test_what_the_host_gave_to_this_container_stays() -> None:
    """A proxy in a container may bear the name of its host."""
    given = changed(HL0, name="eth1", alias="hostlane:a:@web", parent_netns=0)
    assert removal("a", world(given)) == NetPlan()


def test_all_problems_at_once() -> None:
    wanted = interfaces("{hl0: {parent: eth7}, eth8: {kind: existing}, vf0: {kind: vf, parent: eth0}}")
    assert plan("a", wanted, world(ETH0)).problems == (
        "hl0: parent eth7 does not exist; there are: eth0",
        "eth8: does not exist; there are: eth0",
        "vf0: parent eth0 has no virtual functions; no interface here can have them (sriov_totalvfs in sysfs)",
    )


@pytest.mark.parametrize(("rest", "count"), [("addresses: [10.9.0.1/24]", 0), ("routes: [{to: 10.8.0.0/16}]", 1)])
def test_what_exists_is_never_set_up(rest: str, count: int) -> None:
    found = plan("a", interfaces(f"{{eth0: {{kind: existing, {rest}}}}}"), world(changed(ETH0, up=False)))
    assert len(found.problems) == count
    assert not any("set up" in line for line in lines(found))


MODES = st.sampled_from(["bridge", "private", "vepa"])


@given(st.dictionaries(st.sampled_from(["hl0", "hl1", "hl2"]), st.tuples(MODES, st.none() | st.just(100))))
def test_every_step_can_be_undone(sections: dict[str, tuple[str, int | None]]) -> None:
    text = ", ".join(f"{n}: {{parent: eth0, mode: {m}, vlan: {v or 'null'}}}" for n, (m, v) in sections.items())
    found = plan("a", interfaces(f"{{{text}}}"), world(ETH0, changed(HL0, macvlan_mode="vepa"), VLAN))
    assert not found.problems
    assert all(step.undo for step in found.steps)
