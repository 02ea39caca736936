"""SIGTERM: peers are told, local callers are served, open streams finish within stop_timeout, a second signal does not
wait; no file stays.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from proxy.demo.lab import Lab
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, World, signal_proxy
from tests.tools.servers import Listener
from tests.tools.sockets import eventually, exchange, read_to_end

pytestmark = [pytest.mark.netns, pytest.mark.failure(10)]

LONG = {"limits": {"stop_timeout": "10m"}}


def sockets(world: World, host: str) -> list[Path]:
    return [path for path in (world.folder / host).rglob("*") if path.is_socket() and path.name != "service.sock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.failure("24")
def test_open_streams_finish_and_new_calls_are_served(lab: Lab, number: signal.Signals) -> None:
    with World(lab, more=LONG) as world:
        clients = [world.call(kind) for kind in KINDS]
        for client in clients:
            exchange(client, b"before")
        signal_proxy(world.a, number)
        assert world.a.wait_for("proxy stopping")["streams"] == 2
        for kind in KINDS:
            with world.call(kind) as late:
                exchange(late, b"new")
        for client in clients:
            exchange(client, b"still there")
            client.close()
        assert world.a.wait() == 0
        assert world.a.events("proxy stopped")
        assert sockets(world, "a") == []
        eventually(lambda: world.counts() == {"b": 0}, "host-b knows")
        assert world.echoes["tcp"].resets == 0, "a clean end"
        world.a.restart()
        with world.call("unix") as client:
            exchange(client, b"after")


def test_talkers_get_their_last_answer_when_the_services_proxy_stops(lab: Lab) -> None:
    with World(lab, more=LONG) as world:
        with Callers(Caller(number, world.call(KINDS[number % 2])) for number in range(8)) as callers:
            callers.all_talk()
            signal_proxy(world.b, signal.SIGTERM)
            world.b.wait_for("proxy stopping")
            callers.all_talk()
        assert callers.endings() == {"stopped"}
        assert world.b.wait() == 0
        eventually(lambda: world.echoes["tcp"].open == 0, "the service is told")
        assert (world.echoes["tcp"].resets, world.echoes["tcp"].ended) == (0, 4)


@pytest.mark.failure(8, "24")
def test_callers_on_other_hosts_are_served_until_it_ends(lab: Lab) -> None:
    """While it is away they wait, and lose no call."""
    with World(lab, more={"limits": {"stop_timeout": "10m", "open_timeout": "1m"}}) as world:
        with world.call("unix") as client:
            exchange(client, b"before")
            signal_proxy(world.b, signal.SIGTERM)
            world.b.wait_for("proxy stopping")
            for kind in KINDS:
                with world.call(kind) as other:
                    exchange(other, b"new")
            exchange(client, b"the old one goes on")
            client.close()
            assert world.b.wait() == 0, "nothing keeps it"
        with world.call("unix") as late:
            late.sendall(b"late")
            eventually(lambda: world.ask("a", "status")["peers"][0]["waiting"] == 1, "the new call waits")
            world.b.restart()
            assert late.recv(100) == b"late"


def test_a_second_signal_does_not_wait(lab: Lab) -> None:
    with World(lab, more=LONG) as world, world.call("tcp") as client:
        exchange(client, b"before")
        signal_proxy(world.a, signal.SIGTERM)
        world.a.wait_for("proxy stopping")
        signal_proxy(world.a, signal.SIGTERM)
        assert world.a.wait() == 0
        assert read_to_end(client) == (b"", True), "cut, not ended"
        eventually(lambda: world.echoes["tcp"].resets == 1, "the service is told the same")
        assert world.b.wait_for("link down")["reason"] == "stopped"
        assert world.b.wait_for("stream ended")["reason"] == "stopped"
        assert sockets(world, "a") == []


def test_streams_that_do_not_finish_in_time_are_cut(lab: Lab) -> None:
    with World(lab, more={"limits": {"stop_timeout": "100ms"}}) as world:
        with world.call("tcp") as client, world.call("unix") as other:
            exchange(client, b"before")
            exchange(other, b"before")
            assert world.b.stop() == 0
            assert read_to_end(client) == (b"", True)
            assert read_to_end(other).received == b""
            eventually(lambda: world.counts() == {"a": 0}, "host-a knows")
            assert sockets(world, "b") == []


def test_nothing_open_nothing_to_wait_for(lab: Lab) -> None:
    with World(lab, more=LONG) as world:
        world.b.wait_for("link up")
        assert world.a.stop() == 0
        assert world.b.stop() == 0
        assert world.b.wait_for("link down")["reason"] == "stopped"


def test_a_call_still_being_delivered_is_part_of_the_drain(lab: Lab) -> None:
    """The service's backlog is full, so the call waits; it is answered although the proxy has been told to stop."""
    with World(lab, echo=False, more=LONG) as world, Listener(world.deliver("unix"), backlog=0) as listener:
        first = world.call("unix")
        eventually(lambda: any(stream["state"] == "open" for stream in world.ask("b", "streams")), "in the backlog")
        second = world.call("unix")
        eventually(lambda: len(world.ask("b", "streams")) == 2, "waiting for the backlog")
        signal_proxy(world.b, signal.SIGTERM)
        world.b.wait_for("proxy stopping")
        for client in (first, second):
            server = listener.accept()
            client.sendall(b"hello")
            assert server.recv(10) == b"hello"
            client.close()
            server.close()
        assert world.b.wait() == 0
