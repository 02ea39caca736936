"""A macvlan child on a VLAN interface that is made for it: what the development machine's kernel has not."""

from __future__ import annotations

from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.apply.manage import look
from proxy.netdev.plan.plan import plan, removal
from tests.netdev.machine import interfaces, ip
from tests.vm.inside import BOX, HERE, NOTHING, Group, box, configure, group, hostlane, life, reaches_peer, steady

SECTION = (
    '{hl0: {parent: eth0, vlan: 100, mac: "02:00:00:00:00:01", mtu: 1400, addresses: [10.77.0.1/24, "fd77::1/64"], '
    "routes: [{to: 10.80.0.0/16, via: 10.77.0.254}]}}"
)
PLANNED = [
    "eth0.100: create vlan on eth0, id 100",
    "eth0.100: mark as hostlane:vm:eth0.100",
    "eth0.100: set up",
    "hl0: create macvlan on eth0.100, mode bridge, mac 02:00:00:00:00:01, mtu 1400",
    "hl0: mark as hostlane:vm:hl0:arp",
    "eth0.100: set arp_ignore 1",
    "eth0.100: set arp_announce 2",
    "hl0: set arp_ignore 1",
    "hl0: set arp_announce 2",
    "hl0: set up",
    "hl0: add address 10.77.0.1/24",
    "hl0: add address fd77::1/64",
    "hl0: add route 10.80.0.0/16 via 10.77.0.254",
]

SHOWN = {
    "-d link show dev eth0.100": ["vlan protocol 802.1Q id 100", "alias hostlane:vm:eth0.100"],
    "-d address show dev hl0": ["hl0@eth0.100", "macvlan mode bridge", "hostlane:vm:hl0", "10.77.0.1/24", "mtu 1400"],
    "route show dev hl0": ["10.80.0.0/16 via 10.77.0.254 proto 72"],
}


def run() -> None:
    with group("vlan") as checks:
        configure(f"interfaces: {SECTION}\n")
        life(checks, PLANNED, SHOWN)
    with group("vlan, undone") as checks:
        _failures(checks)
    with group("vlan, not Hostlane's") as checks:
        _of_somebody_else(checks)
    with group("vlan, container") as checks:
        _container(checks)
    with group("vlan, parent down") as checks:
        _parent_down(checks)


def _failures(checks: Group) -> None:
    before = steady()
    wanted = plan("a", interfaces(SECTION), look())
    checks.undone("apply", wanted)
    apply(wanted, Kernel())
    checks.undone("remove", away := removal("a", look()))
    apply(away, Kernel())
    checks.same("remove leaves nothing", before)


def _of_somebody_else(checks: Group) -> None:
    """A VLAN interface under another name is used, and stays."""
    ip(HERE, "link add link eth0 name office type vlan id 100", "link set office up")
    before = steady()
    configure(f"interfaces: {SECTION}\n")
    code, said = hostlane("net", "apply")
    checks.check("it is used", code == 0 and said[0].startswith("hl0: create macvlan on office"), said)
    checks.check("datagrams reach the peer", reaches_peer())
    checks.check("apply again", (again := hostlane("net", "apply")) == (0, NOTHING), again)
    hostlane("net", "remove")
    checks.same("remove leaves it", before)
    ip(HERE, "link delete office")


def _container(checks: Group) -> None:
    """It shares the VLAN interface with the host's child."""
    before = steady()
    configure(f"interfaces: {SECTION}\n")
    hostlane("net", "apply")
    words = ("--parent", "eth0", "--vlan", "100", "--address", "10.77.0.3/24")
    with box() as pid:
        code, said = hostlane("net", "attach", "--pid", str(pid), *words)
        checks.check("attach makes a child inside", code == 0 and not any("create vlan" in line for line in said), said)
        checks.check("datagrams go from the container to the peer", reaches_peer(BOX))
        code, said = hostlane("net", "remove")
        checks.check("remove says who stands on the VLAN", code == 0 and "stays" in said[-1], said)
        code, said = hostlane("net", "detach", "--pid", str(pid))
        checks.check("detach takes it away", code == 0, said)
    hostlane("net", "remove")
    checks.same("nothing is left", before)


def _parent_down(checks: Group) -> None:
    ip(HERE, "link add below type veth peer name cable")
    try:
        configure("interfaces: {hl0: {parent: below, vlan: 7}}\n")
        code, said = hostlane("net", "apply")
        wanted = "hl0: below is down, so VLAN 7 on it cannot be up: ip link set below up"
        checks.check("is refused with the command that mends it", code == 1 and said[-1].endswith(wanted), said)
    finally:
        ip(HERE, "link delete below")
