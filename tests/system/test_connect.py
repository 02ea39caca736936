"""The CONNECT socket with clients that people have: the examples of docs/connect.md, a reload, an upgrade."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.lab import Lab, LabHost
from tests.system.world import World, hostlane
from tests.tools.process import Process
from tests.tools.servers import Listener
from tests.tools.sockets import eventually

pytestmark = pytest.mark.netns

DOC = (Path(__file__).resolve().parents[2] / "docs" / "connect.md").read_text()
SHELL = re.findall(r"^```sh\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
PYTHON = re.findall(r"^```python\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
TCP = {"listen": "tcp:127.0.0.1:7680", "services": "all"}
WEB = "hello from the web\n"


class _Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(WEB)))
        self.end_headers()
        self.wfile.write(WEB.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nowhere."""


@contextmanager
def web(world: World) -> Iterator[None]:
    """An HTTP server behind the service ``tcp``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Web, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = Listener(world.deliver("tcp"), world.server_socket("tcp")).sock
        server.socket.settimeout(None)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def world_of(lab: Lab, connect: dict[str, Any]) -> World:
    return World(lab, echo=False, more={"connect": connect})


def run(host: LabHost, *argv: str) -> str:
    done = subprocess.run(host.command(argv), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(example: str) -> str:
    """The examples call services by names that people have; here they are called after the kinds of their sockets."""
    return (
        re.sub(r"\bweb/", "tcp/", example)
        .replace('set_tunnel("web")', 'set_tunnel("tcp")')
        .replace('connect("redis")', 'connect("unix")')
    )


def test_the_shell_examples(lab: Lab) -> None:
    with world_of(lab, TCP) as world, web(world):
        [fetch, gone] = SHELL
        assert run(lab.a, "sh", "-c", named(fetch)) == WEB
        assert run(lab.a, "sh", "-c", gone) == "404\n"


def test_the_python_example_for_http(lab: Lab) -> None:
    with world_of(lab, TCP) as world, web(world):
        assert run(lab.a, sys.executable, "-c", named(PYTHON[0])) == WEB + "\n"


def test_the_python_example_for_other_protocols(lab: Lab) -> None:
    with World(lab, echo=False) as world:
        path = f"{world.folder}/a/connect.sock"
        config = json.loads(world.a.file.read_text())
        world.a.file.write_text(json.dumps({**config, "connect": {"listen": f"unix:{path}", "services": ["unix"]}}))
        socket = f"{config['run_dir']}/admin.sock"
        done = hostlane("reload", "--socket", socket)
        assert (done.returncode, "connect" in done.stdout) == (0, True), done
        with Listener(world.deliver("unix"), world.server_socket("unix")) as redis:

            def answer() -> None:
                with redis.accept() as accepted:
                    assert accepted.recv(100) == b"PING\r\n"
                    accepted.sendall(b"+PONG\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            example = named(PYTHON[1]).replace("/run/hostlane-services/connect.sock", path)
            assert run(lab.a, sys.executable, "-c", example) == "+PONG\n\n"  # as text
            thread.join()
        [row] = [line for line in hostlane("status", "--socket", socket).stdout.splitlines() if path in line]
        assert row.split()[-2:] == ["unix", "0"]


@pytest.mark.failure(10)
def test_an_upgrade_while_curl_calls(lab: Lab) -> None:
    with world_of(lab, TCP) as world, web(world):
        loop = f"for i in $(seq 60); do {named(SHELL[0]).strip()} || exit 1; done"
        with Process(["sh", "-c", loop], host=lab.a) as calls:
            eventually(lambda: len(calls.log) > 5, "some calls")
            with Process([*world.a.argv, "--takeover"], host=lab.a) as new:
                new.wait_for("proxy taken over")
                assert calls.wait() == 0, calls.text()
                assert [entry["text"] for entry in calls.log] == [WEB.strip()] * 60
                assert world.a.wait() == 0
            calls.log.clear()
