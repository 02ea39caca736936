"""The demo's control server: what its file says, whom it lets in, and how it fails in one line."""

from __future__ import annotations

import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.server import config
from proxy.demo import controlserver
from proxy.demo.controlserver import ControlServer
from proxy.demo.loopback import Loopback
from proxy.demo.mesh import DemoProxy
from proxy.demo.processes import DemoError
from proxy.demo.setup import free_ports


@pytest.fixture
def machine() -> Iterator[Loopback]:
    with Loopback() as machine:
        yield machine


@pytest.fixture
def server(machine: Loopback) -> Iterator[ControlServer]:
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        (port,) = free_ports(1)
        server = ControlServer(machine.a, port, Path(folder))
        server.file.write_text(server.configuration())
        yield server


def test_it_keeps_everything_in_its_folder(server: ControlServer) -> None:
    found = config.load(server.file)
    assert server.address == f"127.0.0.1:{found.listen.port}"
    for path in (found.run_dir, found.state_dir, found.store_file):
        assert path is not None
        assert path.startswith(f"{server.folder}/")


def test_a_host_is_let_in(machine: Loopback, server: ControlServer) -> None:
    assert "next: hostlane control --config control.yaml\n" in server.init()
    server.start().check()
    end = DemoProxy(machine.b, 7600, server.folder / "b")
    server.let_in(end)
    assert end.token.read_text().startswith("hostlane1.")
    assert stat.S_IMODE(end.token.stat().st_mode) == 0o600
    assert server.show("hosts").split()[:2] == ["host", "address"]


def test_one_that_ends(server: ControlServer) -> None:
    with pytest.raises(DemoError, match=r"the control server ended \(exit code 2\): .*hostlane control init"):
        server.start()


def test_one_that_does_not_listen(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlserver, "HOSTLANE", [sys.executable, "-c", "import signal; signal.pause()"])
    monkeypatch.setattr(controlserver, "READY_S", 0.1)
    with pytest.raises(DemoError, match=r"the control server did not listen at .*control.sock within 0 s"):
        server.start()
