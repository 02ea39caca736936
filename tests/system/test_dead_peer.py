"""A peer whose proxy is dead and whose host says so is not waited for; one that is silent, or refuses for a while only,
is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from proxy.demo import netns
from proxy.demo.lab import Lab, LabHost
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, PORT, World
from tests.tools.servers import Echo
from tests.tools.sockets import eventually, exchange

pytestmark = [pytest.mark.netns, pytest.mark.failure("23")]

FAST = {"ping_interval": "500ms", "ping_timeout": "1s", "dial_timeout": "1s"}
REFUSE, DROP = "reject with tcp reset", "drop"


def world(lab: Lab, *, third: bool = False, mtls: bool = False, **links: Any) -> World:
    """Waits for an hour for a link that nobody refuses."""
    sections = {"links": {**FAST, "resume_timeout": "1h", **links}, "limits": {"open_timeout": "1m"}}
    return World(lab, third=third, mtls=mtls, more=sections)


@contextmanager
def firewall(host: LabHost) -> Iterator[None]:
    """An nft table for what comes to the host's port of links; it does nothing yet."""
    nft = host.command(["nft"])
    netns.run([*nft, "add table inet door; add chain inet door way { type filter hook input priority 0; }"])
    try:
        yield
    finally:
        netns.run([*nft, "delete table inet door"])


def let(host: LabHost, verdict: str | None) -> None:
    """What the firewall does from now on, at once: refuse, drop, or (None) nothing."""
    rule = f"; add rule inet door way tcp dport {PORT} {verdict}" if verdict else ""
    netns.run([*host.command(["nft"]), f"flush chain inet door way{rule}"])


def crowd(both: World) -> Callers:
    callers = Callers(Caller(number, both.call(KINDS[number % 2])) for number in range(8))
    callers.all_talk()
    return callers


@pytest.mark.parametrize("mtls", [False, True])
def test_the_services_proxy_is_killed(lab: Lab, mtls: bool) -> None:
    """The dialling side is left. Callers through TCP are told by a reset."""
    with world(lab, mtls=mtls) as both, crowd(both) as callers:
        both.b.kill()
        assert callers.endings() <= {"end", "reset"}
        assert {caller.ending for caller in callers if caller.number % 2} == {"reset"}
        ended = both.a.wait_for("session ended")
        assert (ended["reason"], ended["streams"]) == ("peer_gone", 8)
        assert ended["detail"] == f"{lab.b.address}:{PORT} has refused connections for 2 s"
        assert {entry["reason"] for entry in both.a.events("stream ended", level="warning")} == {"peer_gone"}
        both.b.restart()
        with both.call("unix") as client:
            exchange(client, b"the next one")


def test_the_callers_proxy_is_killed(lab: Lab) -> None:
    """The side that was dialled is left. Services are told."""
    with world(lab) as both, crowd(both) as callers:
        both.a.kill()
        assert callers.endings() <= {"end", "reset"}
        ended = both.b.wait_for("session ended")
        assert (ended["reason"], ended["streams"]) == ("peer_gone", 8)
        for kind in KINDS:
            eventually(lambda kind=kind: both.echoes[kind].open == 0, "the services' connections")  # type: ignore[misc]
        assert both.echoes["tcp"].resets == 4


@pytest.mark.parametrize("side", "ab")
def test_a_firewall_that_refuses_for_a_while(lab: Lab, side: str) -> None:
    """At either end, so that the other side, which has dialled or was dialled, asks and is refused."""
    host, other = (lab.a, "b") if side == "a" else (lab.b, "a")
    with world(lab, refused_timeout="15s") as both, crowd(both) as callers, firewall(host):
        # All that comes to this host, to end the link, and connections to its port from then on.
        netns.run([*host.command(["nft"]), f"add rule inet door way tcp sport {PORT} {REFUSE}"])
        netns.run([*host.command(["nft"]), f"add rule inet door way tcp dport {PORT} {REFUSE}"])
        proxy = both.a if other == "a" else both.b
        proxy.wait_for("peer refuses connections")
        let(host, None)
        callers.all_talk()
        for each in (both.a, both.b):
            assert not each.events("session ended")
            assert not each.events("stream ended", level="warning")


