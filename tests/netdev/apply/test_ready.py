"""The proxy's start and its interfaces: real proxies in a namespace, whose cable is pulled and plugged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.demo import netns
from tests.netdev.machine import dump, ip

pytestmark = pytest.mark.netns

MAIN = [sys.executable, "-c", "from control.cli.main import main; main()"]
Start = Callable[..., "Proxy"]


class Proxy:
    """A proxy and the events that it logs."""

    def __init__(self, space: str, file: Path) -> None:
        argv = netns.inside(space, [*MAIN, "proxy", "--config", str(file)])
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)

    def next(self) -> dict[str, Any]:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert line.startswith("{"), line
        return dict(json.loads(line))

    def until(self, event: str) -> list[dict[str, Any]]:
        """The events up to this one, without it and without what is said about links."""
        found = []
        while (entry := self.next())["event"] != event:
            if not entry["event"].startswith("links "):
                found.append(entry)
        return found

    def all_of(self, *events: str) -> set[str]:
        """The events up to the last of these, in whichever order."""
        heard: set[str] = set()
        while not heard.issuperset(events):
            heard.add(self.next()["event"])
        return heard

    def end(self) -> tuple[int, str]:
        """Exit code and what was said last."""
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)


@pytest.fixture
def start(space: str, tmp_path: Path) -> Iterator[Start]:
    started = []

    def begin(interfaces: str, listen: str = "10.9.0.1:7600") -> Proxy:
        file = tmp_path / "f.yaml"
        file.write_text(
            f"host: a\nrun_dir: {tmp_path}/run\nlinks: {{listen: '{listen}', security: none}}\n"
            f"log: {{format: json}}\ninterfaces: {{{interfaces}}}\n"
        )
        started.append(Proxy(space, file))
        return started[-1]

    yield begin
    for proxy in started:
        proxy.stop()


HL0 = "hl0: {parent: eth0, addresses: [10.9.0.1/24], up_timeout: %s}"


def test_the_proxy_makes_its_interfaces_and_leaves_them(space: str, start: Start) -> None:
    first = start(HL0 % "30s")
    assert [(entry["event"], entry["change"]) for entry in first.until("proxy ready")][-2:] == [
        ("network changed", "hl0: set up"),
        ("network changed", "hl0: add address 10.9.0.1/24"),
    ]
    after = dump(space)
    first.stop()
    assert dump(space) == after
    assert start(HL0 % "30s").until("proxy ready") == []
    assert dump(space) == after


@pytest.mark.failure(13)
@pytest.mark.parametrize(
    ("pulled", "plugged", "why"),
    [
        (
            "link set cable down", "link set cable up",
            "hl0 has no carrier, because its parent eth0 has none; look at its cable and switch port",
        ),
        (
            "link set eth0 down", "link set eth0 up",
            "hl0 has no carrier, because its parent eth0 is down: ip link set eth0 up",
        ),
    ],
)  # fmt: skip
def test_a_parent_that_is_down_is_waited_for(space: str, start: Start, pulled: str, plugged: str, why: str) -> None:
    ip(space, pulled)
    proxy = start(HL0 % "1m")
    proxy.until("waiting for an interface")
    ip(space, plugged)
    # An interface that is set up has its carrier a moment later.
    assert {entry["reason"].partition(",")[0] for entry in proxy.until("proxy ready")} <= {"hl0 has no carrier"}
    proxy.stop()
    ip(space, pulled)
    impatient = start(HL0 % "10ms")
    impatient.until("waiting for an interface")
    assert impatient.next()["error"] == f"{why}; waited 0.01s (interfaces.hl0.up_timeout)"
    impatient.until("proxy ready")


@pytest.mark.failure(13)
def test_an_address_that_another_machine_has(space: str, start: Start) -> None:
    """For IPv6 the kernel asks the segment; the answer is the end of the wait."""
    other = f"{space}-other"
    netns.add(other)
    try:
        ip(space, f"link set cable netns {other}")
        netns.run(netns.inside(space, ["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/accept_dad"]))
        ip(other, "link set cable up", "addr add fd00::1/64 dev cable nodad")
        code, said = start("hl0: {parent: eth0, addresses: ['fd00::1/64']}", "[fd00::1]:7600").end()
        assert code == 2
        assert said.splitlines()[-1] == (
            "hostlane: hl0: another machine on the segment has fd00::1 (hostlane net status shows all)"
        )
    finally:
        netns.delete(other)


@pytest.mark.failure("30")
@pytest.mark.parametrize("late", ["a parent", "somebody else's"])
def test_a_card_that_comes_late_is_waited_for(space: str, start: Start, late: str) -> None:
    """The proxy serves calls within its host meanwhile, makes its interfaces when it can, and listens then."""
    ip(space, "link set eth0 name eth7")
    kind = "parent: eth0" if late == "a parent" else "kind: existing"
    name = "hl0" if late == "a parent" else "eth0"
    proxy = start(f"{name}: {{{kind}, addresses: [10.9.0.1/24]}}, hl1: {{parent: cable, addresses: [10.8.0.1/24]}}")
    said = proxy.next()
    assert (said["event"], said["interface"]) == ("waiting for an interface", "eth0")
    assert "does not exist; there are: cable, eth7, lo" in said["reason"]
    proxy.all_of("proxy ready", "waiting for the links' address")
    ip(space, "link set eth7 name eth0")
    heard = proxy.all_of("network changed", "interface made", "the links' address is there: listening")
    assert not any(event.startswith("cannot") for event in heard)
    proxy.stop()


def test_what_cannot_be_made_is_one_line(space: str, start: Start) -> None:
    ip(space, "link add hl0 type veth peer name other")
    before = dump(space)
    code, said = start("hl0: {parent: eth0, addresses: [10.9.0.1/24]}").end()
    assert code == 2
    assert len(said.splitlines()) == 1
    assert said.startswith("hostlane: hl0: ")
    assert dump(space) == before
