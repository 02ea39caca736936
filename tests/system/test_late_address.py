"""A host whose link address comes late, as at boot: its proxy serves what it can, says what is missing, and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo import netns
from proxy.demo.lab import Lab, LabHost
from tests.system.fleet import Fleet
from tests.system.talk import Caller, Callers
from tests.system.world import World, hostlane
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, eventually, exchange

pytestmark = [pytest.mark.netns, pytest.mark.failure("30")]

MISSING = "links.listen: 10.77.0.1:7600: no interface has that address: peers cannot reach this host"


def ip(host: LabHost, *commands: str) -> None:
    for command in commands:
        netns.run(["ip", "-n", host.netns, *command.split()])


@pytest.fixture
def without(lab: Lab) -> Iterator[None]:
    """host-a does not have its address at first, nor at the end of the test if it failed."""
    ip(lab.a, f"address delete {lab.a.address}/24 dev mv0")
    yield
    ip(lab.a, f"address replace {lab.a.address}/24 dev mv0")


def late(lab: Lab) -> None:
    ip(lab.a, f"address add {lab.a.address}/24 dev mv0")


@pytest.mark.parametrize("mtls", [False, True])
def test_calls_within_the_host_meanwhile_and_all_others_then(lab: Lab, without: None, mtls: bool) -> None:
    with World(lab, mtls=mtls) as both:
        config = json.loads(both.a.file.read_text())
        near = f"unix:{both.folder}/a/near.sock"
        with Echo(f"unix:{both.folder}/a/near.service") as echo:
            config["services"] = {"near": {"deliver": echo.address}}
            config["upstreams"]["near"] = {"listen": near}
            both.a.file.write_text(json.dumps(config))
            both.a.stop()
            both.a.restart()
            waiting = both.a.wait_for("waiting for the links' address")
            assert (waiting["level"], waiting["error"]) == ("warning", MISSING)
            with connect(near) as client:
                exchange(client, b"within")
                told(lab, both.a)
                late(lab)
                both.a.wait_for("the links' address is there: listening", interface="mv0")
                both.a.wait_for("link up", peer="host-b")
                exchange(client, b"still")
            with Callers([Caller(0, both.call("unix"))]) as callers:
                callers.all_talk()
            place = ["--config", str(both.a.file)]
            eventually(lambda: hostlane("status", *place, host=lab.a).returncode == 0, "all is well")
            assert hostlane("health", *place, host=lab.a).returncode == 0
            assert len(both.a.events("waiting for the links' address")) == 1


def told(lab: Lab, proxy: Proxy) -> None:
    """What `status`, `health` and `check` say of it, with what to do."""
    place = ["--config", str(proxy.file)]
    status = hostlane("status", *place, host=lab.a)
    assert status.returncode == 1
    assert f"hostlane: {MISSING}" in status.stderr.splitlines()
    health = hostlane("health", *place, host=lab.a)
    assert (health.returncode, health.stdout) == (1, "not ready\n")
    assert MISSING in health.stderr.splitlines()
    assert hostlane("health", "alive", *place, host=lab.a).returncode == 0
    check = hostlane("check", "--only", "path", "--json", *place, host=lab.a)
    assert check.returncode == 1
    assert "no-link-address" in check.stdout


def test_peers_that_dial_meanwhile_find_it_then(lab: Lab, without: None) -> None:
    """The other host has calls for this one, and no other host would take them."""
    with World(lab) as both:
        config = json.loads(both.b.file.read_text())
        back = f"unix:{both.folder}/b/back.sock"
        with Echo(f"unix:{both.folder}/a/back.service") as echo:
            config["peers"]["host-a"]["services"] = ["back"]
            config["upstreams"] = {"back": {"listen": back}}
            both.b.file.write_text(json.dumps(config))
            mine = json.loads(both.a.file.read_text())
            mine["services"] = {"back": {"deliver": echo.address}}
            both.a.file.write_text(json.dumps(mine))
            for proxy in (both.a, both.b):
                proxy.stop()
                proxy.restart()
            both.b.wait_for("cannot reach peer")
            late(lab)
            both.b.wait_for("link up", peer="host-a")
            with connect(back) as client:
                exchange(client, b"back")


def test_another_process_takes_over_while_it_waits(lab: Lab, without: None) -> None:
    with World(lab) as both:
        successor = Proxy(both.a.file.read_text(), Path(both.a.file).parent, host=lab.a)
        successor.argv.append("--takeover")
        with successor:
            successor.wait_for("proxy taken over")
            successor.wait_for("waiting for the links' address")
            assert both.a.wait() == 0
            late(lab)
            successor.wait_for("the links' address is there: listening")
            with Callers([Caller(0, both.call("unix"))]) as callers:
                callers.all_talk()


def test_a_host_that_peers_cannot_reach_is_not_on_the_map(lab: Lab) -> None:
    """It follows the map, and registers when its address is there."""
    with Fleet(lab) as fleet:
        fleet.begin(e=["echo"])
        proxy, address = fleet.proxies["e"], f"{fleet.addresses['e']}/24"
        proxy.stop()
        ip(lab.b, f"address delete {address} dev mv0")
        try:
            proxy.restart()
            said = proxy.wait_for("not registered")
            assert said["error"].endswith("peers cannot reach this host")
            eventually(lambda: fleet.status("e")["hosts"] == 4, "it follows")
            assert not fleet.status("e")["registered"]
            assert fleet.offered_by("echo") == ""
        finally:
            ip(lab.b, f"address replace {address} dev mv0")
        proxy.wait_for("registered")
        eventually(lambda: fleet.offered_by("echo") == "e", "it is on the map")
