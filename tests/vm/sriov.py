"""Virtual functions of the emulated igb (Intel 82576), on the drivers igb and igbvf."""

from __future__ import annotations

from pathlib import Path

from proxy.demo import netns
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.apply.manage import look
from proxy.netdev.plan.plan import plan, removal
from tests.netdev.machine import interfaces, ip
from tests.vm.inside import (
    BOX,
    HERE,
    NOTHING,
    Group,
    box,
    configure,
    group,
    hostlane,
    life,
    reaches_peer,
    steady,
    wait_for,
)

SECTION = (
    '{hl1: {kind: vf, parent: eth0, vlan: 100, mac: "02:00:00:00:00:11", mtu: 1400, spoof_check: false, trust: true, '
    "max_rate: 500Mbit, addresses: [10.77.0.1/24], routes: [{to: 10.80.0.0/16, via: 10.77.0.254}]}}"
)
FRESH = [
    "eth0: set the number of virtual functions to 1",
    "eth0 vf 0: mark as hostlane:vm:hl1:::0",
    "eth0 vf 0: rename to hl1",
    "hl1: set mac 02:00:00:00:00:11",
    "hl1: set mtu 1400",
    "eth0 vf 0: set mac 02:00:00:00:00:11",
    "eth0 vf 0: set vlan 100",
    "eth0 vf 0: set spoof check off",
    "eth0 vf 0: set trust on",
    "eth0 vf 0: set max rate 500 Mbit/s",
    "hl1: set up",
    "hl1: add address 10.77.0.1/24",
    "hl1: add route 10.80.0.0/16 via 10.77.0.254",
]
SHOWN = {
    "link show dev eth0": [
        "vf 0     link/ether 02:00:00:00:00:11", "vlan 100", "max_tx_rate 500Mbps", "spoof checking off", "trust on",
    ],
    "address show dev hl1": [",UP", "mtu 1400", "link/ether 02:00:00:00:00:11", "10.77.0.1/24"],
}  # fmt: skip
NUMBER = Path("/sys/class/net/eth0/device/sriov_numvfs")


def run() -> None:
    total = NUMBER.with_name("sriov_totalvfs")
    with group("vf") as checks:
        checks.check("the device offers functions", int(total.read_text()) > 1, total.read_text().strip())
        configure(f"interfaces: {SECTION}\n")
        life(checks, FRESH, SHOWN)
        checks.check("the number of functions is 0 again", NUMBER.read_text() == "0\n")
    with group("vf, given back") as checks:
        _given_back(checks)
    with group("vf, container") as checks:
        _container(checks)
    with group("vf, undone") as checks:
        _failures(checks)
    with group("vf, limits") as checks:
        configure("interfaces: {hl1: {kind: vf, parent: eth0, vfs: 200}}\n")
        checks.check("more than the device has is refused", (said := hostlane("net", "plan"))[0] == 1, said)


def function(vf: int) -> str:
    """The name of its interface."""
    return next(iter(NUMBER.with_name(f"virtfn{vf}").glob("net/*"))).name


def _set_number(number: int) -> None:
    NUMBER.write_text(str(number))
    carrier = Path("/sys/class/net/eth0/carrier")
    wait_for(lambda: len(list(NUMBER.parent.glob("virtfn*/net/*"))) == number and carrier.read_text() == "1\n")


def _given_back(checks: Group) -> None:
    """Two functions that were there before; Hostlane takes one."""
    _set_number(2)
    name = function(0)
    before = steady()
    code, said = hostlane("net", "apply")
    checks.check("apply takes a free one", code == 0 and f"mark as hostlane:vm:hl1:{name}" in said[0], said)
    checks.shows(HERE, "link show dev eth0", *SHOWN["link show dev eth0"])
    checks.check("apply again finds nothing to change", (again := hostlane("net", "apply")) == (0, NOTHING), again)
    code, said = hostlane("net", "remove")
    checks.check("remove gives it back", code == 0, said)
    _same_but_mtu(checks, "name, MAC and the parent's settings are as before", before)
    ip(HERE, f"link set {function(0)} address 02:00:00:00:00:77")
    checks.shows(HERE, f"link show dev {function(0)}", "link/ether 02:00:00:00:00:77")
    _set_number(0)


def _same_but_mtu(checks: Group, what: str, before: list[str]) -> None:
    """docs/sriov.md: an MTU is not given back."""
    ip(HERE, f"link set {function(0)} mtu 1500")
    checks.same(what, before)


def _container(checks: Group) -> None:
    before = steady()
    words = ("--kind", "vf", "--parent", "eth0", "--vlan", "100", "--address", "10.77.0.3/24")
    with box() as pid:
        code, said = hostlane("net", "attach", "--pid", str(pid), *words)
        checks.check("attach moves a function inside", code == 0, said)
        checks.shows(BOX, "address show dev eth1", ",UP", "10.77.0.3/24")
        checks.check("datagrams go from the container to the peer", reaches_peer(BOX))
        again = hostlane("net", "attach", "--pid", str(pid), *words)
        checks.check("attach again finds nothing to change", again[0] == 0 and again[1][0] == NOTHING[0], again)
        code, said = hostlane("net", "detach", "--pid", str(pid))
        checks.check("detach gives it back", code == 0, said)
    checks.same("nothing is left", before)
    with box() as pid:
        code, said = hostlane("net", "attach", "--pid", str(pid), *words)
        checks.check("attach to a container that ends", code == 0, said)
    back = wait_for(lambda: any(NUMBER.parent.glob("virtfn0/net/*")))
    checks.check("the function comes back by itself", back, sorted(p.name for p in Path("/sys/class/net").iterdir()))
    configure("")
    code, said = hostlane("net", "apply")
    checks.check("the next apply gives it back to its parent", code == 0 and said != NOTHING, said)
    checks.same("nothing is left after the container ended", before)


def _failures(checks: Group) -> None:
    """First with a function that was there, then with the number raised: the device resets itself, which takes long."""
    _set_number(1)
    before, wanted = steady(), interfaces(SECTION)
    found = plan("a", wanted, look())
    checks.undone("apply", found)
    try:
        ip(HERE, f"link set {function(0)} address 02:00:00:00:00:77")
        refused = ""
    except netns.LabError as error:
        refused = str(error)
    checks.check("its MAC is fixed then, as docs/sriov.md says", "assign requested address" in refused, refused)
    apply(found, Kernel())
    checks.undone("remove", away := removal("a", look()))
    apply(away, Kernel())
    _same_but_mtu(checks, "remove leaves nothing", before)
    _set_number(0)
    found = plan("a", wanted, look())
    checks.undone("apply that raises the number", found, [1, len(found.steps) - 1])
