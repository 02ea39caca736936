"""Unmodified programs in containers without a network, on real engines."""

from __future__ import annotations

import subprocess

import pytest

from proxy.door import labels
from tests.docker.conftest import Hosts
from tests.docker.engines import EngineHost
from tests.docker.traffic import USE, start_server
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

CLI = ["redis-cli", "-h", "127.77.0.2"]


def start_client(host: EngineHost, name: str = "client", *options: str) -> None:
    """A container that waits, for commands."""
    host.run(name, ["sleep", "infinity"], *options, labels=USE)


def ask(host: EngineHost, *words: str, client: str = "client") -> str:
    """What Redis answers to a client in a container, or what the client says instead."""
    return host.says(client, *CLI, *words)


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


@pytest.mark.essential
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


@pytest.mark.essential
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
        f"container three: hostlane.sue: unknown; allowed: {', '.join(labels.KNOWN)}",
    ]
    for line in lines:
        eventually(lambda line=line: a.said("door", "not as its labels ask", error=line), line)
