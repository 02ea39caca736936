"""Containers that connect and close in a storm: others are served, and no call is lost, theirs included."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.world import ask
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import abort, connect, eventually, exchange, free_ports, parse

pytestmark = pytest.mark.failure("21b-c")

STORMS = 4
CALLS = 1500
"""Of each."""


def close(caller: socket.socket) -> None:
    caller.close()


def speak_and_close(caller: socket.socket) -> None:
    caller.sendall(b"one line of a log\n")
    caller.close()


class Hosts:
    """Two hosts. host-a calls ``storm`` and ``calm``, which host-b offers, and ``here``, which it offers itself."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        ports = dict(zip(("host-a", "host-b"), free_ports(2), strict=True))
        self.services = {name: stack.enter_context(Echo(f"unix:{folder}/{name}.service")) for name in SERVICES}
        self.listen = {name: f"unix:{folder}/{name}.sock" for name in SERVICES}
        self.listen["tcp"] = f"tcp:127.0.0.1:{free_ports(1)[0]}"
        offered = {
            "host-a": {"here": {"deliver": self.services["here"].address}},
            "host-b": {name: {"deliver": self.services[name].address} for name in ("storm", "tcp", "calm")},
        }
        for host in ("host-b", "host-a"):
            other = "host-a" if host == "host-b" else "host-b"
            config: dict[str, Any] = {
                "host": host,
                "run_dir": f"{folder}/{host}",
                "links": {"listen": f"127.0.0.1:{ports[host]}", "security": "none"},
                "peers": {other: {"address": f"127.0.0.1:{ports[other]}", "services": sorted({*offered[other]})}},
                "services": offered[host],
                "log": {"format": "json"},
            }
            if host == "host-a":
                config["upstreams"] = {name: {"listen": listen} for name, listen in self.listen.items()}
            (folder / f"{host}-files").mkdir()
            stack.enter_context(Proxy(config, folder / f"{host}-files"))
        self.admin = folder / "host-a" / "admin.sock"

    def held_back(self, service: str) -> str:
        [upstream] = [each for each in ask(self.admin, "status")["upstreams"] if each["service"] == service]
        return str(upstream["held_back"])


SERVICES = ("storm", "tcp", "calm", "here")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    with ExitStack() as stack:
        yield Hosts(folder, stack)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("service", "end"),
    [("storm", close), ("storm", speak_and_close), ("tcp", abort), ("here", close), ("here", speak_and_close)],
    ids=["close", "speak and close", "reset", "close, on one host", "speak and close, on one host"],
)
def test_others_are_served_beside_a_storm(hosts: Hosts, service: str, end: Callable[[socket.socket], None]) -> None:
    family, target = parse(hosts.listen[service])

    def storm() -> None:
        for _ in range(CALLS):
            caller = socket.socket(family)
            caller.connect(target)  # without a timeout: waits while the backlog is full
            end(caller)

    with connect(hosts.listen["calm"]) as steady:
        exchange(steady, b"before")
        threads = [threading.Thread(target=storm, daemon=True) for _ in range(STORMS)]
        for thread in threads:
            thread.start()
        number = 0
        while ask(hosts.admin, "status")["streams_opened"] < STORMS * CALLS:
            number += 1
            exchange(steady, b"message %d" % number)
            if number % 10 == 0:
                with connect(hosts.listen["calm"]) as caller:
                    exchange(caller, b"call %d" % number)
    assert hosts.held_back(service).startswith("callers close before they are answered: ")
    assert hosts.held_back("calm") == ""
    for thread in threads:
        thread.join()
    eventually(lambda: ask(hosts.admin, "status")["streams"] == 0, "the end of all calls")
    if end is not abort:  # a reset may overtake its call
        assert hosts.services[service].accepted == STORMS * CALLS
    for _ in range(64):
        with connect(hosts.listen[service]) as caller:
            exchange(caller, b"an honest one")
    assert hosts.held_back(service) == ""
