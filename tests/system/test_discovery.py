"""Five hosts that follow a control plane: services move, hosts die, and the control plane goes and comes back empty."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from proxy.demo.lab import Lab
from proxy.demo.mesh import HOSTLANE
from tests.system.fleet import Fleet
from tests.system.talk import Caller
from tests.system.world import hostlane
from tests.tools.process import Process
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.netns, pytest.mark.failure(11)]

FOLLOWS = 2.0
"""Seconds within which a change is in every proxy's routing (docs/discovery.md)."""
BUSY = 5
"""How many times as long anything may take on a machine that does other things meanwhile."""


@pytest.fixture(scope="module")
def running(lab: Lab) -> Iterator[Fleet]:
    with Fleet(lab) as fleet:
        yield fleet


@pytest.fixture
def fleet(running: Fleet) -> Fleet:
    running.begin(b=["echo"], e=["other"])
    return running


def talk_once(fleet: Fleet, service: str = "echo", letter: str = "a") -> None:
    """A whole call: a message there and back, and a clean end."""
    with fleet.call(service, letter) as sock:
        sock.sendall(b"hello")
        got = b""
        while len(got) < 5:
            piece = sock.recv(100)
            assert piece, "the call was cut"
            got += piece
        assert got == b"hello"


def served_by(fleet: Fleet, service: str = "echo") -> str:
    """The letter of the host whose server one call reaches."""
    before = {letter: echo.accepted for letter, echo in fleet.echoes.items()}
    talk_once(fleet, service)
    [letter] = [letter for letter, echo in fleet.echoes.items() if echo.accepted != before[letter]]
    return letter


def test_services_move_under_traffic(fleet: Fleet) -> None:
    """Open streams stay where they are; new ones follow, and none goes to a host that has left the service."""
    eventually(fleet.socket("a", "other").is_socket, "what is on the map has a socket")
    callers = [Caller(0, fleet.call("echo"))]
    for number, (old, new) in enumerate(zip("bcd", "cde", strict=True), start=1):
        fleet.offer(new, "echo")
        eventually(lambda new=new: new in fleet.offered_by("echo"), f"host-{new} offers it")  # type: ignore[misc]
        began = time.monotonic()
        fleet.offer(old)
        eventually(lambda new=new: fleet.offered_by("echo") == new, f"host-{old} does not")  # type: ignore[misc]
        assert time.monotonic() - began < BUSY * FOLLOWS, "the bound that is promised"
        assert {served_by(fleet) for _ in range(5)} == {new}
        callers.append(Caller(number, fleet.call("echo")))
    # host-e offers echo now, and nobody the other one.
    eventually(lambda: not fleet.socket("a", "other").exists(), "its socket is gone")
    for caller in callers:
        rounds = caller.rounds
        eventually(lambda caller=caller, rounds=rounds: caller.rounds > rounds + 10, "it talks on")  # type: ignore[misc]
        assert caller.ending == ""
        caller.stop()


def test_a_host_that_stops_or_crashes_is_off_the_map(fleet: Fleet) -> None:
    fleet.offer("c", "echo")
    fleet.offer("d", "echo")
    eventually(lambda: fleet.offered_by("echo") == "bcd", "three offer it")
    before = len(fleet.control.log)
    fleet.proxies["b"].stop()
    fleet.control.wait_for("host left", before, host="host-b")
    eventually(lambda: fleet.offered_by("echo") == "cd", "the one that stopped is gone, by its own word")
    fleet.proxies["c"].kill()
    for _ in range(20):
        talk_once(fleet)
    eventually(lambda: fleet.offered_by("echo") == "d", "the one that crashed is gone with its lease")
    assert {served_by(fleet) for _ in range(5)} == {"d"}
    fleet.proxies["b"].restart()
    eventually(lambda: fleet.offered_by("echo") == "bd", "it is back")


