"""hostlane-net.service as it stands: what it must be able to do for interfaces of each kind is left to it, and no more.

The kernel loads macvlan and 8021q by itself when the first interface of the kind is made.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from proxy.demo import netns
from tests.vm import supervised
from tests.vm.inside import group, wait_for
from tests.vm.supervised import CONFIG, HEAD, systemctl

UNIT = "hostlane-net.service"
INTERFACES = """\
interfaces:
  hl0: {parent: eth0, vlan: 7, addresses: [10.78.0.1/24], source_table: 7600}
  hl1: {kind: vf, parent: eth0, vlan: 100, max_rate: 500Mbit, addresses: [10.79.0.1/24]}
"""
EXPOSED = 30
"""What `systemd-analyze security` may say at most, of 100."""


def run() -> None:
    with group("hostlane-net") as checks:
        netns.run(["modprobe", "--all", "igb", "igbvf"])  # the machine has no udev
        netns.run(["ip", "link", "set", "eth0", "up"])
        wait_for(lambda: Path("/sys/class/net/eth0/carrier").read_text() == "1\n")
        CONFIG.write_text(HEAD + INTERFACES)
        checks.check(
            "installed as docs/network.md says", (said := supervised.install(UNIT, "network.md"))[0] == 0, said
        )
        checks.check("it watches", shows("ActiveState") == "active", log())
        checks.check("a macvlan child on a VLAN", "10.78.0.1/24" in addresses("hl0"), [addresses("hl0"), *log()])
        checks.check("a virtual function", "10.79.0.1/24" in addresses("hl1"), addresses("hl1"))
        settings = Path("/proc/sys/net/ipv4/conf/hl0/arp_ignore").read_text().strip()
        checks.check("settings in /proc/sys", settings == "1", settings)
        rules = netns.run(["ip", "rule", "show"])
        checks.check("a routing table of its own", "from 10.78.0.1 lookup 7600" in rules, rules.splitlines())
        netns.run(["ip", "link", "delete", "hl0"])
        checks.check("is made again", supervised.becomes(lambda: "10.78.0.1/24" in addresses("hl0")), log())
        argv = ["systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSED}", UNIT]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        checks.check("security", done.returncode == 0, done.stdout.splitlines()[-1:])
        checks.check("systemctl stop", systemctl("stop", UNIT) == 0 and shows("Result") == "success", shows("Result"))
        checks.check("leaves the interfaces", "10.78.0.1/24" in addresses("hl0"))
        subprocess.run(["hostlane", "net", "remove", "--config", str(CONFIG)], check=False)
        checks.check("hostlane net remove takes them away", addresses("hl0") == "")
    CONFIG.write_text(HEAD)


def addresses(name: str) -> str:
    """What `ip` says of the interface; nothing: there is none."""
    argv = ["ip", "address", "show", "dev", name]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def shows(name: str) -> str:
    argv = ["systemctl", "show", "--value", f"--property={name}", UNIT]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def log() -> list[str]:
    argv = ["journalctl", f"--unit={UNIT}", "--lines=12", "--no-pager", "--output=cat"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
