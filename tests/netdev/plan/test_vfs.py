"""Virtual functions, planned and carried out on a faked device (see sriov.py); `make vm` does it on a driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config.interfaces import InterfaceConfig
from proxy.errors import NetError
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.apply.manage import look
from proxy.netdev.observe import observe, sysfs
from proxy.netdev.plan.plan import plan, removal
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import Failing, interfaces, lines
from tests.netdev.sriov import Machine

ONE = 'vf0: {kind: vf, parent: eth1, mac: "02:00:00:00:00:01", vlan: 100, trust: true, max_rate: 2Gbit, mtu: 1400, '
ONE += "spoof_check: false, addresses: [10.9.0.1/24], routes: [{to: 10.8.0.0/16, via: 10.9.0.254}]}"
PLAIN = 'vf0: {kind: vf, parent: eth1, mac: "02:00:00:00:00:01"}'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(observe, "IPRoute", made.netlink)
    monkeypatch.setattr(sysfs, "write", made.write)
    return made


def planned(machine: Machine, wanted: dict[str, InterfaceConfig]) -> NetPlan:
    return plan("a", wanted, look(sysfs_root=machine.root))


def kernel(machine: Machine) -> Kernel:
    return Kernel(netlink=machine.netlink, sysfs_root=machine.root)


def carried_out(machine: Machine, found: NetPlan) -> list[str]:
    """Do it; returns what reached the device and the kernel."""
    machine.log.clear()
    apply(found, kernel(machine))
    return machine.log[:]


def wanted(*sections: str) -> dict[str, InterfaceConfig]:
    return interfaces("{" + ", ".join(sections) + "}")


def test_the_first_function_of_a_device(machine: Machine) -> None:
    found = planned(machine, wanted(ONE))
    assert lines(found) == [
        "eth1: set the number of virtual functions to 1",
        "eth1 vf 0: mark as hostlane:a:vf0:::0",
        "eth1 vf 0: rename to vf0",
        "vf0: set mac 02:00:00:00:00:01",
        "vf0: set mtu 1400",
        "eth1 vf 0: set mac 02:00:00:00:00:01",
        "eth1 vf 0: set vlan 100",
        "eth1 vf 0: set spoof check off",
        "eth1 vf 0: set trust on",
        "eth1 vf 0: set max rate 2000 Mbit/s",
        "vf0: set up",
        "vf0: add address 10.9.0.1/24",
        "vf0: add route 10.8.0.0/16 via 10.9.0.254",
    ]
    assert carried_out(machine, found) == [
        "sriov_numvfs = 1",
        "eth1v0: IFLA_IFALIAS = hostlane:a:vf0:::0",
        "eth1v0: IFLA_IFNAME = vf0",
        "vf0: IFLA_ADDRESS = 02:00:00:00:00:01",
        "vf0: IFLA_MTU = 1400",
        "vf 0: IFLA_VF_MAC = 02:00:00:00:00:01",
        "vf 0: IFLA_VF_VLAN = 100",
        "vf 0: IFLA_VF_SPOOFCHK = 0",
        "vf 0: IFLA_VF_TRUST = 1",
        "vf 0: IFLA_VF_RATE = 2000",
        "vf0: up",
        "vf0: add 10.9.0.1/24",
        "vf0: add route 10.8.0.0/16 via 10.9.0.254",
    ]
    assert planned(machine, wanted(ONE)) == NetPlan()


def test_given_back_the_device_is_as_before(machine: Machine) -> None:
    before = machine.dump()
    carried_out(machine, planned(machine, wanted(ONE)))
    assert carried_out(machine, removal("a", look(sysfs_root=machine.root))) == [
        "vf0: delete route 10.8.0.0/16 via 10.9.0.254",
        "vf0: delete 10.9.0.1/24",
        "vf0: down",
        "vf 0: IFLA_VF_MAC = 00:00:00:00:00:00",
        "vf 0: IFLA_VF_VLAN = 0",
        "vf 0: IFLA_VF_SPOOFCHK = 1",
        "vf 0: IFLA_VF_TRUST = 0",
        "vf 0: IFLA_VF_RATE = 0",
        "vf0: IFLA_IFNAME = eth1v0",
        "eth1v0: IFLA_IFALIAS = ",
        "sriov_numvfs = 0",
    ]
    assert machine.dump() == before
    assert removal("a", look(sysfs_root=machine.root)) == NetPlan()


def test_functions_that_were_there_get_name_and_mac_back(machine: Machine) -> None:
    machine.write(machine.device / "sriov_numvfs", "2")
    before = machine.dump()
    carried_out(machine, planned(machine, wanted(ONE)))
    assert machine.dump()["links"]["vf0"]["alias"] == "hostlane:a:vf0:eth1v0:0a0000000000"
    said = carried_out(machine, removal("a", look(sysfs_root=machine.root)))
    assert "vf0: IFLA_ADDRESS = 0a:00:00:00:00:00" in said
    assert not any("sriov_numvfs" in line for line in said)
    after = machine.dump()
    assert after["links"]["eth1v0"].pop("mtu") == 1400, "an MTU is nothing that belongs to somebody"
    before["links"]["eth1v0"].pop("mtu")
    assert after == before


@pytest.mark.parametrize("there", [0, 2])
@pytest.mark.parametrize("sections", [(ONE,), (PLAIN, "vf1: {kind: vf, parent: eth1, vfs: 2, vlan: 7}")])
def test_a_failure_at_every_step_leaves_the_device_as_before(
    machine: Machine, there: int, sections: tuple[str, ...]
) -> None:
    if there:
        machine.write(machine.device / "sriov_numvfs", str(there))
    before = machine.dump()
    found = planned(machine, wanted(*sections))
    fails_at_every_step(machine, found, before)
    carried_out(machine, found)
    after = machine.dump()
    fails_at_every_step(machine, removal("a", look(sysfs_root=machine.root)), after)
    other = wanted("vf0: {kind: vf, parent: eth1, mac: '02:00:00:00:00:05', vlan: 8, addresses: [10.9.0.9/24]}")
    fails_at_every_step(machine, planned(machine, other), after)
    carried_out(machine, planned(machine, other))
    assert planned(machine, other) == NetPlan()


def fails_at_every_step(machine: Machine, found: NetPlan, before: dict[str, Any]) -> None:
    assert not found.problems
    assert found.steps
    for number, step in enumerate(found.steps):
        with pytest.raises(NetError, match="taken back|nothing was changed") as caught:
            apply(found, Failing(kernel(machine), number))
        assert "could not" not in str(caught.value)
        assert machine.dump() == before, f"after a failure at step {number}, {step.do}"


def test_a_rate_that_the_driver_refuses(machine: Machine) -> None:
    before = machine.dump()
    with pytest.raises(NetError) as caught:
        carried_out(machine, planned(machine, wanted("vf0: {kind: vf, parent: eth1, max_rate: 25Gbit}")))
    assert str(caught.value) == (
        "eth1 vf 0: set max rate 25000 Mbit/s: refused by the driver: the parent has no carrier, or the rate is over "
        "its speed; what had been done was taken back"
    )
    assert machine.dump() == before


def test_a_new_mac_is_unfixed_first(machine: Machine) -> None:
    carried_out(machine, planned(machine, wanted(PLAIN)))
    assert carried_out(machine, planned(machine, wanted(PLAIN.replace("00:01", "00:02")))) == [
        "vf 0: IFLA_VF_MAC = 00:00:00:00:00:00",
        "vf0: IFLA_ADDRESS = 02:00:00:00:00:02",
        "vf 0: IFLA_VF_MAC = 02:00:00:00:00:02",
    ]


def test_the_number_is_raised_by_way_of_0_and_only_if_nobody_uses_one(machine: Machine) -> None:
    machine.write(machine.device / "sriov_numvfs", "2")
    three = wanted("vf0: {kind: vf, parent: eth1, vfs: 3}")
    assert carried_out(machine, planned(machine, three))[:2] == ["sriov_numvfs = 0", "sriov_numvfs = 3"]
    four = wanted("vf0: {kind: vf, parent: eth1, vfs: 3}", "vf1: {kind: vf, parent: eth1, vfs: 4}")
    assert planned(machine, four).problems == (
        "vf1: eth1 has 3 functions and 4 are wanted; the number cannot be raised while one is used: "
        "vf 0 taken by another interface of the configuration",
    )


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (["vf0: {kind: vf, parent: eth1, vfs: 9}"], "vf0: 9 functions are wanted of eth1; allowed: at most 8"),
        (
            ["vf0: {kind: vf, parent: eth7}"],
            "vf0: parent eth7 does not exist; eth1 can have them (sriov_totalvfs in sysfs)",
        ),
        (
            ["vf0: {kind: vf, parent: eth1v1}"],
            "vf0: parent eth1v1 has no virtual functions; eth1 can have them (sriov_totalvfs in sysfs)",
        ),
        (
            ["eth1v1: {kind: vf, parent: eth1}"],
            "eth1v1: exists and is not marked as this host's (no alias); choose another name, or remove or rename it",
        ),
    ],
)
def test_what_cannot_be(machine: Machine, sections: list[str], problem: str) -> None:
    machine.write(machine.device / "sriov_numvfs", "2")
    assert planned(machine, wanted(*sections)).problems == (problem,)


def test_no_function_is_free(machine: Machine) -> None:
    """Each for another reason, and each reason is said."""
    machine.write(machine.device / "sriov_numvfs", "4")
    for index, link in machine.links.items():
        if link["name"] == "eth1v0":
            link["up"] = True
        if link["name"] == "eth1v1":
            machine.addresses.append((index, "10.9.0.7", 24))
        if link["name"] == "eth1v2":
            link["alias"] = "hostlane:b:vf0"
    (machine.device / "virtfn3" / "net" / "eth1v3").rmdir()
    (machine.device / "virtfn3" / "driver").symlink_to("/bus/pci/drivers/vfio-pci")
    assert planned(machine, wanted(PLAIN)).problems == (
        "vf0: none of the 4 functions of eth1 is free: vf 0 (eth1v0) is up; vf 1 (eth1v1) has addresses; "
        "vf 2 (eth1v2) is marked hostlane:b:vf0; vf 3 bound to vfio-pci",
    )


def test_a_function_comes_back_from_a_container_that_has_ended(machine: Machine) -> None:
    """The kernel moves it to the host with its name and alias; the next apply gives it back."""
    machine.write(machine.device / "sriov_numvfs", "1")
    before = machine.dump()
    for index, link in machine.links.items():
        if link["name"] == "eth1v0":
            link["alias"] = "hostlane:a:@web-1:eth1v0:0a0000000000"
            machine._rename(index, "eth9")
    machine.functions[0].update(vlan=5)
    assert carried_out(machine, planned(machine, {})) == [
        "vf 0: IFLA_VF_VLAN = 0", "eth9: IFLA_IFNAME = eth1v0", "eth1v0: IFLA_IFALIAS = ",
    ]  # fmt: skip
    assert machine.dump() == before
