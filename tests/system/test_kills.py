"""kill -9 of everything in turn, in the middle of verified traffic.

Who is left sees an abort wherever its socket can express one: TCP a reset, a Unix socket an end (or a reset, if the
proxy left bytes unread in it). Nobody gets wrong bytes, nobody hangs, and what comes back is used again.
"""

from __future__ import annotations

import pytest

from proxy.demo.lab import Lab
from tests.system.talk import Caller, Callers, Victim
from tests.system.world import KINDS, World
from tests.tools.servers import Echo
from tests.tools.sockets import eventually, exchange, read_exactly, read_to_end

pytestmark = [pytest.mark.netns, pytest.mark.failure(3)]

PATIENT = {"limits": {"open_timeout": "1m"}, "links": {"resume_timeout": "100ms"}}
HOW_IT_ENDS = {"unix": {"end", "reset"}, "tcp": {"reset"}}


def crowd(world: World, size: int = 16) -> Callers:
    """Callers of both kinds, all of them talking."""
    callers = Callers(Caller(number, world.call(KINDS[number % 2])) for number in range(size))
    callers.all_talk()
    return callers


def all_cut(world: World, callers: Callers) -> None:
    """Every caller and every service connection has been told, as its socket can express it."""
    callers.endings()
    for number, kind in enumerate(KINDS):
        endings = {caller.ending for caller in callers if caller.number % 2 == number}
        assert endings <= HOW_IT_ENDS[kind], f"{kind} callers"
        eventually(lambda kind=kind: world.echoes[kind].open == 0, "the services' connections")  # type: ignore[misc]
    assert world.echoes["tcp"].ended == 0, "an abort was told as a clean end"


def works_again(world: World) -> None:
    with crowd(world) as callers:
        callers.all_talk()
    assert callers.endings() == {"stopped"}
    world.wait_until_idle()


def test_the_callers_proxy(lab: Lab) -> None:
    with World(lab, more=PATIENT) as world, crowd(world) as callers:
        world.a.kill()
        all_cut(world, callers)
        assert world.b.wait_for("link down")["reason"] == "link_lost"
        eventually(lambda: world.counts() == {"b": 0}, "no stream left on host-b")
        world.a.restart()
        works_again(world)


def test_the_services_proxy(lab: Lab) -> None:
    with World(lab, more=PATIENT) as world, crowd(world) as callers:
        world.b.kill()
        all_cut(world, callers)
        assert world.a.wait_for("link down")["reason"] == "link_lost"
        eventually(lambda: world.counts() == {"a": 0}, "no stream left on host-a")
        world.b.restart()
        works_again(world)


@pytest.mark.failure(18)
@pytest.mark.parametrize("caller", KINDS)
def test_a_client(lab: Lab, caller: str) -> None:
    """Its service is told; the others go on talking."""
    with World(lab) as world, crowd(world, 4) as others:
        before = {kind: echo.resets for kind, echo in world.echoes.items()}
        victim = Victim(world.listen(caller), host=lab.a, serve=False)
        victim.has_unread_bytes()
        victim.kill()
        world.a.wait_for("stream ended", reason="aborted")
        if caller == "tcp":
            eventually(lambda: world.echoes["tcp"].resets == before["tcp"] + 1, "the service is told")
        else:
            eventually(lambda: world.echoes["unix"].open == 2, "the service is told")
        others.all_talk()
        eventually(lambda: world.counts() == {"a": 4, "b": 4}, "nothing left of it")
        assert not [caller for caller in others if caller.ending]


@pytest.mark.failure(18)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server(lab: Lab, kind: str) -> None:
    """Its caller is told; callers of the other service go on talking; a new server at the same address is found."""
    with World(lab, echo=False, more=PATIENT) as world:
        other = KINDS[1 - KINDS.index(kind)]
        with Echo(world.deliver(other), world.server_socket(other)):
            with Callers([Caller(0, world.call(other)), Caller(1, world.call(other))]) as others:
                victim = Victim(world.deliver(kind), host=lab.b, serve=True)
                with world.call(kind) as client:
                    client.sendall(b"x" * 1000)
                    victim.has_unread_bytes()
                    others.all_talk()
                    victim.kill()
                    assert read_to_end(client) == (b"", kind == "tcp")
                world.b.wait_for("stream ended", reason="aborted")
                others.all_talk()
                if kind == "unix":
                    (world.folder / "b" / "service.sock").unlink()
                with Echo(world.deliver(kind), world.server_socket(kind)), world.call(kind) as client:
                    exchange(client, b"the new server")
            assert others.endings() == {"stopped"}
        world.wait_until_idle()


@pytest.mark.failure(2)
def test_a_process_killed_with_nothing_unread_ends_as_without_a_proxy(lab: Lab) -> None:
    """The kernel then says an end for it, on TCP and Unix sockets alike; the proxy passes on what it was told."""
    with World(lab) as world:
        for kind in KINDS:
            client = world.call(kind)
            exchange(client, b"all of it is read")
            client.close()
            eventually(lambda kind=kind: world.echoes[kind].ended == 1, "a clean end")  # type: ignore[misc]


@pytest.mark.failure(3)
def test_bytes_before_the_kill_arrive(lab: Lab) -> None:
    """What the killed proxy had passed on is delivered before the abort."""
    with World(lab, more=PATIENT) as world, world.call("unix") as client:
        client.sendall(b"answered")
        assert read_exactly(client, 8) == b"answered"
        world.b.kill()
        assert read_to_end(client).received == b""


@pytest.mark.failure(15)
def test_both_proxies_at_once_and_their_files(lab: Lab) -> None:
    with World(lab, more=PATIENT) as world, crowd(world) as callers:
        world.a.kill()
        world.b.kill()
        all_cut(world, callers)
        world.b.restart()
        world.a.restart()
        works_again(world)
        world.a.stop()
        world.b.stop()
        for host in "ab":
            assert [path for path in (world.folder / host).rglob("*sock*") if path.name != "service.sock"] == []
