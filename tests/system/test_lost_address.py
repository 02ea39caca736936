"""An interface loses its address under live links: noticed by what the kernel tells, since pings are rare here."""

from __future__ import annotations

import pytest

from proxy.demo import netns
from proxy.demo.lab import Lab, LabHost
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, World
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.netns, pytest.mark.failure("21c")]

RARE = {"ping_interval": "30m", "ping_timeout": "30m", "resume_timeout": "1h"}


def change(host: LabHost, *commands: str) -> None:
    for command in commands:
        netns.run(["ip", "-n", host.netns, *command.split()])


@pytest.mark.parametrize("mtls", [False, True])
def test_streams_go_on_when_it_is_back(lab: Lab, mtls: bool) -> None:
    """On the host that dialled. Its peer learns of it when the next link comes."""
    with World(lab, mtls=mtls, more={"links": RARE}) as both:
        with Callers(Caller(number, both.call(KINDS[number % 2])) for number in range(8)) as callers:
            callers.all_talk()
            change(lab.a, f"addr delete {lab.a.address}/24 dev mv0")
            try:
                down = both.a.wait_for("link down")
                assert down["detail"] == f"this host does not have the address {lab.a.address} any more"
                assert (down["reason"], down["suspended"]) == ("link_lost", 8)
                eventually(lambda: both.ask("a", "status")["peers"][0]["suspended_streams"] == 8, "all of them wait")
            finally:
                change(lab.a, f"addr add {lab.a.address}/24 dev mv0")
            callers.all_talk()
            assert both.b.wait_for("link down")["suspended"] == 8
        assert callers.endings() == {"stopped"}


def test_on_the_host_that_was_dialled(lab: Lab) -> None:
    with World(lab, more={"links": RARE}) as both:
        with Callers(Caller(number, both.call(KINDS[number % 2])) for number in range(4)) as callers:
            callers.all_talk()
            change(lab.b, f"addr delete {lab.b.address}/24 dev mv0")
            try:
                assert both.b.wait_for("link down")["detail"].startswith("this host does not have the address")
            finally:
                change(lab.b, f"addr add {lab.b.address}/24 dev mv0")
            callers.all_talk()


def test_another_address_that_goes_is_no_reason(lab: Lab) -> None:
    with World(lab, more={"links": RARE}) as both:
        with Callers([Caller(0, both.call("unix"))]) as callers:
            callers.all_talk()
            change(lab.a, "addr add 10.99.0.1/24 dev mv0", "addr delete 10.99.0.1/24 dev mv0")
            change(lab.a, "link add other type veth peer name rehto", "link delete other")
            callers.all_talk()
            assert not both.a.events("link down")
            [link] = both.ask("a", "links")
            assert link["resumed"] == 0
