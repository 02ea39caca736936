"""`hostlane check` where faults are possible that no network namespace can have: a card with virtual functions, kernel
modules, the machine's clock. And a machine with nothing to find.
"""

from __future__ import annotations

import ctypes
import json
import resource
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.demo.certificates import CertificateAuthority
from tests.netdev.machine import ip
from tests.vm.inside import HERE, Group, configure, group, hostlane, reaches_peer, wait_for

CERTIFICATE = Path("/run/vm.pem")
DAY = 86400.0
FUNCTIONS = Path("/sys/class/net/eth0/device/sriov_numvfs")
SYSCTLS = {"net/ipv4/tcp_slow_start_after_idle": "0", "net/ipv4/tcp_keepalive_time": "600"}
DESCRIPTORS = 1 << 20
CLEAN = """\
peers: {host-b: {address: 10.77.0.2:7600, services: []}}
interfaces: {hl1: {kind: vf, parent: eth0, vlan: 100, addresses: [10.77.0.1/24]}}
"""
NAT = "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c masquerade"


class Diagnosis:
    """One run of ``hostlane check --json``, about the machine alone or with a configuration.

    Attributes:
        code: its exit code.
        found: its findings.
        lines: what was as it should be, and what could not be seen.
    """

    def __init__(self, *words: str, prefix: Sequence[str] = ()) -> None:
        done = subprocess.run(
            [*prefix, "hostlane", "check", "--json", *words], capture_output=True, text=True, check=False
        )
        self.code = done.returncode
        try:
            groups: list[dict[str, Any]] = json.loads(done.stdout)["groups"]
        except ValueError:
            raise RuntimeError(f"hostlane check: {done.stderr}") from None
        self.found = [finding for each in groups for finding in each["findings"]]
        unseen = [f"{item['what']}: {item['why']}" for each in groups for item in each["unseen"]]
        self.lines = [*(text for each in groups for text in each["seen"]), *unseen]

    def of(self, name: str, where: str) -> dict[str, Any] | None:
        """The finding of that name about that thing."""
        return next((each for each in self.found if (each["name"], each["where"]) == (name, where)), None)


def no_iommu() -> None:
    """On a machine without one."""
    with group("check, IOMMU") as checks:
        checks.check("no-iommu is found", (it := Diagnosis().of("no-iommu", "eth0")) is not None, it)


def faults() -> None:
    """Plant each fault, see it found, mend it as the finding says, see it gone."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    with group("check, modules") as checks:
        _idle_modules(checks)
        _used_module(checks)
        _bridge(checks)
    with group("check, functions") as checks:
        _unused_functions(checks)
    with group("check, clock") as checks:
        _clock(checks)


def clean() -> None:
    """On a machine with an IOMMU: everything as docs/check.md wants it, and nothing to find."""
    with group("check, clean") as checks:
        for name, value in SYSCTLS.items():
            Path("/proc/sys", name).write_text(value)
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        keep_in_time()
        issue()
        configure(CLEAN)
        code, said = hostlane("net", "apply")
        checks.check("apply makes a function", code == 0 and reaches_peer(), said)
        it = Diagnosis("--config", "/run/vm.yaml", "--certificate", str(CERTIFICATE))
        checks.check("nothing is found", (it.code, it.found) == (0, []), [*it.found, *it.lines])
        checks.check("and it has looked", any("1 of 7 virtual functions are made" in line for line in it.lines))
        done = subprocess.run(
            ["hostlane", "check", "--config", "/run/vm.yaml"], capture_output=True, text=True, check=False
        )
        last = done.stdout.splitlines()[-1:]
        checks.check("the last line says so", bool(last) and last[0].startswith("nothing wrong, 0 notes"), last)


def issue() -> None:
    """A certificate that is valid by the machine's clock: from an hour ago until tomorrow."""
    CERTIFICATE.write_bytes(CertificateAuthority().issue("spiffe://hostlane/host/vm")[0])


def keep_in_time() -> None:
    """What chrony tells the kernel when it has set the clock: the error is small, and somebody looks after it.

    adjtimex(2): ADJ_MAXERROR | ADJ_ESTERROR | ADJ_STATUS, with no error and without STA_UNSYNC.
    """
    timex = ctypes.create_string_buffer(struct.pack("=i4x2q2qi", 0x0004 | 0x0008 | 0x0010, 0, 0, 0, 0, 0), 208)
    ctypes.CDLL(None).adjtimex(timex)


