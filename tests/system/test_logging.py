"""A log that nobody reads, or that somebody fills: calls go on all the same."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proxy.demo.lab import Lab
from tests.system.fleet import Control
from tests.system.talk import Caller, Callers
from tests.system.world import World, hostlane
from tests.tools.servers import Echo
from tests.tools.sockets import connect, ending_of, eventually, read_exactly

pytestmark = [pytest.mark.netns, pytest.mark.failure("27")]

FAILING = 3000
"""Calls of a service that is not there; at level debug they fill the pipe and the queue several times over."""
AT_INFO = {"log": {"level": "info"}}


def fail(world: World, times: int) -> None:
    """Call the service that nobody serves."""
    for _ in range(times):
        ending_of(lambda: world.call("unix"))


def test_a_log_that_nobody_reads_stops_no_stream(lab: Lab) -> None:
    with World(lab, echo=False) as world, Echo(world.deliver("tcp"), world.server_socket("tcp")):
        with Callers(Caller(number, world.call("tcp")) for number in range(4)) as callers:
            callers.all_talk()
            with world.a.unread(), world.b.unread():
                fail(world, FAILING)
                callers.all_talk()
                for host in "ab":
                    assert world.ask(host, "status")["sessions"] == 1
            for proxy in (world.a, world.b):
                assert proxy.wait_for("log lines were lost", level="error")["lines"] > 0
            callers.all_talk()
        assert callers.endings() == {"stopped"}
        assert not world.a.events("link down")


def test_a_misbehaving_caller_gets_few_lines(lab: Lab) -> None:
    with World(lab, echo=False, more=AT_INFO) as world, Echo(world.deliver("tcp"), world.server_socket("tcp")):
        with Callers([Caller(0, world.call("tcp"))]) as callers:
            fail(world, FAILING)
            callers.all_talk()
        failed = {host: world.ask(host, "status")["streams_refused"] for host in "ab"}
        world.a.stop()
        world.b.stop()
        for host, proxy in (("a", world.a), ("b", world.b)):
            lines = proxy.events("stream ended", service="unix")
            assert sum(entry.get("more", 1) for entry in lines) == failed[host]
            assert len(proxy.log) < 60, "some lines a minute and kind"


@pytest.mark.parametrize("host", ["a", "b"])
def test_an_end_does_not_wait_for_a_reader(lab: Lab, host: str) -> None:
    with World(lab, echo=False) as world:
        proxy = getattr(world, host)
        with proxy.unread():
            fail(world, FAILING)
            os.kill(proxy.pid, signal.SIGTERM)
            eventually(lambda: not proxy.running, "its end")
        assert proxy.wait() == 0


def test_lines_under_way_are_written_at_a_clean_end(lab: Lab) -> None:
    with World(lab, echo=False) as world:
        fail(world, 20)
        assert world.a.stop() == 0
        assert world.a.log[-1]["event"] == "proxy stopped"
        assert len(world.a.events("stream ended", service="unix")) == 20


def test_a_control_server_goes_on_too(lab: Lab) -> None:
    """Each request that it refuses is a line at level debug."""
    with TemporaryDirectory(prefix="hl-") as folder:
        file = Path(folder, "control.yaml")
        config = {
            "name": "control-1",
            "listen": f"{lab.a.address}:7601",
            "state_dir": f"{folder}/state",
            "run_dir": f"{folder}/run",
            "log": {"level": "debug", "format": "json"},
        }
        file.write_text(json.dumps(config))
        made = hostlane("control", "init", "--config", str(file), host=lab.a)
        assert made.returncode == 0, made.stderr
        with Control(file, host=lab.a) as control:
            control.ready()
            with control.unread():
                with connect(Path(folder, "run", "control.sock")) as client:
                    for _ in range(FAILING):
                        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: control\r\n\r\n")
                        assert b" 404 " in answer(client)
                    client.sendall(b"GET /v1/health HTTP/1.1\r\nHost: control\r\n\r\n")
                    assert b" 200 " in answer(client)
            assert control.wait_for("log lines were lost", level="error")["lines"] > 0


def answer(client: socket.socket) -> bytes:
    """One answer: its head, when its body has come too."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += client.recv(1)
    length = next(int(line[15:]) for line in found.lower().splitlines() if line.startswith(b"content-length:"))
    read_exactly(client, length)
    return found
