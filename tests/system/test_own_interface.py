"""An ordinary machine: its NIC has an address in the subnet of its macvlan. Links go through the macvlan all the same,
which the interfaces' counters say.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.demo import netns
from proxy.demo.lab import CABLE, Lab, LabHost
from proxy.demo.mesh import HOSTLANE
from tests.system.world import hostlane
from tests.tools.process import Process, Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, exchange

pytestmark = [pytest.mark.netns, pytest.mark.failure("25")]

WITHOUT_THE_RIGHT = [
    "setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw",
]  # fmt: skip
REFUSING = """
import ctypes, struct, sys
# seccomp(2), classic BPF on x86-64: setsockopt(_, SOL_SOCKET, SO_BINDTODEVICE) is EPERM, all else is allowed.
code = [(0x20, 0, 0, 0), (0x15, 0, 5, 54), (0x20, 0, 0, 24), (0x15, 0, 3, 1), (0x20, 0, 0, 32), (0x15, 0, 1, 25),
        (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, ctypes.get_errno()
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
from control.cli.main import main
main()
"""
SIX = {"10.77.0.1": "fd77::1", "10.77.0.2": "fd77::2"}
BYTES = 1 << 20
FEW = BYTES // 8
"""More than handshakes, pings and ARP take, and far less than the payload."""


@contextmanager
def machines(rp_filter: int = 0) -> Iterator[Lab]:
    """Two hosts without mv0; cable0 of each has 10.77.0.101 or .102 (fd77::101 ...) and the kernel's settings."""
    with Lab(interfaces=False) as lab:
        for number, host in enumerate(lab.hosts, 101):
            for address in (f"10.77.0.{number}/24", f"fd77::{number}/64 nodad"):
                netns.run(["ip", "-n", host.netns, "address", "add", *address.split(), "dev", CABLE])
            for setting in (f"all/rp_filter={rp_filter}", f"default/rp_filter={rp_filter}",
                            f"{CABLE}/rp_filter={rp_filter}", "all/arp_ignore=0"):  # fmt: skip
                name, _, value = setting.partition("=")
                netns.run(host.command(["sh", "-c", f"echo {value} > /proc/sys/net/ipv4/conf/{name}"]))
            off = "for file in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >$file; done"
            netns.run(host.command(["sh", "-c", off]))
        yield lab


class Pair:
    """A proxy on each host, with mv0 made by it unless `made` is false; a service ``echo`` on host-b.

    ``source_table``: of mv0; ``links``: keys of that section.
    """

    def __init__(
        self, lab: Lab, *, six: bool = False, made: bool = True, source_table: int | None = None, **links: Any
    ) -> None:
        self.lab, self.six = lab, six
        self.folder = Path(tempfile.mkdtemp(prefix="hl-"))
        self.addresses = [SIX[host.address] if six else host.address for host in lab.hosts]
        self.files = []
        for host, own, other in zip(lab.hosts, self.addresses, self.addresses[::-1], strict=True):
            (self.folder / host.name).mkdir()
            near = host is lab.a
            config: dict[str, Any] = {
                "host": host.name,
                "run_dir": f"{self.folder}/{host.name}/run",
                "links": {"listen": self.at(own), "security": "none", "ping_interval": "500ms", "ping_timeout": "1s"}
                | links,
                "peers": {"host-b" if near else "host-a": {"address": self.at(other), "services": ["echo"] * near}},
                "log": {"level": "debug", "format": "json"},
                ("upstreams" if near else "services"): {
                    "echo": {"listen": self.calls} if near else {"deliver": self.service}
                },
            }
            if made:
                mv0 = {"parent": CABLE, "addresses": [f"{own}/{64 if six else 24}"], "source_table": source_table}
                config["interfaces"] = {"mv0": mv0}
            self.files.append(config)
        self.a, self.b = (Proxy(config, self.folder / host.name, host=host)
                          for config, host in zip(self.files, lab.hosts, strict=True))  # fmt: skip
        self._running = ExitStack()

    @property
    def calls(self) -> str:
        return f"unix:{self.folder}/calls.sock"

    @property
    def service(self) -> str:
        return f"unix:{self.folder}/service.sock"

    def at(self, address: str) -> str:
        return f"[{address}]:7600" if self.six else f"{address}:7600"

    def talk(self) -> None:
        """`BYTES` to the service and back."""
        with connect(self.calls) as call:
            for _ in range(BYTES >> 16):
                exchange(call, bytes(1 << 16))

    def __enter__(self) -> Pair:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            stack.enter_context(Echo(self.service))
            for proxy in (self.b, self.a):
                stack.enter_context(proxy)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)


def sent(host: LabHost, interface: str) -> int:
    """Bytes that have left through it. Those of a macvlan leave through its parent too."""
    (found,) = json.loads(netns.run(["ip", "-n", host.netns, "-j", "-s", "link", "show", interface]))
    return int(found["stats64"]["tx"]["bytes"])


def received(host: LabHost, interface: str) -> int:
    (found,) = json.loads(netns.run(["ip", "-n", host.netns, "-j", "-s", "link", "show", interface]))
    return int(found["stats64"]["rx"]["bytes"])


def assert_through(lab: Lab, talk: Callable[[], None]) -> None:
    """What `talk` moves goes through mv0 of both hosts, and nothing but what mv0 sends goes out at cable0."""
    before = [(sent(host, "mv0"), sent(host, CABLE), received(host, "mv0")) for host in lab.hosts]
    talk()
    for host, (own, below, came) in zip(lab.hosts, before, strict=True):
        through = sent(host, "mv0") - own
        assert through > BYTES, f"{host.name} sent {through} bytes through mv0"
        assert received(host, "mv0") - came > BYTES
        assert sent(host, CABLE) - below - through < FEW


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_links_go_through_the_macvlan_that_the_proxy_made(rp_filter: int) -> None:
    with machines(rp_filter) as lab, Pair(lab) as pair:
        assert_through(lab, pair.talk)
        pair.a.wait_for("links go through their interface", interface="mv0", address=lab.a.address)


def test_and_so_they_do_with_ipv6() -> None:
    with machines() as lab, Pair(lab, six=True) as pair:
        assert_through(lab, pair.talk)


@contextmanager
def by_hand(lab: Lab) -> Iterator[None]:
    """mv0 as somebody makes it who has read no documentation."""
    for host in lab.hosts:
        for command in (f"link add mv0 link {CABLE} type macvlan mode bridge", "link set mv0 up",
                        f"address add {host.address}/24 dev mv0"):  # fmt: skip
            netns.run(["ip", "-n", host.netns, *command.split()])
    yield


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_where_the_nic_answers_for_the_macvlan_they_do_when_the_advice_was_followed(rp_filter: int) -> None:
    """Until then they are where peers send to, and the log and `check` say that this is wrong."""
    with machines(rp_filter) as lab, by_hand(lab), Pair(lab, made=False) as pair:
        pair.talk()
        said = pair.a.wait_for("links are not bound to their interface", address=lab.a.address)
        assert "cable0 may answer ARP for it too: sysctl -w net.ipv4.conf.cable0.arp_ignore=1" in said["reason"]
        for host, proxy in zip(lab.hosts, (pair.a, pair.b), strict=True):
            follow(host, proxy)
        for proxy in (pair.a, pair.b):
            proxy.wait_for("links go through their interface", interface="mv0")
            proxy.stop()
        for proxy in (pair.b, pair.a):
            proxy.restart()
        pair.talk()
        assert not wrong(lab.a, pair.a)
        assert_through(lab, pair.talk)


def wrong(host: LabHost, proxy: Process) -> list[dict[str, Any]]:
    """What `hostlane check` finds wrong with links' ways."""
    assert isinstance(proxy, Proxy)
    said = hostlane("check", "--json", "--only", "path", "--only", "sysctls", "--config", str(proxy.file), host=host)
    groups = json.loads(said.stdout)["groups"]
    return [found for group in groups for found in group["findings"] if found["level"] == "wrong"]


def follow(host: LabHost, proxy: Process) -> None:
    """Type what `check` advises, until it advises nothing more."""
    found = wrong(host, proxy)
    names = {item["name"] for item in found}
    assert names >= {"arp-flux", "links-elsewhere"}, found
    for item in found:
        for command in item["mend"].split(" (")[0].split("; "):
            netns.run(host.command(["sh", "-c", command]))


def test_one_that_goes_and_returns_is_made_and_bound_again_by_the_proxy() -> None:
    with machines() as lab, Pair(lab) as pair:
        with connect(pair.calls) as call:
            exchange(call, b"before")
            netns.run(["ip", "-n", lab.a.netns, "link", "delete", "mv0"])
            pair.a.wait_for("interface made again", interface="mv0")
            pair.a.wait_for("listening for links again", interface="mv0", address=f"{lab.a.address}:7600")
            exchange(call, b"and after")
        assert_through(lab, pair.talk)
        complaints = [entry for entry in pair.a.log if "Cannot assign" in json.dumps(entry)]
        assert not complaints


def test_the_unit_that_set_the_network_up_makes_it_again_for_a_proxy_without_the_right() -> None:
    with machines() as lab:
        pair = Pair(lab)
        pair.a.argv = [*WITHOUT_THE_RIGHT, *pair.a.argv]
        with Process([*HOSTLANE, "net", "watch", "--config", str(pair.a.file)], host=lab.a) as unit:
            unit.wait_for("interfaces are as configured")
            with pair:
                pair.a.wait_for("links go through their interface", interface="mv0")
                with connect(pair.calls) as call:
                    exchange(call, b"before")
                    netns.run(["ip", "-n", lab.a.netns, "link", "delete", "mv0"])
                    unit.wait_for("interface is gone", interface="mv0", addresses=f"{lab.a.address}/24")
                    unit.wait_for("interface made again", interface="mv0", addresses=f"{lab.a.address}/24")
                    pair.a.wait_for("listening for links again", interface="mv0", address=f"{lab.a.address}:7600")
                    exchange(call, b"and after")
                assert_through(lab, pair.talk)
            assert unit.stop() == 0


def test_a_dial_while_the_interface_is_gone_says_which_and_not_what_a_library_says() -> None:
    with machines() as lab, by_hand(lab):
        quiet(lab)
        with Pair(lab, made=False) as pair:
            pair.talk()
            netns.run(["ip", "-n", lab.a.netns, "link", "delete", "mv0"])
            pair.a.wait_for("the links' interface is gone", interface="mv0", address=lab.a.address)
            text = f"links leave from {lab.a.address}, and no interface has that address (mv0 had it)"
            pair.a.wait_for("cannot reach peer", peer="host-b", error=text)


@pytest.mark.parametrize("interface", ["any", "mv0"])
def test_the_configuration_may_name_it(interface: str) -> None:
    with machines() as lab, by_hand(lab):
        quiet(lab)
        with Pair(lab, made=False, interface=interface) as pair:
            pair.talk()
            bound = pair.a.events("links go through their interface", interface="mv0")
            assert bool(bound) == (interface != "any")


def test_a_kernel_that_refuses_is_said_once_and_the_rules_of_the_set_up_decide() -> None:
    """As before Linux 5.7, or under seccomp: SO_BINDTODEVICE takes CAP_NET_RAW where the socket is bound already, and a
    filter refuses it altogether.
    """
    with machines() as lab, by_hand(lab):
        quiet(lab)
        pair = Pair(lab, made=False)
        for host, proxy in zip(lab.hosts, (pair.a, pair.b), strict=True):
            refuse_binding(proxy)
            for command in ("route add 10.77.0.0/24 dev mv0 table 7600",
                            f"rule add from {host.address} lookup 7600"):  # fmt: skip
                netns.run(["ip", "-n", host.netns, *command.split()])
        with pair:
            assert_through(lab, pair.talk)
            (said,) = pair.a.events("links are not bound to their interface")
            assert said["reason"].startswith("the kernel refuses SO_BINDTODEVICE (Operation not permitted;")


def rules(host: LabHost) -> str:
    """All rules of the host, and the routes in the table that the tests use."""
    asked = ("-4 rule", "-6 rule", "-4 route show table 7600", "-6 route show table 7600")
    said = (subprocess.run(["ip", "-n", host.netns, *each.split()], capture_output=True, text=True, check=False)
            for each in asked)  # fmt: skip
    return "".join(each.stdout for each in said)


@pytest.mark.parametrize(("rp_filter", "six"), [(0, False), (1, False), (2, False), (0, True)])
def test_a_source_rule_of_the_set_up_leads_links_through_the_macvlan(rp_filter: int, six: bool) -> None:
    """Where the kernel refuses to bind sockets. `check` says nothing of their way, and `remove` leaves nothing."""
    with machines(rp_filter) as lab:
        before = [rules(host) for host in lab.hosts]
        pair = Pair(lab, six=six, source_table=7600)
        for host, proxy in zip(lab.hosts, (pair.a, pair.b), strict=True):
            done = hostlane("net", "apply", "--config", str(proxy.file), host=host)
            assert (done.returncode, done.stderr) == (0, "")
            again = hostlane("net", "apply", "--config", str(proxy.file), host=host)
            assert again.stdout.splitlines()[-1:] == ["nothing to change"]
            refuse_binding(proxy)
        with pair:
            assert_through(lab, pair.talk)
            assert pair.a.events("links are not bound to their interface")
            assert "links-elsewhere" not in {item["name"] for item in wrong(lab.a, pair.a)}
            with connect(pair.calls) as call:
                exchange(call, b"before")
                netns.run(["ip", "-n", lab.a.netns, "link", "delete", "mv0"])
                pair.a.wait_for("interface made again", interface="mv0")
                exchange(call, b"and after")
            assert_through(lab, pair.talk)
            for host, proxy in zip(lab.hosts, (pair.a, pair.b), strict=True):
                proxy.stop()
                assert hostlane("net", "remove", "--config", str(proxy.file), host=host).returncode == 0
        assert [rules(host) for host in lab.hosts] == before


@pytest.mark.parametrize("six", [False, True])
def test_without_the_rule_they_would_leave_through_the_nic(six: bool) -> None:
    """Or the test above shows nothing. `check` says so, and what it advises is as good as a rule of the set-up."""
    with machines() as lab:
        pair = Pair(lab, six=six)
        for proxy in (pair.a, pair.b):
            refuse_binding(proxy)
        with pair:
            with pytest.raises(AssertionError, match="sent .* bytes through mv0"):
                assert_through(lab, pair.talk)
            for host, proxy in zip(lab.hosts, (pair.a, pair.b), strict=True):
                [finding] = [item for item in wrong(host, proxy) if item["name"] == "links-elsewhere"]
                assert "source_table" in finding["mend"]
                for command in finding["mend"].split(" (")[0].split("; "):
                    netns.run(host.command(["sh", "-c", command]))
            assert_through(lab, pair.talk)
            for host, proxy in zip(lab.hosts, (pair.a, pair.b), strict=True):
                assert "links-elsewhere" not in {item["name"] for item in wrong(host, proxy)}


def refuse_binding(proxy: Process) -> None:
    """The proxy's kernel refuses SO_BINDTODEVICE from its next start on."""
    proxy.argv = [sys.executable, "-c", REFUSING, *proxy.argv[proxy.argv.index("proxy") :]]


def quiet(lab: Lab) -> None:
    """The NIC answers ARP for its own addresses alone."""
    for host in lab.hosts:
        for setting in ("arp_ignore=1", "arp_announce=2"):
            name, _, value = setting.partition("=")
            netns.run(host.command(["sh", "-c", f"echo {value} > /proc/sys/net/ipv4/conf/{CABLE}/{name}"]))
