"""Unix sockets by label (`hostlane.sockets`), on real engines: a directory of the container's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.docker.conftest import Hosts
from tests.docker.engines import PROXY_USER, SERVICES, EngineHost
from tests.docker.traffic import start_server
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

LABELS = {"hostlane.sockets": "redis", "hostlane.caller": "shop"}
PING = ["redis-cli", "-s", "/run/services/redis.sock", "ping"]


def directory(host: EngineHost, name: str) -> Path:
    return Path(host.sockets, "services", "containers", name)


def create(host: EngineHost, name: str = "shop") -> None:
    """As Compose does: the container is there before its start, and so is its directory."""
    mount = f"--volume={directory(host, name)}:/run/services:ro"
    host.create(name, ["sleep", "infinity"], "--user=65534:65534", mount, labels=LABELS)
    eventually(lambda: directory(host, name).is_dir(), "its directory")
    assert directory(host, name).stat().st_uid == int(PROXY_USER.partition(":")[0])
    host.docker("start", name)


def answers(host: EngineHost, name: str = "shop") -> bool:
    return host.says(name, *PING) == "PONG"


def test_a_container_calls_through_its_own(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    create(a)
    eventually(lambda: answers(a), "PONG")
    before = directory(a, "shop").stat().st_ino
    for name in ("shop", "proxy", "door"):
        a.docker("restart", "--time=10", name)
        eventually(lambda: answers(a), f"PONG after a restart of {name}")
    assert directory(a, "shop").stat().st_ino == before, "what the container has mounted"
    found = json.loads(a.docker("exec", "proxy", *hostlane(a, "status", "--json")))["door"]
    assert [(each["container"], each["caller"]) for each in found["sockets"] if each["service"] == "redis"] == [
        ("shop", "shop")
    ]


def hostlane(host: EngineHost, *words: str) -> list[str]:
    """A command of the proxy's own installation."""
    argv: list[str] = json.loads(host.docker("inspect", "--format={{json .Config.Cmd}}", "proxy"))
    command = argv[: argv.index("proxy")]
    return [*command, words[0], "--config", f"{host.files}/host.yaml", *words[1:]]


def test_the_next_container_of_that_name_has_the_directory(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    for _ in range(2):
        create(a)
        eventually(lambda: answers(a), "PONG")
        a.docker("rm", "--force", "shop")
    eventually(lambda: not os.path.lexists(directory(a, "shop")), "its end")


def test_nobody_comes_near_but_by_the_mount(empty: Hosts) -> None:
    a, b = empty
    start_server(b)
    create(a)
    eventually(lambda: answers(a), "PONG")
    create(a, "other")
    eventually(lambda: answers(a, "other"), "PONG")
    a.run("third", ["sleep", "infinity"], "--user=65534:65534", f"--volume={a.sockets}/services:{SERVICES}:ro")
    assert a.says("third", "ls", SERVICES) != ""
    assert a.says("third", "ls", f"{SERVICES}/containers") == ""
    assert not a.manages("exec", "third", "redis-cli", "-s", f"{SERVICES}/containers/shop/redis.sock", "ping")
