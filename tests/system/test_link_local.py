"""Link-local addresses (IPv6), which mean nothing without their interface: wherever a proxy or a control server listens
and whatever it dials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.demo import netns
from proxy.demo.lab import Lab
from tests.system.fleet import CONTROL_PORT, Fleet
from tests.system.world import World, hostlane
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, eventually, exchange

pytestmark = [pytest.mark.netns, pytest.mark.failure("34")]

NEAR, FAR = {"mv0": "fe80::a", "cable0": "fe80::ca"}, {"mv0": "fe80::b", "cable0": "fe80::cb"}
"""By interface."""


@pytest.fixture
def addressed(lab: Lab) -> Iterator[None]:
    """Each host has a link-local address of its own on both interfaces, and on another one that of its peer: only the
    interface tells which is meant.
    """
    with ExitStack() as stack:
        for host, own, other in ((lab.a, NEAR, FAR), (lab.b, FAR, NEAR)):
            netns.run(["ip", "-n", host.netns, "link", "add", "beside0", "type", "veth", "peer", "beside1"])
            stack.callback(netns.run, ["ip", "-n", host.netns, "link", "delete", "beside0"])
            netns.run(["ip", "-n", host.netns, "link", "set", "beside0", "up"])
            for address, interface in ((own["mv0"], "mv0"), (own["cable0"], "cable0"), (other["mv0"], "beside0")):
                place = [f"{address}/64", "dev", interface]
                netns.run(["ip", "-n", host.netns, "address", "add", *place, "nodad"])
                stack.callback(netns.run, ["ip", "-n", host.netns, "address", "delete", *place])
        yield


def number(lab: Lab, interface: str) -> str:
    """An interface's number on host-b."""
    [found] = json.loads(netns.run(["ip", "-n", lab.b.netns, "-j", "link", "show", interface]))
    return str(found["ifindex"])


def configure(both: World, lab: Lab, interface: str, scope_b: str = "", links: dict[str, str] | None = None) -> Echo:
    """Links, an upstream, a service and where its connections come from: all at link-local addresses."""
    near, far, scope_b = NEAR[interface], FAR[interface], scope_b or interface
    at_a, at_b = f"[{near}%{interface}]", f"[{far}%{scope_b}]"
    a, b = (json.loads(proxy.file.read_text()) for proxy in (both.a, both.b))
    for config, own in ((a, at_a), (b, at_b)):
        config["links"] |= {"listen": f"{own}:7600", **(links or {})}
    a["peers"] = {"host-b": {"address": f"[{far}%{interface}]:7600", "services": ["far"]}}
    b["peers"] = {"host-a": {"address": f"[{near}%{scope_b}]:7600"}}
    a["upstreams"] = {"far": {"listen": f"tcp:{at_a}:7700"}}
    b["services"] = {"far": {"deliver": f"tcp:{at_b}:7800", "source": [f"{far}%{scope_b}"]}}
    both.a.file.write_text(json.dumps(a))
    both.b.file.write_text(json.dumps(b))
    with netns.entered(lab.b.netns):
        return Echo(f"tcp:{at_b}:7800")


@pytest.mark.parametrize(
    ("interface", "links"),
    [("mv0", {}), ("cable0", {}), ("cable0", {"interface": "cable0"}), ("mv0", {"interface": "any"})],
)
def test_everything_at_link_local_addresses(lab: Lab, addressed: None, interface: str, links: dict[str, str]) -> None:
    near = NEAR[interface]
    with World(lab) as both:
        with configure(both, lab, interface, "" if links else number(lab, interface), links):
            for proxy in (both.a, both.b):
                proxy.stop()
                proxy.restart()
            both.a.wait_for("link up", peer="host-b")
            with netns.entered(lab.a.netns):
                client = connect(f"tcp:[{near}%{interface}]:7700")
            with client:
                exchange(client, b"over there and back")
            successor = Proxy(both.a.file.read_text(), Path(both.a.file).parent, host=lab.a)
            successor.argv.append("--takeover")
            with successor:
                successor.wait_for("proxy taken over")
                with netns.entered(lab.a.netns):
                    client = connect(f"tcp:[{near}%{interface}]:7700")
                with client:
                    exchange(client, b"once more")


def test_an_interface_that_does_not_exist(lab: Lab, addressed: None) -> None:
    """Of the links it may come yet; without its upstream's there is no start."""
    with World(lab) as both:
        config = json.loads(both.a.file.read_text())
        config["links"]["listen"] = "[fe80::a%nic9]:7600"
        both.a.file.write_text(json.dumps(config))
        both.a.stop()
        both.a.restart()
        waiting = both.a.wait_for("waiting for the links' address")
        assert "no interface has that address" in waiting["error"]
        config["upstreams"]["tcp"]["listen"] = "tcp:[fe80::a%nic9]:7700"
        both.a.file.write_text(json.dumps(config))
        both.a.stop()
        refused = hostlane("proxy", "--config", str(both.a.file), host=lab.a)
        refusal = "hostlane: upstreams.tcp.listen: tcp:[fe80::a%nic9]:7700: this machine has no interface nic9"
        assert (refused.returncode, refused.stderr.splitlines()[-1:]) == (2, [refusal])


def test_check_knows_them(lab: Lab, addressed: None) -> None:
    with World(lab) as both, configure(both, lab, "cable0"):
        for proxy in (both.a, both.b):
            proxy.stop()
            proxy.restart()
        both.a.wait_for("link up", peer="host-b")
        check = hostlane("check", "--json", "--config", str(both.a.file), host=lab.a)
        groups = {group["name"]: group for group in json.loads(check.stdout)["groups"]}
        assert (check.stderr, groups["path"]["findings"]) == ("", [])
        assert groups["path"]["seen"] == [
            "links.listen fe80::ca is an address of cable0",
            "fe80::cb (host-b) through cable0 (veth)",
        ]
        assert groups["mtu"]["seen"] == ["fe80::cb (host-b): 1500 bytes pass, as cable0 allows"]


@pytest.fixture
def fleet(lab: Lab, addressed: None) -> Iterator[Fleet]:
    with Fleet(lab, f"[{NEAR['mv0']}%mv0]:{CONTROL_PORT}") as running:
        yield running


def test_a_control_server(fleet: Fleet) -> None:
    """Hosts join it, and follow its map."""
    fleet.begin(b=["echo"])
    with fleet.call("echo") as sock:
        exchange(sock, b"hello")
    eventually(lambda: fleet.status()["server"] == f"[{NEAR['mv0']}%mv0]:{CONTROL_PORT}", "the server")
