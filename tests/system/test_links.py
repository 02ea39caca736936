"""Links come, go and come back under live streams: who waits, who is told what, and who notices nothing."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import pytest

from proxy.demo.lab import Lab
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, World
from tests.tools.servers import Echo
from tests.tools.sockets import ending_of, eventually, exchange, read_to_end

pytestmark = pytest.mark.netns

FAST_PINGS = {"ping_interval": "500ms", "ping_timeout": "1s", "dial_timeout": "1s"}
SHORT = {"resume_timeout": "100ms"}
"""Streams end with their link. (That they do not, otherwise: test_resume.py.)"""
PATIENT = {"limits": {"open_timeout": "1m"}}


@pytest.mark.failure(9)
def test_callers_that_come_before_the_link_wait_for_one_dial(lab: Lab) -> None:
    with World(lab, more=PATIENT) as world, ExitStack() as stack:
        world.kill_b()
        clients = [stack.enter_context(world.call("unix")) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(b"early %3d" % number)
        eventually(lambda: world.ask("a", "status")["peers"][0]["waiting"] == 100, "all wait")
        seen = len(world.a.log)
        world.b.restart()
        for number, client in enumerate(clients):
            assert client.recv(100) == b"early %3d" % number
        assert len([entry for entry in world.a.log[seen:] if entry["event"] == "link up"]) == 1
        assert world.links() == 1


def test_a_call_that_nobody_can_take_in_time_is_peer_unreachable(lab: Lab) -> None:
    with World(lab, more={"limits": {"open_timeout": "200ms"}}) as world:
        world.kill_b()
        for kind in KINDS:
            assert ending_of(partial(world.call, kind)) == (b"", kind == "tcp")
            ended = world.a.wait_for("stream ended", service=kind, reason="peer_unreachable", level="warning")
            assert "0.2 s" in ended["detail"]
        assert world.counts() == {"a": 0}


@pytest.mark.failure(9, 19)
def test_only_so_many_wait(lab: Lab) -> None:
    limits = {"open_timeout": "1m", "waiting_streams": 3}
    with World(lab, more={"limits": limits}) as world, ExitStack() as stack:
        world.kill_b()
        waiting = [stack.enter_context(world.call("tcp")) for _ in range(3)]
        eventually(lambda: world.ask("a", "status")["peers"][0]["waiting"] == 3, "all wait")
        assert ending_of(partial(world.call, "tcp")).reset
        world.a.wait_for("stream ended", reason="overloaded")
        world.b.restart()
        for client in waiting:
            exchange(client, b"in the end")


@pytest.mark.failure(6)
def test_a_peer_that_restarts_again_and_again_is_dialled_again(lab: Lab) -> None:
    """By kill -9 and by SIGTERM, with a stream open both times."""
    limits = {"open_timeout": "1m", "stop_timeout": "100ms"}
    with World(lab, more={"limits": limits, "links": SHORT}) as world:
        for number in range(2):
            with world.call("unix") as client:
                exchange(client, b"before %d" % number)
                world.b.stop() if number % 2 else world.b.kill()
                assert read_to_end(client).received == b""
            with world.call("unix") as client:
                client.sendall(b"at once")
                world.b.restart()
                assert client.recv(100) == b"at once"
        world.wait_until_idle()


@pytest.mark.failure(6, 7)
def test_a_pulled_cable_is_found_and_a_plugged_one_used(lab: Lab) -> None:
    with World(lab, more={"links": {**FAST_PINGS, **SHORT}, **PATIENT}) as world:
        with Callers(Caller(number, world.call(KINDS[number % 2])) for number in range(8)) as callers:
            callers.all_talk()
            lab.a.cable_down()
            try:
                assert callers.endings() == {"end", "reset"}
                for proxy in (world.a, world.b):
                    assert proxy.wait_for("link down")["reason"] == "peer_timeout"
                    assert proxy.wait_for("stream ended", reason="resume_timeout")
                assert {caller.ending for caller in callers if caller.number % 2} == {"reset"}
                assert world.counts() == {"a": 0, "b": 0}
                echo = world.echoes["tcp"]
                eventually(lambda: echo.open == 0, "the service is told")
                assert echo.resets == 4, "of an abort, not of an end"
                late = world.call("unix")
                late.sendall(b"while it is down")
            finally:
                lab.a.cable_up()
            with late:
                assert late.recv(100) == b"while it is down"
        world.wait_until_idle()


@pytest.mark.failure(7)
def test_an_idle_link_stays_up_by_pings(lab: Lab) -> None:
    with World(lab, more={"links": {"ping_interval": "500ms", "ping_timeout": "500ms"}}) as world:
        with world.call("unix") as client:
            exchange(client, b"first")
            before = world.ask("b", "links")[0]
            eventually(lambda: world.ask("b", "links")[0]["bytes_received"] > before["bytes_received"], "a ping")
            after = world.ask("b", "links")
            assert [link["id"] for link in after] == [before["id"]]
            assert after[0]["rtt_ms"] > 0
            exchange(client, b"second")


def test_a_refused_call_goes_to_another_host_with_its_early_bytes(lab: Lab) -> None:
    """host-b offers the service as well, but nothing listens there."""
    with World(lab, third=True, echo=False) as world:
        with Echo(world.deliver("unix", "c")):
            eventually(lambda: all(peer["state"] == "up" for peer in world.ask("a", "status")["peers"]), "both links")

            def has_tried_b() -> bool:
                with world.call("unix") as client:
                    exchange(client, b"whoever takes it")
                return bool(world.b.events("stream ended", reason="connect_failed"))

            # Which of two hosts a call goes to is left to chance, and the log comes when it comes.
            eventually(has_tried_b, "host-b is tried")
            assert not world.a.events("stream ended", reason="connect_failed"), "and no caller noticed"
        with world.call("unix") as client:
            assert read_to_end(client) == (b"", False)
        world.a.wait_for("stream ended", reason="connect_failed")
        world.wait_until_idle()


def test_calls_go_where_a_host_is_up(lab: Lab) -> None:
    with World(lab, third=True, echo=False, more=PATIENT) as world:
        with Echo(world.deliver("unix", "b")) as b, Echo(world.deliver("unix", "c")) as c:
            eventually(lambda: all(peer["state"] == "up" for peer in world.ask("a", "status")["peers"]), "both links")
            with ExitStack() as stack:
                for number in range(10):
                    exchange(stack.enter_context(world.call("unix")), b"call %d" % number)
                assert b.open == c.open == 5, "the less loaded host gets the next"
            world.wait_until_idle()
            world.b.kill()
            world.a.wait_for("link down", peer="host-b")
            for _ in range(5):
                with world.call("unix") as client:
                    exchange(client, b"host-c")
            assert c.accepted == 10


@pytest.mark.failure(9)
def test_links_are_bounded_when_both_sides_call(lab: Lab) -> None:
    """host-b calls back through upstreams of its own: the links of both directions count together."""
    with World(lab) as world, ExitStack() as stack:
        for number in range(600):
            exchange(stack.enter_context(world.call("unix")), b"%d" % number)
        eventually(lambda: world.links() == 2, "600 streams are worth a second link")
        for number in range(100):
            exchange(stack.enter_context(world.call("unix")), b"%d" % number)
        assert world.links() == 2
        assert sorted(link["streams"] > 0 for link in world.ask("a", "links")) == [True, True]


@pytest.mark.failure(6, 11)
def test_a_caller_that_was_restarted_behind_a_pulled_cable_is_let_in(lab: Lab) -> None:
    """host-b still holds the links of the proxy that died; they must not keep out the one that took its place."""
    slow = {"ping_interval": "10m", "ping_timeout": "10m", "max_per_peer": 1}
    with World(lab, more={"links": slow, **PATIENT}) as world:
        with world.call("unix") as client:
            exchange(client, b"before")
            lab.a.cable_down()
            try:
                world.a.kill()
            finally:
                lab.a.cable_up()
            world.a.restart()
            with world.call("unix") as again:
                exchange(again, b"after")
        eventually(lambda: world.counts() == {"a": 0, "b": 0}, "the dead proxy's streams are gone")


@pytest.mark.failure(5)
def test_the_smallest_credit_carries_messages_larger_than_itself(lab: Lab) -> None:
    with World(lab, more={"limits": {"stream_credit": "16KiB"}}) as world:
        for kind in KINDS:
            with world.call(kind) as client:
                for size in (1, 16_384, 16_385, 150_000):
                    exchange(client, b"x" * size)
