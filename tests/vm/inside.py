"""Runs in the emulated machine, as `init` starts it: real commands against its kernel and its igb device.

A check is a line of JSON on the console: its name, whether it holds, and what was seen. "As before" always means the
dump of all links (virtual functions included), addresses and routes that tests/netdev compares too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy.demo import netns
from proxy.errors import NetError
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import Failing, dump, ip
from tests.vm.emulator import PREFIX

HERE, PEER, BOX = "here", "peer", "box"
"""Names of namespaces: the machine's own, that of the other machine on the hub, a container's."""

CONFIG = Path("/run/vm.yaml")
HEAD = "host: vm\nlinks: {listen: 10.77.0.1:7600, security: none}\n"
PEER_ADDRESS = "10.77.0.2"
NOTHING = ["nothing to change"]

PATIENCE = 15.0
"""Seconds for what an emulated machine does by itself: a carrier, a function that comes back."""


def tell(**verdict: Any) -> None:
    sys.stdout.write(f"{PREFIX}{json.dumps(verdict)}\n")
    sys.stdout.flush()


class Group:
    """Checks of one kind; each says by itself whether it holds."""

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, what: str, ok: bool, seen: Any = None) -> None:
        tell(check=f"{self.name}: {what}", ok=bool(ok), **({} if seen is None else {"seen": seen}))

    def shows(self, space: str, command: str, *words: str) -> None:
        """`ip` in this namespace says all of the words."""
        said = netns.run(["ip", "-n", space, *command.split()])
        lines = [line.strip() for line in said.splitlines()]
        self.check(f"ip {command} shows it", all(word in said for word in words), lines)

    def same(self, what: str, before: list[str]) -> None:
        """Nothing differs from ``before``."""
        self.check(what, not (found := differences(before)), found or None)

    def undone(self, what: str, plan: NetPlan, numbers: Iterable[int] | None = None) -> None:
        """A failure at each step, or those with these numbers, leaves everything as it is now."""
        before, wrong = steady(), []
        chosen = list(range(len(plan.steps)) if numbers is None else numbers)
        for number in chosen:
            try:
                apply(plan, Failing(Kernel(), number))
                wrong.append(f"step {number} did not fail")
            except NetError as error:
                if "could not" in str(error) or (found := differences(before)):
                    wrong += [f"step {number}, {plan.steps[number].do}: {error}", *found]
        self.check(f"a failure at {'every step' if numbers is None else 'some steps'} of {what} is undone",
                   not wrong and len(chosen) > 0, wrong or chosen)  # fmt: skip


def steady() -> list[str]:
    """The dump without what stays behind in a device that was up: its queueing discipline (noop before), and what igbvf
    calls its permanent MAC, which is the last one that it was reset with."""
    return [re.sub(r"'(qdisc|permaddr)': '[^']*', ", "", line) for line in dump(HERE)]


def differences(before: list[str]) -> list[str]:
    now = steady()
    lost = [f"- {line}" for line in before if line not in now]
    return [*lost, *(f"+ {line}" for line in now if line not in before)]


@contextlib.contextmanager
def group(name: str) -> Iterator[Group]:
    """What nobody expected is a check that does not hold; the next group starts from a machine without interfaces."""
    try:
        yield Group(name)
    except Exception as error:
        tell(check=f"{name}: runs to its end", ok=False, seen=repr(error), trace=traceback.format_exc().splitlines())
        hostlane("net", "remove")


def hostlane(*words: str) -> tuple[int, list[str]]:
    """Exit code and all lines that the command printed."""
    done = subprocess.run(["hostlane", *words, "--config", str(CONFIG)], capture_output=True, text=True, check=False)
    return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]


def configure(text: str) -> None:
    CONFIG.write_text(HEAD + text)


def wait_for(what: Any) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def reaches_peer(space: str = HERE) -> bool:
    """Whether a datagram goes to the peer's VLAN 100 and an answer comes back."""
    kind = socket.SOCK_DGRAM
    with netns.make_socket(PEER, kind=kind) as peer, netns.make_socket(space, kind=kind) as me:
        peer.bind((PEER_ADDRESS, 7))
        peer.settimeout(PATIENCE)
        me.settimeout(PATIENCE)
        try:
            me.sendto(b"there", (PEER_ADDRESS, 7))
            data, sender = peer.recvfrom(64)
            peer.sendto(data + b" and back", sender)
            return me.recv(64) == b"there and back"
        except OSError:
            return False


