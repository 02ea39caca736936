"""SR-IOV devices through sysfs: which virtual functions a device has, and how many it shall have. Blocks.

``root`` is where sysfs is mounted. It shows the network namespace that it was mounted in, as ``ip netns exec`` does for
each command and setns() does not: the functions of a namespace are read by a process that lives there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from proxy.errors import NetError
from proxy.netdev.observe.networkstate import VfDevice, VfParent

ROOT = "/sys"

APPEAR_SECONDS = 10.0
"""Longest wait for the interfaces of new functions: their driver may bind a while after the device was told (an igbvf
takes under one second, an mlx5 with 100 functions several)."""
LOOK_SECONDS = 0.05

CARRIER_SECONDS = 10.0
"""Longest wait for the parent's own carrier: a driver such as igb resets the device when the number changes, and until
the link has been negotiated again (2 to 4 seconds on copper at 1 Gbit/s) refuses a rate for a function."""


def read(names: Iterable[str], *, root: str = ROOT) -> dict[str, VfParent]:
    """Those of the interfaces whose device has virtual functions. Raises NetError for what cannot be read."""
    found = {name: _parent(name, root) for name in names}
    return {name: parent for name, parent in found.items() if parent is not None}


def vf_interface(parent: str, vf: int, *, root: str = ROOT) -> str:
    """The name of a function's interface. Raises NetError if it has none in this namespace."""
    name = _interface(_device(parent, root) / f"virtfn{vf}")
    if name is None:
        raise NetError(f"vf {vf} of {parent} has no interface in this namespace")
    return name


def set_vf_count(parent: str, count: int, *, root: str = ROOT) -> None:
    """Change how many functions the device has; wait until each has its interface, and the device its carrier again.

    The kernel wants 0 between two other numbers: all functions go and come again. A carrier that does not come back is
    no error, a cable can be pulled at any moment. Raises NetError; OSError if the write is refused.
    """
    path = _device(parent, root) / "sriov_numvfs"
    before, carried = _number(path), _has_carrier(parent, root)
    try:
        _write_count(path, count)
        _wait_for_interfaces(path.parent, count)
    except (OSError, NetError):
        _write_count(path, before)
        raise
    finally:
        if carried:
            _wait_for_carrier(parent, root)


def _write_count(path: Path, count: int) -> None:
    now = _number(path)
    if now not in (0, count) and count != 0:
        write(path, "0")
    if now != count:
        write(path, str(count))


def _wait_for_interfaces(device: Path, count: int) -> None:
    deadline = time.monotonic() + APPEAR_SECONDS
    while missing := [vf for vf in range(count) if _interface(device / f"virtfn{vf}") is None]:
        if time.monotonic() > deadline:
            raise NetError(f"vf {missing[0]} has no interface after {APPEAR_SECONDS:.0f}s; is its driver loaded?")
        time.sleep(LOOK_SECONDS)


def _wait_for_carrier(parent: str, root: str) -> None:
    deadline = time.monotonic() + CARRIER_SECONDS
    while not _has_carrier(parent, root) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)


def _has_carrier(name: str, root: str) -> bool:
    """False also for an interface that is down, of which the kernel does not say."""
    try:
        return _number(Path(root, "class", "net", name, "carrier")) == 1
    except NetError:
        return False


def write(path: Path, text: str) -> None:
    """One write(2) to a file of sysfs. Raises OSError as the kernel refuses it."""
    path.write_text(text)


def _parent(name: str, root: str) -> VfParent | None:
    device = _device(name, root)
    if not (device / "sriov_totalvfs").exists():
        return None
    count = _number(device / "sriov_numvfs")
    return VfParent(
        total=_number(device / "sriov_totalvfs"),
        devices=tuple(_vf(device / f"virtfn{vf}", vf) for vf in range(count)),
    )


def _device(name: str, root: str) -> Path:
    return Path(root, "class", "net", name, "device")


def _vf(path: Path, index: int) -> VfDevice:
    driver = path / "driver"
    return VfDevice(
        index=index,
        interface=_interface(path),
        driver=os.path.basename(os.readlink(driver)) if driver.is_symlink() else None,
    )


def _interface(path: Path) -> str | None:
    try:
        return next(iter(sorted(os.listdir(path / "net"))), None)
    except OSError:
        return None


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as error:
        raise NetError(f"cannot read {path}: {error}") from error
