"""A macvlan child on a VLAN interface that is made for it: what the development machine's kernel has not."""

from __future__ import annotations

from proxy.demo import netns
from proxy.netdev.apply import apply
from proxy.netdev.plan import removal
from proxy.netdev.world import World
from proxy.netdev import observe
from tests.netdev.machine import applied, dump, fails_at_every_step, interfaces, planned
from tests.vm.inside import HERE, Group, box, configure, group, hostlane, life, reaches_peer

SECTION = (
    '{hl0: {parent: eth0, vlan: 100, mac: "02:00:00:00:00:01", mtu: 1400, addresses: [10.77.0.1/24, "fd77::1/64"], '
    "routes: [{to: 10.80.0.0/16, via: 10.77.0.254}]}}"
)
PLANNED = [
    "eth0.100: create vlan on eth0, id 100",
    "eth0.100: mark as hostlane:vm:eth0.100",
    "eth0.100: set up",
    "hl0: create macvlan on eth0.100, mode bridge, mac 02:00:00:00:00:01, mtu 1400",
    "hl0: mark as hostlane:vm:hl0",
    "hl0: set up",
    "hl0: add address 10.77.0.1/24",
    "hl0: add address fd77::1/64",
    "hl0: add route 10.80.0.0/16 via 10.77.0.254",
]


def run() -> None:
    with group("vlan") as checks:
        configure(f"interfaces: {SECTION}\n")
        life(checks, PLANNED, ["-d", "address", "show", "dev", "hl0"])
    with group("vlan, undone") as checks:
        _failures(checks)
    with group("vlan, not Hostlane's") as checks:
        _of_somebody_else(checks)
    with group("vlan, container") as checks:
        _container(checks)
    with group("vlan, parent down") as checks:
        _parent_down(checks)


def _failures(checks: Group) -> None:
    before = dump(HERE)
    wanted = interfaces(SECTION)
    steps = planned(HERE, wanted).steps
    fails_at_every_step(HERE, steps, lambda kernel: apply(planned(HERE, wanted), kernel), before)
    checks.check("a failure at every step of apply leaves all as before", bool(steps), len(steps))
    applied(HERE, wanted)
    after = dump(HERE)
    away = removal("a", World(snapshot=observe.snapshot()))
    fails_at_every_step(HERE, away.steps, lambda kernel: apply(away, kernel), after)
    checks.check("a failure at every step of remove leaves all as before", bool(away.steps), len(away.steps))
    from proxy.netdev.kernel import Kernel

    apply(away, Kernel())
    checks.same("remove leaves nothing", before)


def _of_somebody_else(checks: Group) -> None:
    """A VLAN interface under another name is used, and stays."""
    netns.run("ip link add link eth0 name office type vlan id 100".split())
    netns.run("ip link set office up".split())
    before = dump(HERE)
    configure(f"interfaces: {SECTION}\n")
    code, said = hostlane("net", "apply")
    checks.check("it is used", code == 0 and said[0].startswith("hl0: create macvlan on office"), said)
    checks.check("datagrams reach the peer", reaches_peer())
    checks.check("apply again", (again := hostlane("net", "apply")) == (0, ["nothing to change"]), again)
    hostlane("net", "remove")
    checks.same("remove leaves it", before)
    netns.run("ip link delete office".split())


def _container(checks: Group) -> None:
    """It shares the VLAN interface with the host's child."""
    before = dump(HERE)
    configure(f"interfaces: {SECTION}\n")
    hostlane("net", "apply")
    words = ("--parent", "eth0", "--vlan", "100", "--address", "10.77.0.3/24")
    with box() as pid:
        code, said = hostlane("net", "attach", "--pid", str(pid), *words)
        checks.check("attach makes a child inside", code == 0 and not any("create vlan" in line for line in said), said)
        checks.check("datagrams go from the container to the peer", reaches_peer("box"))
        code, said = hostlane("net", "remove")
        checks.check("remove says who stands on the VLAN", code == 0 and "stays" in said[-1], said)
        code, said = hostlane("net", "detach", "--pid", str(pid))
        checks.check("detach takes it away", code == 0, said)
    hostlane("net", "remove")
    checks.same("nothing is left", before)


def _parent_down(checks: Group) -> None:
    netns.run("ip link add below type veth peer name cable".split())
    try:
        configure("interfaces: {hl0: {parent: below, vlan: 7}}\n")
        code, said = hostlane("net", "apply")
        wanted = "hl0: below is down, so VLAN 7 on it cannot be up: ip link set below up"
        checks.check("is refused with the command that mends it", code == 1 and said[-1].endswith(wanted), said)
    finally:
        netns.run("ip link delete below".split())