def life(checks: Group, planned: list[str], shown: Mapping[str, Sequence[str]]) -> None:
    """Plan, apply twice, traffic, remove twice. ``shown``: commands of `ip`, and what they have to say then."""
    before = steady()
    checks.check("plan says what it would do", (said := hostlane("net", "plan")) == (0, planned), said)
    checks.same("plan changes nothing", before)
    checks.check("apply does it", (said := hostlane("net", "apply")) == (0, planned), said)
    after = steady()
    for command, words in shown.items():
        checks.shows(HERE, command, *words)
    checks.check("apply again finds nothing to change", (said := hostlane("net", "apply")) == (0, NOTHING), said)
    checks.same("apply again changes nothing", after)
    checks.check("datagrams reach the peer's VLAN 100 and come back", reaches_peer())
    checks.check("status is fine", (said := hostlane("net", "status"))[0] == 0, said)
    code, said = hostlane("net", "remove")
    checks.check("remove takes it away", code == 0 and said != NOTHING, said)
    checks.same("remove leaves nothing", before)
    checks.check("remove again finds nothing to change", (found := hostlane("net", "remove")) == (0, NOTHING), found)


@contextlib.contextmanager
def box() -> Iterator[int]:
    """A container: a process in a namespace of its own. It is gone after the block, if not before."""
    netns.add(BOX)
    try:
        process = subprocess.Popen(netns.inside(BOX, ["sleep", "infinity"]))
        wait_for(lambda: netns.pids(BOX) == [process.pid])
        yield process.pid
        process.kill()
        process.wait()
    finally:
        netns.delete(BOX)


def prepare() -> str:
    """eth0 is the igb; eth1 moves to the peer's namespace and gets VLAN 100. Returns what runs here, in a line."""
    Path("/run/netns").mkdir()
    netns.run(["ip", "netns", "attach", HERE, str(os.getpid())])
    netns.add(PEER)
    ip(HERE, "link set lo up", "link set eth0 up", f"link set eth1 netns {PEER}")
    ip(
        PEER, "link set eth1 up", "link add eth1.100 link eth1 type vlan id 100", "link set eth1.100 up",
        f"address add {PEER_ADDRESS}/24 dev eth1.100",
    )  # fmt: skip
    wait_for(lambda: Path("/sys/class/net/eth0/carrier").read_text().strip() == "1")
    wait_for(lambda: any("fe80" in line for line in dump(HERE)))
    driver = Path("/sys/class/net/eth0/device/driver").resolve().name
    return f"Linux {os.uname().release}, Python {sys.version.split()[0]}, eth0 {driver}"


def machine() -> str:
    """Which of `emulator.MACHINES` this is: an option of the kernel's."""
    words = Path("/proc/cmdline").read_text().split()
    return next(word.removeprefix("machine=") for word in words if word.startswith("machine="))


def main() -> None:
    from tests.vm import check, joined, memory, netunit, sriov, supervised, unitsockets, vlan

    start, name = time.monotonic(), machine()
    try:
        if name in ("systemd", "store", "joined"):
            tell(machine=f"{name}: {supervised.prepare()}")
        else:
            tell(machine=f"{name}: {prepare()}")
            configure("")
        plain = (vlan.run, sriov.run, check.no_iommu, memory.run)
        runs = {
            "plain": plain,
            "iommu": (check.faults, check.clean),
            "systemd": (supervised.run,),
            "store": (netunit.run, unitsockets.run),
            "joined": (joined.run,),
        }
        for run in runs[name]:
            run()
    except Exception:
        traceback.print_exc()
        return
    tell(end=f"{time.monotonic() - start:.0f}s")