def test_a_firewall_that_goes_on_refusing(lab: Lab) -> None:
    with world(lab, refused_timeout="1s") as both, crowd(both) as callers, firewall(lab.b):
        let(lab.b, REFUSE)
        assert callers.endings() <= {"end", "reset"}
        assert both.a.wait_for("session ended")["reason"] == "peer_gone"
        let(lab.b, None)
        with both.call("unix") as client:
            exchange(client, b"the next one")
        # The other side is told, by the next HELLO or by what it finds when it asks.
        eventually(lambda: both.ask("b", "status")["peers"][0]["suspended"] == 0, "nothing waits on host-b")


def test_refused_and_silent_in_turn(lab: Lab) -> None:
    """As long as the time and longer, but never throughout."""
    seconds = 6.0
    with world(lab, refused_timeout=f"{seconds:g}s") as both, crowd(both) as callers, firewall(lab.b):
        let(lab.b, REFUSE)
        both.a.wait_for("link down")
        both.a.wait_for("peer refuses connections")
        began = time.monotonic()
        while time.monotonic() < began + 1.5 * seconds:
            seen = len(both.a.log)
            let(lab.b, DROP)
            both.a.wait_for("peer refuses no longer", since=seen, answer="none")
            let(lab.b, REFUSE)
            both.a.wait_for("peer refuses connections", since=seen)
        let(lab.b, None)
        callers.all_talk()
        assert not both.a.events("session ended")


def test_a_host_that_is_silent_is_waited_for(lab: Lab) -> None:
    with world(lab, refused_timeout="100ms", resume_timeout="8s") as both, crowd(both) as callers, firewall(lab.b):
        let(lab.b, DROP)
        both.b.kill()
        eventually(lambda: suspended(both) > 3, "longer than a refusal would have taken")
        assert callers.endings() <= {"end", "reset"}
        assert both.a.wait_for("session ended")["reason"] == "resume_timeout"


def suspended(both: World) -> float:
    [link] = both.ask("a", "links")
    return float(link["suspended_s"] or 0)


@pytest.mark.parametrize("callers_proxy", [True, False])
def test_a_restart_is_met_by_its_new_instance(lab: Lab, callers_proxy: bool) -> None:
    """Also where the new one does not call, so that the old session's other side has to find out."""
    with world(lab, refused_timeout="1h") as both, crowd(both) as callers:
        victim, left = (both.a, both.b) if callers_proxy else (both.b, both.a)
        victim.kill()
        if callers_proxy:
            config = json.loads(victim.file.read_text())
            victim.file.write_text(json.dumps({**config, "upstreams": {}}))
        left.wait_for("peer refuses connections")
        victim.restart()
        assert left.wait_for("session ended")["reason"] == "peer_restarted"
        assert callers.endings() <= {"end", "reset"}


def test_new_calls_fail_over_at_once(lab: Lab) -> None:
    """While streams of the dead host still wait: host-c offers the service, too."""
    with world(lab, third=True, refused_timeout="1h") as both, Echo(both.deliver("unix", "c")):
        eventually(lambda: [peer["state"] for peer in both.ask("a", "status")["peers"]] == ["up", "up"], "both links")
        talking = Callers(Caller(number, both.call("unix")) for number in range(16))
        with talking:
            talking.all_talk()
            both.b.kill()
            both.a.wait_for("link down", peer="host-b")
            for number in range(40):
                with both.call("unix") as client:
                    exchange(client, b"call %d" % number)
            status = both.ask("a", "status")
            assert (status["peers"][0]["suspended"], status["streams_refused"]) == (1, 0)
            assert not both.a.events("stream ended", level="warning")
            assert both.ask("a", "status")["peers"][1]["warm"] >= 40, "none has waited for a link"
            both.b.restart()
            eventually(lambda: any(caller.ending for caller in talking), "the end of those on host-b")
            assert any(not caller.ending for caller in talking), "those on host-c go on"