def _mend(it: dict[str, Any] | None, checks: Group) -> None:
    """Run what the finding says."""
    command = it["mend"].partition(", or ")[0] if it else "false"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    checks.check("what mends it works", done.returncode == 0, [command, done.stderr])


def _idle_modules(checks: Group) -> None:
    Path("/etc/modprobe.d").mkdir(exist_ok=True)
    modules = ("nf_nat", "xt_conntrack", "br_netfilter")
    before = Diagnosis()
    absent = [f"{module} is not loaded" in before.lines for module in modules]
    checks.check("none is loaded", all(absent), before.lines)
    subprocess.run(["modprobe", "--all", *modules], check=True)
    it = Diagnosis()
    for module in modules:
        found = it.of("idle-module", module)
        checks.check(f"idle-module is found of {module}", found is not None and found["level"] == "note", found)
        _mend(found, checks)
    after = Diagnosis()
    gone = [after.of("idle-module", module) is None for module in modules]
    checks.check("then they are gone", all(gone), after.lines)


def _used_module(checks: Group) -> None:
    """A rule uses nf_nat; when the rule is gone, its helpers are loaded still, and hold it."""
    subprocess.run(["nft", NAT], check=True)
    it = Diagnosis()
    used = any(line.startswith("nf_nat is in use") for line in it.lines)
    checks.check("nf_nat is in use while a rule needs it", used and it.of("idle-module", "nf_nat") is None, it.lines)
    subprocess.run(["nft", "delete table ip t"], check=True)
    found = Diagnosis().of("idle-module", "nf_nat")
    checks.check("and idle without", found is not None and "nothing uses either" in found["read"], found)
    _mend(found, checks)
    checks.check("then it is gone", "nf_nat is not loaded" in (it := Diagnosis()).lines, it.lines)


def _bridge(checks: Group) -> None:
    """br_netfilter has a use where there is a bridge."""
    ip(HERE, "link add br0 type bridge")
    subprocess.run(["modprobe", "br_netfilter"], check=True)
    it = Diagnosis()
    checks.check("br_netfilter has a use with a bridge", it.of("idle-module", "br_netfilter") is None, it.lines)
    ip(HERE, "link delete br0")
    subprocess.run(["modprobe", "--remove", "br_netfilter"], check=True)


def _unused_functions(checks: Group) -> None:
    checks.check("unused-sriov is found", (it := Diagnosis().of("unused-sriov", "eth0")) is not None, it)
    _mend(it, checks)
    made = FUNCTIONS.read_text().strip()
    text = f"eth0: {made} of 7 virtual functions are made"
    after = Diagnosis()
    checks.check(
        "with functions it is not", made != "0" and text in after.lines and not after.of("unused-sriov", "eth0")
    )
    FUNCTIONS.write_text("0")
    carrier = Path("/sys/class/net/eth0/carrier")
    wait_for(lambda: carrier.read_text() == "1\n")


@contextmanager
def _clock_off(seconds: float) -> Iterator[None]:
    start, real = time.monotonic(), time.time()
    time.clock_settime(time.CLOCK_REALTIME, real + seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, real + time.monotonic() - start)


def _clock(checks: Group) -> None:
    """Nothing keeps the clock of this machine: the kernel knows since it was set, at boot. Then somebody does."""
    issue()
    words, where = ("--certificate", str(CERTIFICATE)), str(CERTIFICATE)
    checks.check("clock-adrift is found", (it := Diagnosis().of("clock-adrift", "clock")) is not None, it)
    keep_in_time()
    it = Diagnosis(*words)
    fine = (it.code, it.of("clock-adrift", "clock")) == (0, None)
    fine = fine and "the clock is kept in time" in it.lines
    checks.check("not where the clock is kept in time", fine, [*it.found, *it.lines])
    for offset, name in ((-2 * DAY, "clock-behind"), (2 * DAY, "expired-certificate")):
        with _clock_off(offset):
            it = Diagnosis(*words)
            found = (it.code, it.of(name, where) is not None, it.of("clock-adrift", "clock") is not None)
            checks.check(f"{name} with the clock {offset / DAY:+.0f} days off", found == (1, True, True), it.found)
