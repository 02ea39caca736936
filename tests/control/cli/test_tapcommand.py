"""`hostlane tap`, typed, at proxies in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from control.cli.answers import schema_of
from proxy.demo.mesh import HOSTLANE
from tests.control.cli.conftest import Proxy
from tests.tools.mesh import SERVICE, Mesh
from tests.tools.servers import Echo
from tests.tools.sockets import PATIENCE, eventually


class Tap:
    """The command, and what it has printed so far."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [*HOSTLANE, "tap", *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **environment},
            )  # fmt: skip

    @property
    def out(self) -> list[str]:
        return [line for line in self._out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def err(self) -> list[str]:
        return self._err.read_text().splitlines()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out]

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@contextmanager
def tap(*arguments: str, **environment: str) -> Iterator[Tap]:
    with tempfile.TemporaryDirectory() as folder:
        found = Tap(Path(folder), *arguments, **environment)
        try:
            yield found
        finally:
            found.process.kill()
            found.process.wait()


def converse(mesh: Mesh) -> None:
    with mesh.call() as caller:
        caller.sendall(b"hello")
        assert caller.recv(5) == b"hello"
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(1) == b""


def until_seen(mesh: Mesh, found: Tap, lines: int) -> None:
    """Call until the command has printed so many lines: it says nothing when it begins to watch."""

    def called() -> bool:
        assert found.process.poll() is None, found.err
        converse(mesh)
        return len(found.out) >= lines

    eventually(called, "lines")


def test_streams_as_they_open_and_end_and_a_proxy_that_is_started_again() -> None:
    with Echo("tcp:127.0.0.1:0") as service, Mesh(service.address) as mesh:
        at = ["--socket", f"{mesh.folder}/a/run/admin.sock"]
        with (
            tap(SERVICE, "--json", *at) as found,
            tap(SERVICE, *at, COLUMNS="80", TTY_COMPATIBLE="1", TERM="dumb") as narrow,
            tap(SERVICE, "--failed", *at) as failed,
        ):
            eventually(lambda: failed.out, "its head, when it hears the proxy")
            head = list(failed.out)
            until_seen(mesh, found, 4)
            for line in found.lines:
                jsonschema.validate(line, schema_of("tap"))
            assert {line["event"] for line in found.lines} == {"opened", "ended"}
            assert {line["pid"] for line in found.lines if line["open_ms"] is not None} == {os.getpid()}
            until_seen(mesh, narrow, 6)
            assert narrow.out[0].startswith("no room for: ")
            assert max(map(len, narrow.out)) <= 81
            for again in (mesh.a.stop, mesh.a.kill):
                again()
                eventually(lambda: found.err and narrow.err and failed.err, "that it waits")
                assert found.err[-1].rstrip().endswith("; waiting for it")
                mesh.a.start()
                mesh.a.wait_for("proxy ready")
                seen = len(found.out)
                until_seen(mesh, found, seen + 2)
                until_seen(mesh, narrow, len(narrow.out) + 2)
            assert len(found.err) == 2, "one line for each time"
            assert failed.out == head
            assert [each.end() for each in (found, narrow, failed)] == [0, 0, 0]


def test_nobody_to_begin_with(tmp_path: Path) -> None:
    with tap("redis", "--socket", str(tmp_path / "none.sock")) as found:
        assert found.process.wait(PATIENCE) == 1
        assert found.err == [f"hostlane: {tmp_path}/none.sock: no such socket; is the proxy running?"]


def test_a_service_that_this_host_knows_nothing_of(proxy: Proxy) -> None:
    proxy.answers.update({"/services": []})
    with tap("redis", "--socket", proxy.path) as found:
        assert found.process.wait(PATIENCE) == 1
        assert found.err[0] == "hostlane: this host neither calls nor offers redis (it does: none)"


@pytest.mark.parametrize("wrong", [[], ["a", "b"], ["a", "--direction", "up"]])
def test_usage(wrong: list[str]) -> None:
    with tap(*wrong) as found:
        assert found.process.wait(PATIENCE) == 2
