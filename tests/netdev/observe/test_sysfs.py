from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.errors import NetError
from proxy.netdev.observe import sysfs
from proxy.netdev.observe.networkstate import VfDevice, VfParent


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """eth1 with room for 4 functions and 2 of them: one with an interface, one given to a VM. eth0 has none."""
    found = tmp_path / "class" / "net" / "eth1" / "device"
    (found / "virtfn0" / "net" / "eth1v0").mkdir(parents=True)
    (found / "virtfn0" / "driver").symlink_to("/sys/bus/pci/drivers/igbvf")
    (found / "virtfn1").mkdir()
    (found / "virtfn1" / "driver").symlink_to("/sys/bus/pci/drivers/vfio-pci")
    (found / "sriov_totalvfs").write_text("4\n")
    (found / "sriov_numvfs").write_text("2\n")
    (tmp_path / "class" / "net" / "eth0" / "device").mkdir(parents=True)
    return found


def test_reading(device: Path, tmp_path: Path) -> None:
    assert sysfs.read(["lo", "eth0", "eth1"], root=str(tmp_path)) == {
        "eth1": VfParent(
            total=4,
            devices=(
                VfDevice(index=0, interface="eth1v0", driver="igbvf"),
                VfDevice(index=1, interface=None, driver="vfio-pci"),
            ),
        )
    }
    assert sysfs.vf_interface("eth1", 0, root=str(tmp_path)) == "eth1v0"
    with pytest.raises(NetError, match="vf 1 of eth1 has no interface in this namespace"):
        sysfs.vf_interface("eth1", 1, root=str(tmp_path))


def test_what_cannot_be_read(device: Path, tmp_path: Path) -> None:
    (device / "sriov_numvfs").write_text("many\n")
    with pytest.raises(NetError, match="cannot read .*sriov_numvfs"):
        sysfs.read(["eth1"], root=str(tmp_path))


def test_interfaces_that_appear_late_are_waited_for(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def bind(seconds: float) -> None:
        looks.append(seconds)
        (device / f"virtfn{len(looks)}" / "net" / "late").mkdir(parents=True)

    monkeypatch.setattr("time.sleep", bind)
    sysfs.set_vf_count("eth1", 3, root=str(tmp_path))
    assert looks == [sysfs.LOOK_SECONDS] * 2
    assert (device / "sriov_numvfs").read_text() == "3"


def test_a_carrier_that_the_change_takes_away_is_waited_for(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An igb resets itself; until its link is back it refuses a function's rate."""
    carrier = device.parent / "carrier"
    carrier.write_text("1\n")
    looks = []

    def reset(path: Path, text: str) -> None:
        path.write_text(text)
        carrier.write_text("0\n")

    def look(seconds: float) -> None:
        looks.append(seconds)
        carrier.write_text(f"{len(looks) // 3}\n")

    monkeypatch.setattr(sysfs, "write", reset)
    monkeypatch.setattr("time.sleep", look)
    sysfs.set_vf_count("eth1", 1, root=str(tmp_path))
    assert looks == [sysfs.LOOK_SECONDS] * 3


@pytest.mark.parametrize("before", ["0\n", "1\n", None])
def test_without_a_carrier_the_number_is_changed_all_the_same(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """It had none before, or does not get it back, or is down: then the kernel does not let the file be read."""
    monkeypatch.setattr(sysfs, "CARRIER_SECONDS", 0.0)
    carrier = device.parent / "carrier"
    if before is not None:
        carrier.write_text(before)
        monkeypatch.setattr(sysfs, "write", lambda path, text: (path.write_text(text), carrier.write_text("0\n")))
    sysfs.set_vf_count("eth1", 1, root=str(tmp_path))
    assert (device / "sriov_numvfs").read_text() == "1"


def test_interfaces_that_never_appear(device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is as before then."""
    monkeypatch.setattr(sysfs, "APPEAR_SECONDS", 0.0)
    with pytest.raises(NetError, match="vf 1 has no interface after 0s; is its driver loaded?"):
        sysfs.set_vf_count("eth1", 3, root=str(tmp_path))
    assert (device / "sriov_numvfs").read_text() == "2"


def test_a_device_that_refuses(device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def refuse(path: Path, text: str) -> None:
        written.append(text)
        if text == "3":
            raise OSError(12, os.strerror(12))
        path.write_text(text)

    monkeypatch.setattr(sysfs, "write", refuse)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        sysfs.set_vf_count("eth1", 3, root=str(tmp_path))
    assert written == ["0", "3", "2"]
