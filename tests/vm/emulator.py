"""Boots the machine and reads its console."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "hostlane-vm: "
"""Before each verdict on the console; behind it is JSON."""


class Machine(NamedTuple):
    """A machine's options, of QEMU and of the kernel, besides those that all have."""

    qemu: str = ""
    kernel: str = ""


SYSTEMD = (
    "rdinit=/usr/lib/systemd/systemd systemd.unit=hostlane-vm.service systemd.show_status=no "
    "systemd.mask=ldconfig.service systemd.mask=systemd-firstboot.service"
)
MACHINES = {
    "plain": Machine(),
    "iommu": Machine(qemu="-device intel-iommu"),
    "systemd": Machine(kernel=SYSTEMD),
    "store": Machine(kernel=SYSTEMD),
    "joined": Machine(kernel=SYSTEMD),
}
"""What is booted, one after the other: the last three with systemd, in pieces for BOOT_SECONDS' sake."""

BOOT_SECONDS = 1800
"""From power on to power off. The plain one takes 200 on a shared machine with 2 cores, those with systemd 300, all of
them four times as long where a dozen others want the cores."""

# Both devices hang on one hub, as two machines on a switch. An SR-IOV device wants a PCI Express port of its own, whose
# ARI forwarding makes functions beyond number 7 reachable. The functions' drivers run in the machine itself and need no
# IOMMU.
MACHINE = (
    "-machine q35 -accel tcg -smp 1 -m 1024 -nodefaults -display none -no-reboot -serial stdio -monitor none "
    "-device pcie-root-port,id=port1,chassis=1 -netdev hubport,id=here,hubid=0 -device igb,netdev=here,bus=port1 "
    "-device pcie-root-port,id=port2,chassis=2 -netdev hubport,id=peer,hubid=0 -device e1000e,netdev=peer,bus=port2"
)
# Without the kernel's guards against flaws that an emulated processor has not, a system call costs a fraction. The
# machine's name is for those who read /proc/cmdline.
KERNEL_OPTIONS = "console=ttyS0 loglevel=5 panic=-1 mitigations=off intel_iommu=on machine={name}"


def boot(name: str, root: Path, kernel: str, said: Callable[[str], None]) -> Generator[dict[str, Any], None, None]:
    """Boot /boot/initramfs of ``root`` on one of `MACHINES`, and yield the verdicts as they come until it is down.

    ``said`` gets every other line of the console. The machine is killed after BOOT_SECONDS, and when the generator is
    closed.
    """
    machine = MACHINES[name]
    options = f"{KERNEL_OPTIONS.format(name=name)} {machine.kernel}"
    files = ["-kernel", f"/boot/vmlinuz-{kernel}", "-initrd", "/boot/initramfs", "-append", options]
    command = ["chroot", str(root), "qemu-system-x86_64", *machine.qemu.split(), *MACHINE.split(), *files]
    qemu = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    )  # fmt: skip
    timer = threading.Timer(BOOT_SECONDS, qemu.kill)
    timer.start()
    try:
        assert qemu.stdout is not None
        yield from verdicts(qemu.stdout, said)
    finally:
        timer.cancel()
        qemu.kill()
        qemu.wait()


def verdicts(console: Iterable[str], said: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    for line in console:
        before, found, text = line.rstrip().partition(PREFIX)
        try:
            verdict = json.loads(text) if found else None
        except ValueError:
            verdict = None
        if isinstance(verdict, dict):
            yield verdict
        elif line.strip():
            said(before + found + text)
