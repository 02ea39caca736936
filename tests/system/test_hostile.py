"""Strangers on the link's port, and a system that has no descriptors left."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from proxy.demo.lab import Lab
from tests.system.talk import Caller, Callers
from tests.system.world import KINDS, PORT, World
from tests.tools.sockets import connect, count_fds, eventually, exchange, read_to_end, say

pytestmark = pytest.mark.netns

SHORT = {"links": {"dial_timeout": "3s"}}
"""Long enough for all strangers to come, also on a busy machine, before the first is sent away."""


def stranger(world: World, lab: Lab) -> socket.socket:
    return connect(f"tcp:{lab.b.address}:{PORT}", lab.a.socket())


@pytest.mark.failure(18)
@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(500), bytes(70_000), b"\xff" * 70_000],
    ids=["HTTP", "TLS", "zeros", "ones"],
)
def test_what_is_not_a_proxy_is_turned_away_and_disturbs_nobody(lab: Lab, said: bytes) -> None:
    with World(lab) as world:
        with Callers(Caller(number, world.call(KINDS[number % 2])) for number in range(4)) as callers:
            callers.all_talk()
            with stranger(world, lab) as sock:
                say(sock, said)
                read_to_end(sock)
            world.b.wait_for("link refused", level="warning")
            callers.all_talk()
        assert callers.endings() == {"stopped"}
        assert world.links() == 1


@pytest.mark.failure(1)
def test_strangers_who_say_nothing_are_sent_away_in_time(lab: Lab) -> None:
    with World(lab, more=SHORT) as world, ExitStack() as stack:
        with world.call("unix") as client:
            exchange(client, b"warm")
        world.wait_until_idle()
        before = count_fds(world.b.pid)
        silent = [stack.enter_context(stranger(world, lab)) for _ in range(200)]
        with world.call("unix") as client:
            exchange(client, b"meanwhile")
        assert {read_to_end(sock).received for sock in silent} == {b""}
        eventually(lambda: count_fds(world.b.pid) <= before, "their descriptors are free again")
        with world.call("unix") as client:
            exchange(client, b"still there")


@pytest.mark.failure(1)
@pytest.mark.parametrize("host", ["a", "b"])
def test_running_out_of_descriptors_costs_the_calls_that_do_not_fit_and_passes(lab: Lab, host: str) -> None:
    world = World(lab, more={"limits": {"open_timeout": "1m"}})
    proxy = getattr(world, host)
    proxy.argv = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *proxy.argv]
    with world, ExitStack() as stack:
        first = stack.enter_context(world.call("unix"))
        exchange(first, b"before")
        with ExitStack() as many:
            clients = [many.enter_context(world.call("unix")) for _ in range(100)]
            for number, client in enumerate(clients):
                say(client, b"%d" % number)
            if host == "a":
                world.a.wait_for("callers wait for descriptors", level="warning")
            else:
                world.b.wait_for("stream ended", reason="local_shortage")
            exchange(first, b"meanwhile")
        exchange(first, b"afterwards")
        eventually(lambda: world.counts() == {"a": 1, "b": 1}, "the many are gone")
        for _ in range(3):
            with world.call("unix") as client:
                exchange(client, b"again")


@pytest.mark.failure(1)
def test_no_descriptors_for_a_link(lab: Lab) -> None:
    """host-b cannot accept host-a's link: it says so without a traceback, and takes the link when it can."""
    world = World(lab, more={"limits": {"open_timeout": "1m"}})
    world.b.argv = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *world.b.argv]
    with world, ExitStack() as stack:
        with world.call("unix") as client:
            exchange(client, b"before")
        world.a.kill()
        world.b.wait_for("link down")
        silent = [stack.enter_context(stranger(world, lab)) for _ in range(60)]
        eventually(lambda: count_fds(world.b.pid) >= 63, "no descriptor is left")
        world.a.start()
        for sock in silent:
            sock.close()
        world.a.ready()
        with world.call("unix") as client:
            exchange(client, b"after")
