"""Unmodified programs in containers without a network, on real engines."""

from __future__ import annotations

import subprocess
from contextlib import suppress

import pytest

from tests.docker.conftest import Hosts
from tests.docker.engines import EngineHost
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

USE = {"hostlane.use": "redis@127.77.0.2:6379"}
OFFER = {"hostlane.offer": "redis=tcp:127.0.0.1:6379"}
SERVER = ["redis-server", "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
CLI = ["redis-cli", "-h", "127.77.0.2"]


def start_server(host: EngineHost, name: str = "server", *options: str) -> None:
    host.run(name, SERVER, "--user=65534:65534", *options, labels=OFFER)


def start_client(host: EngineHost, name: str = "client", *options: str) -> None:
    """A container that waits, for commands."""
    host.run(name, ["sleep", "infinity"], *options, labels=USE)


def ask(host: EngineHost, *words: str, client: str = "client") -> str:
    """What Redis answers to a client in a container, or what the client says instead."""
    with suppress(AssertionError, subprocess.TimeoutExpired):
        return host.docker("exec", client, "timeout", "5", *CLI, *words)
    return ""


def answers(host: EngineHost, client: str = "client") -> bool:
    return ask(host, "ping", client=client) == "PONG"


def test_an_unmodified_redis_and_an_unmodified_client(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    start_client(a)
    eventually(lambda: answers(a), "PONG")
    assert ask(a, "set", "greeting", "hello") == "OK"
    assert b.docker("exec", "server", "redis-cli", "get", "greeting") == "hello"


def test_both_on_one_host(empty: Hosts) -> None:
    a, _ = empty
    start_server(a)
    start_client(a)
    eventually(lambda: answers(a), "PONG")


def test_the_privileges_are_those_of_the_documentation(hosts: Hosts) -> None:
    a, _ = hosts
    for name, caps in (("door", "0000000000200400"), ("proxy", "0000000000000000")):
        status = a.docker("exec", name, "cat", "/proc/1/status")
        assert f"CapPrm:\t{caps}" in status
        assert f"CapBnd:\t{caps}" in status or name == "proxy"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_the_service_comes_back(empty: Hosts, how: str) -> None:
    a, b = empty
    start_server(b, "server", "--restart=always")
    start_client(a)
    eventually(lambda: answers(a), "PONG")
    if how == "restart":
        b.docker("restart", "--time=1", "server")
    else:
        pid = b.docker("inspect", "--format={{.State.Pid}}", "server")
        subprocess.run(["kill", "-9", pid], check=True)
    eventually(lambda: answers(a), "PONG again")


def test_the_client_comes_back(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    start_client(a)
    eventually(lambda: answers(a), "PONG")
    a.docker("restart", "--time=1", "client")
    eventually(lambda: answers(a), "PONG again")


def test_a_container_that_is_paused_offers_nothing(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    start_client(a)
    eventually(lambda: answers(a), "PONG")
    b.docker("pause", "server")
    eventually(lambda: not answers(a), "the withdrawal")
    b.docker("unpause", "server")
    eventually(lambda: answers(a), "PONG again")


def test_a_container_offers_while_it_is_healthy(empty: Hosts) -> None:
    a, b = empty
    start_client(a)
    check = ["--health-cmd=test -e /tmp/well", "--health-interval=1s", "--health-retries=1", "--tmpfs=/tmp"]
    start_server(b, "server", *check)
    eventually(lambda: b.docker("inspect", "--format={{.State.Health.Status}}", "server") == "unhealthy", "unhealthy")
    assert not answers(a)
    b.docker("exec", "server", "touch", "/tmp/well")
    eventually(lambda: answers(a), "PONG")
    b.docker("exec", "server", "rm", "/tmp/well")
    eventually(lambda: not answers(a), "the withdrawal")


@pytest.mark.parametrize("name", ["door", "proxy"])
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_door_and_proxy_come_back(empty: Hosts, name: str, how: str) -> None:
    """While one of them is away the other one has the listeners: nobody is refused."""
    a, b = empty
    start_server(b)
    start_client(a)
    eventually(lambda: answers(a), "PONG")
    for host in empty:
        host.docker("stop" if how == "restart" else "kill", name)
        assert "refused" not in ask(a, "ping")
        host.docker("start", name)
        eventually(lambda: answers(a), "PONG again")
    start_client(a, "later")
    eventually(lambda: answers(a, "later"), "PONG for one that started later")


def test_who_calls_while_the_proxy_is_away_waits_for_it(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    start_client(a)
    eventually(lambda: answers(a), "PONG")
    a.docker("stop", "proxy")
    a.docker("exec", "--detach", "client", "sh", "-c", "redis-cli -h 127.77.0.2 set waited yes")
    eventually(lambda: "127.77.0.2" in waiting(a), "the caller")
    a.docker("start", "proxy")
    eventually(lambda: ask(a, "get", "waited") == "yes", "its answer")


def waiting(host: EngineHost) -> str:
    """The TCP connections of the client's container."""
    pid = host.docker("inspect", "--format={{.State.Pid}}", "client")
    argv = ["nsenter", f"--target={pid}", "--net", "ss", "-Htn", "state", "established"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_the_engine_comes_back(empty: Hosts) -> None:
    """With live-restore containers go on, and so does everything between them."""
    a, b = empty
    start_server(b)
    start_client(a)
    eventually(lambda: answers(a), "PONG")
    b.stop()
    assert answers(a)
    b.start()
    eventually(lambda: b.docker("inspect", "--format={{.State.Running}}", "server") == "true", "the engine")
    b.docker("restart", "--time=1", "server")
    eventually(lambda: answers(a), "PONG after a restart that the engine had to tell of")


def test_a_macvlan_address_is_free_again(empty: Hosts) -> None:
    """Whatever is open in a namespace would keep its interface, and with it the address, which is the MAC's seed."""
    a, b = empty
    b.docker("network", "create", "--driver=macvlan", "--opt=parent=cable0", "--subnet=10.79.0.0/24", "lan")
    try:
        start_client(a)
        place = ["--network=lan", "--ip=10.79.0.9"]
        start_server(b, "server", *place)
        eventually(lambda: answers(a), "PONG")
        for _ in range(3):
            b.docker("restart", "--time=1", "server")
            eventually(lambda: answers(a), "PONG again")
        b.docker("rm", "--force", "server")
        start_server(b, "other", *place)
        eventually(lambda: answers(a), "PONG of another one with the same address")
    finally:
        b.docker("rm", "--force", "server", "other")
        b.docker("network", "rm", "lan")


def test_nothing_is_left_of_containers(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    counts = []
    for lives in (3, 12):
        for _ in range(lives):
            start_client(a)
            eventually(lambda: answers(a), "PONG")
            a.docker("rm", "--force", "client")
        counts.append([int(a.docker("exec", name, "sh", "-c", "ls /proc/1/fd | wc -l")) for name in ("door", "proxy")])
    # An idle connection to the engine may be closed by then.
    assert all(later <= earlier for earlier, later in zip(*counts, strict=True)), counts


def test_what_cannot_be_is_one_line(empty: Hosts) -> None:
    a, _ = empty
    start_client(a)
    a.run("one", ["sleep", "infinity"], "--network=host", labels=USE)
    a.run("two", ["sleep", "infinity"], "--network=container:client", labels=USE)
    a.run("three", ["sleep", "infinity"], labels={"hostlane.sue": "redis"})
    lines = [
        "container one: its network is the host's, where everybody could call as it does; allowed: one of its own, "
        "or none",
        "container two: its network is another container's; put its labels there",
        "container three: hostlane.sue: unknown; allowed: hostlane.use, hostlane.offer, hostlane.caller",
    ]
    for line in lines:
        eventually(lambda line=line: a.said("door", "not as its labels ask", error=line), line)
