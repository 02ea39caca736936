"""What verified traffic sees of every restart, kill, pause and re-creation, on real engines. How long it takes is for
``make bench-containers``.

The traffic (tests/docker/probe.py) keeps a connection and makes a new one every 50 ms. A wrong answer fails every test;
what else may become of a call is said by each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.docker.conftest import Hosts
from tests.docker.engines import EngineHost
from tests.docker.traffic import CONNECT, CUT, LABEL, UNIX, Traffic, start_server
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

ALWAYS = "--restart=always"


@pytest.fixture
def traffic(empty: Hosts) -> Iterator[Traffic]:
    """From host A, by a label, to a Redis on host B."""
    a, b = empty
    start_server(b, "server", ALWAYS)
    flowing = Traffic(a)
    yield flowing
    assert not [call for call in flowing.calls if call.error.startswith("wrong")]


def recreate(host: EngineHost, name: str) -> None:
    """As Compose does: stop, remove, and start another one of that name."""
    host.docker("stop", "--time=1" if name == "server" else "--time=10", name)
    host.docker("rm", name)
    {"door": host.start_door, "proxy": host.start_proxy, "server": lambda: start_server(host, name, ALWAYS)}[name]()


WAYS: dict[str, Callable[[EngineHost, str], object]] = {
    "restart": lambda host, name: host.docker("restart", *(["--time=1"] if name == "server" else []), name),
    "kill": lambda host, name: (host.docker("kill", name), host.docker("start", name)),
    "recreate": recreate,
}
"""kill: SIGKILL, and a start by hand, as the engine takes ``docker kill`` for an order to stay away."""

essential = pytest.mark.essential


def every_way(*essentials: str) -> pytest.MarkDecorator:
    """For a test that has ``how``."""
    return pytest.mark.parametrize("how", [pytest.param(how, marks=[essential] * (how in essentials)) for how in WAYS])


@every_way("restart")
def test_the_callers_proxy(empty: Hosts, how: str) -> None:
    """Who calls meanwhile waits: the door has the listener, too, and the Unix socket. Only what is open ends, and it is
    back at once.
    """
    a, b = empty
    start_server(b)
    traffic = Traffic(a, LABEL, UNIX)
    since = traffic.flows()
    WAYS[how](a, "proxy")
    traffic.flows()
    for way in ("tcp", "unix"):
        assert len(traffic.failed(since, way, "kept")) <= 2
    cut = traffic.failed(since, kind="new")
    assert {call.error for call in cut} <= CUT
    assert how == "kill" or not cut


@every_way("kill")
def test_the_services_proxy(traffic: Traffic, empty: Hosts, how: str) -> None:
    """As above; the calls that wait do so at the other host."""
    since = traffic.flows()
    WAYS[how](empty[1], "proxy")
    traffic.flows()
    assert len(traffic.failed(since, kind="kept")) <= 2
    cut = traffic.failed(since, kind="new")
    assert {call.error for call in cut} <= CUT
    assert how == "kill" or not cut


@every_way("restart")
@pytest.mark.parametrize("side", [0, 1], ids=["the callers'", "the service's"])
def test_a_door(empty: Hosts, how: str, side: int) -> None:
    """It carries nothing. (What is in stock at the service's side is enough for 64 calls.)"""
    a, b = empty
    start_server(b)
    traffic = Traffic(a, every=0.5)
    since = traffic.flows()
    WAYS[how](empty[side], "door")
    traffic.flows()
    assert not traffic.failed(since)


@every_way("restart")
def test_the_service(traffic: Traffic, empty: Hosts, how: str) -> None:
    """While it is away nobody has it; everything is well with the first call after that."""
    since = traffic.flows()
    WAYS[how](empty[1], "server")
    back = traffic.flows()
    assert {call.error for call in traffic.failed(since)} <= CUT
    first = min(call.began for call in traffic.calls if call.began > since and not call.error)
    assert first < back
    traffic.flows()
    assert not traffic.failed(back)


@every_way("kill")
def test_the_client(traffic: Traffic, how: str) -> None:
    """Its listener is there again soon after its start, in another namespace."""
    host = traffic.host
    traffic.flows()
    if how == "recreate":
        host.docker("rm", "--force", traffic.name)
        traffic.start()
    elif how == "kill":
        host.docker("kill", traffic.name)
        host.docker("start", traffic.name)
    else:
        host.docker("restart", "--time=1", traffic.name)
    since = traffic.flows()
    traffic.flows()
    assert not traffic.failed(since)


@pytest.mark.parametrize("name", ["client", "door", "proxy", "the service's door", "the service's proxy"])
def test_a_pause(traffic: Traffic, empty: Hosts, name: str) -> None:
    """Calls wait, if anything has to do with them; nothing is lost."""
    host = empty["service's" in name]
    since = traffic.flows()
    # Freezing is tried for a while only (runc, cgroup v1), and in vain on a machine that is busy.
    eventually(lambda: host.manages("pause", name.split()[-1]), "the pause")
    host.run("second", ["sleep", "1"])
    host.docker("wait", "second")
    host.docker("unpause", name.split()[-1])
    traffic.flows()
    assert not traffic.failed(since)


def test_a_cable(traffic: Traffic, empty: Hosts) -> None:
    """Sessions outlive it."""
    since = traffic.flows()
    empty[1].host.cable_down()
    try:
        empty[1].run("second", ["sleep", "1"])
        empty[1].docker("wait", "second")
    finally:
        empty[1].host.cable_up()
    traffic.flows()
    assert not traffic.failed(since)


@pytest.mark.parametrize("name", ["client", "server"])
def test_a_network_that_goes_and_comes(empty: Hosts, name: str) -> None:
    """The namespace stays, and with it what is open there. It has the network of a later start, too."""
    a, b = empty
    host = a if name == "client" else b
    host.docker("network", "create", "--driver=macvlan", "--opt=parent=cable0", "--subnet=10.79.0.0/24", "lan")
    try:
        start_server(b, "server", "--network=lan" if name == "server" else "--network=none")
        traffic = Traffic(a, start=False)
        traffic.start("--network=lan" if name == "client" else "--network=none")
        since = traffic.flows()
        for _ in range(2):
            host.docker("network", "disconnect", "lan", name)
            traffic.flows()
            host.docker("network", "connect", "lan", name)
            traffic.flows()
        assert not traffic.failed(since)
        host.docker("restart", "--time=1", name)
        traffic.flows()
        host.docker("network", "disconnect", "lan", name)
        since = traffic.flows()
        traffic.flows()
        assert not traffic.failed(since)
    finally:
        host.docker("rm", "--force", name)
        host.docker("network", "rm", "lan")


@pytest.mark.parametrize("side", [0, 1], ids=["the callers'", "the service's"])
@pytest.mark.parametrize("how", ["stop", pytest.param("kill", marks=essential)])
def test_an_engine_with_live_restore(traffic: Traffic, empty: Hosts, how: str, side: int) -> None:
    """It is not missed; and what ends and starts meanwhile, or when it is back, is seen."""
    engine, since = empty[side], traffic.flows()
    engine.stop() if how == "stop" else engine.kill()
    traffic.flows()
    engine.start()
    traffic.flows()
    assert not traffic.failed(since)
    engine.docker("restart", "--time=1", ["client", "server"][side])
    traffic.flows()


def test_an_engine_that_takes_its_containers_along(traffic: Traffic, empty: Hosts) -> None:
    """Without live-restore all of a host is gone for a while: service, door and proxy, which come back by policy."""
    _, b = empty
    for name in ("door", "proxy"):
        b.docker("update", "--restart=always", name)
    try:
        traffic.flows()
        b.stop()
        b.start(live_restore=False)
        traffic.flows()
        since = traffic.flows()
        b.stop()
        b.start()
        traffic.flows()
        assert {call.error for call in traffic.failed(since)} <= CUT
    finally:
        for name in ("door", "proxy"):
            b.docker("update", "--restart=no", name)
            b.docker("start", name)


@pytest.mark.parametrize("what", ["door", "proxy", "engine"])
def test_containers_that_start_before_while_and_after(traffic: Traffic, what: str) -> None:
    """What starts while something is away is seen when it is back. (An engine that is away starts nothing; what it has
    just started is the one that it finds.)
    """
    host = traffic.host
    traffic.flows()
    if what == "engine":
        during = Traffic(host, name="during")
        host.kill()
        host.start()
    else:
        host.docker("stop", what)
        during = Traffic(host, name="during")
        host.docker("start", what)
    after = Traffic(host, name="after")
    for each in (traffic, during, after):
        each.flows()


@essential
def test_every_way_at_once(empty: Hosts) -> None:
    """By a label, through a Unix socket and by CONNECT."""
    a, b = empty
    start_server(b)
    traffic = Traffic(a, LABEL, UNIX, CONNECT)
    since = traffic.flows()
    assert not traffic.failed(since)