def test_without_the_control_plane_everything_goes_on(fleet: Fleet) -> None:
    caller = Caller(0, fleet.call("echo"))
    eventually(lambda: all(fleet.saved(letter) for letter in "ab"), "the map is on disk")
    fleet.control.kill()
    eventually(lambda: fleet.status()["server"] is None, "the loss noticed")
    for _ in range(5):
        talk_once(fleet)
    # Restarts, clean and not, of both ends: everything that is needed is on disk.
    for letter, crash in (("a", True), ("b", False)):
        if crash:
            fleet.proxies[letter].kill()
        else:
            caller.stop()
            fleet.proxies[letter].stop()
        fleet.proxies[letter].restart()
        status = fleet.status(letter)
        assert status["from_disk"]
        assert status["hosts"] == 4, "all but itself"
        talk_once(fleet)
    assert fleet.proxies["a"].events("starting with the last map")
    shown = hostlane("status", "--socket", str(fleet.folder / "a" / "run" / "admin.sock"))
    assert "not reached, heard" in shown.stdout
    assert "(from disk)" in shown.stdout
    assert shown.returncode == 0


def test_a_control_plane_that_is_back_empty_wipes_nothing(fleet: Fleet) -> None:
    callers = [Caller(number, fleet.call("echo")) for number in range(3)]
    epoch = fleet.status()["epoch"]
    fleet.control.kill()
    fleet.lose_the_store()
    eventually(lambda: fleet.status()["server"] is None, "the loss noticed")
    fleet.control.restart()
    seen = set()

    def new_epoch() -> bool:
        status = fleet.status()
        seen.add(status["hosts"])
        talk_once(fleet)
        return bool(status["epoch"] != epoch and not status["unconfirmed"] and status["registered"])

    eventually(new_epoch, "everybody has registered again")
    assert min(seen) >= 4, "nobody was lost on the way"
    fleet.wait_until_all_know_all()
    for caller in callers:
        assert caller.ending == ""
        caller.stop()


def test_who_is_asked_says_why(fleet: Fleet) -> None:
    fleet.offer("c", "echo")
    eventually(lambda: fleet.offered_by("echo") == "bc", "two offer it")
    talk_once(fleet)
    admin = str(fleet.folder / "a" / "run" / "admin.sock")
    shown = hostlane("services", "--explain", "echo", "--socket", admin)
    assert shown.returncode == 0, shown.stderr
    assert "a new stream goes to  host-" in shown.stdout
    told = json.loads(hostlane("services", "--explain", "echo", "--socket", admin, "--json").stdout)
    assert {each["host"] for each in told["candidates"]} == {"host-b", "host-c"}
    assert set(told["takes"]) <= {"host-b", "host-c"}
    none = hostlane("services", "--explain", "ecko", "--socket", admin)
    assert none.returncode == 1
    why = "nobody offers it, and this host does not call it (did you mean echo?)"
    assert none.stderr == f"hostlane: service ecko: {why}\n"


def test_a_takeover_is_no_departure(fleet: Fleet) -> None:
    """Neither where a service is called, through a socket that only the map asks for, nor where it is offered."""
    for letter in "ab":
        old = fleet.proxies[letter]
        argv = [*HOSTLANE, "proxy", "--config", str(old.file), "--takeover"]
        with Process(argv, host=old.host) as successor:
            while not successor.events("proxy ready"):
                talk_once(fleet)
                assert fleet.offered_by("echo", "c") == "b"
                assert successor.running, successor.text()
            assert old.wait() == 0
            eventually(lambda each=letter: fleet.status(each)["registered"], "registered again")  # type: ignore[misc]
            for _ in range(5):
                talk_once(fleet)
            assert fleet.offered_by("echo", "c") == "b"
            assert not successor.events("no socket for some services")
            assert successor.stop() == 0
        old.restart()
        fleet.begin(b=["echo"], e=["other"])


@pytest.mark.failure("32")
def test_check_looks_at_the_ways_to_all_whom_the_proxy_knows(fleet: Fleet) -> None:
    words = ("--only", "path", "--only", "mtu", "--only", "netfilter")
    done = hostlane("check", "--json", *words, "--config", str(fleet.proxies["a"].file), host=fleet.lab.a)
    groups = {group["name"]: " ".join(group["seen"]) for group in json.loads(done.stdout)["groups"]}
    for letter in "bcde":
        assert f"(host-{letter}) through mv0" in groups["path"], done.stdout
        assert f"(host-{letter})" in groups["mtu"], done.stdout
        assert f"new flows to {fleet.addresses[letter]}" in groups["netfilter"], done.stdout
