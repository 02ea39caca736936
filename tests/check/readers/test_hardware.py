from __future__ import annotations

from pathlib import Path

import pytest

from proxy.check.readers.hardware import devices, has_iommu
from proxy.check.rules.hardware import Device
from tests.check.ground import Ground, findings, seen
from tests.check.readers.test_ethtool import switch

ONLY = ("hardware",)


@pytest.mark.netns
def test_tso_is_off(ground: Ground) -> None:
    switch(ground.here, "eth0", "tso", on=False)
    found = findings(ground.check(ground.here, ground.config()))["tso-off"]
    assert (found.level, found.where, found.mend) == ("note", "eth0", "ethtool -K eth0 tso on")
    switch(ground.here, "eth0", "tso", on=True)
    assert "eth0: on are tso" in seen(ground.check(ground.here, ground.config()))


@pytest.mark.netns
def test_gro_is_off(ground: Ground) -> None:
    """Of a tap, which has packets from nobody else, as a card has."""
    ground.ip(ground.here, "tuntap add dev tap0 mode tap", "link set tap0 up", "address add 10.77.9.1/24 dev tap0")
    config = ground.config(listen="10.77.9.1", peer="10.77.9.2")
    switch(ground.here, "tap0", "gro", on=False)
    assert findings(ground.check(ground.here, config))["gro-off"].where == "tap0"
    switch(ground.here, "tap0", "gro", on=True)
    assert "gro-off" not in findings(ground.check(ground.here, config))


@pytest.mark.netns
def test_virtual_interfaces_have_no_gro_by_nature(ground: Ground) -> None:
    report = ground.check(ground.here, ground.config())
    assert "gro-off" not in findings(report)
    assert "eth0: on are tso" in seen(report)


@pytest.mark.netns
def test_a_macvlan_counts_with_its_parent(ground: Ground) -> None:
    ground.macvlan(ground.here, "mv0", ground.here, "10.77.9.1/24")
    switch(ground.here, "eth0", "tso", on=False)
    report = ground.check(ground.here, ground.config(listen="10.77.9.1", peer="10.77.9.2"))
    assert findings(report)["tso-off"].where == "eth0"


def card(sysfs: Path, name: str, total: str, made: str) -> None:
    """The files of an interface that offers SR-IOV, as the PCI core makes them."""
    device = sysfs / "class/net" / name / "device"
    device.mkdir(parents=True)
    (device / "sriov_totalvfs").write_text(f"{total}\n")
    (device / "sriov_numvfs").write_text(f"{made}\n")


def test_virtual_functions(tmp_path: Path) -> None:
    """A copy of what sysfs shows: this takes a card."""
    card(tmp_path, "eth0", "63", "0")
    card(tmp_path, "eth1", "7", "2")
    card(tmp_path, "eth2", "0", "0")
    assert list(devices(tmp_path)) == [
        Device(interface="eth0", possible=63, made=0), Device(interface="eth1", possible=7, made=2),
    ]  # fmt: skip


def test_an_iommu(tmp_path: Path) -> None:
    assert not has_iommu(tmp_path)
    groups = tmp_path / "kernel/iommu_groups"
    groups.mkdir(parents=True)
    assert not has_iommu(tmp_path)
    (groups / "0").mkdir()
    assert has_iommu(tmp_path)
