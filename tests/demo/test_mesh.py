"""The demo's configuration files are ones that `hostlane validate` accepts; its status reader fails in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.config import schema as config
from proxy.demo import mesh
from proxy.demo.lab import Lab
from proxy.demo.loopback import Loopback
from proxy.demo.mesh import DemoProxy
from proxy.demo.processes import DemoError


@pytest.fixture
def ends(tmp_path: Path) -> tuple[DemoProxy, DemoProxy]:
    machine = Loopback()
    return DemoProxy(machine.a, 7600, tmp_path / "a"), DemoProxy(machine.b, 7601, tmp_path / "b")


def test_configurations_are_valid_and_name_no_other_host(ends: tuple[DemoProxy, DemoProxy], tmp_path: Path) -> None:
    near, far = ends
    calls = config.parse(mesh.configuration(near, "127.0.0.1:7602"), "a.yaml")
    offers = config.parse(mesh.configuration(far, "127.0.0.1:7602", offers=tmp_path / "s.sock"), "b.yaml")
    assert (calls.host, offers.host) == ("host-a", "host-b")
    assert calls.all_upstreams is not None
    assert str(offers.services["redis"].deliver) == f"unix:{tmp_path}/s.sock"
    for end, found in ((near, calls), (far, offers)):
        assert (found.links.security, found.peers) == ("mtls", {}), "nobody is named, everybody is proved"
        assert found.control is not None
        assert [server.hostport for server in found.control.servers] == ["127.0.0.1:7602"]
        assert found.control.token_file == str(end.token)


def test_a_host_that_makes_its_interfaces(tmp_path: Path) -> None:
    lab = Lab()
    near = DemoProxy(lab.a, 7600, tmp_path / "a")
    found = config.parse(mesh.configuration(near, "10.77.0.1:7601"), "host-a.yaml").interfaces["mv0"]
    assert (found.parent, [str(item) for item in found.addresses]) == ("cable0", ["10.77.0.1/24"])
    assert near.file == tmp_path / "host-a.yaml"


def test_hostlane_runs_from_this_installation() -> None:
    shown = subprocess.run([*mesh.HOSTLANE, "--help"], capture_output=True, text=True, check=True).stdout
    assert "proxy" in shown


def fake(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(mesh, "HOSTLANE", [sys.executable, "-c", script])


def test_status(monkeypatch: pytest.MonkeyPatch, ends: tuple[DemoProxy, DemoProxy]) -> None:
    fake(monkeypatch, "import sys; print('{\"handshakes_avoided\": 7}'); assert '--json' in sys.argv; sys.exit(1)")
    found: dict[str, Any] = mesh.status(ends[0])
    assert found == {"handshakes_avoided": 7}, "a peer that is down (exit code 1) is no reason to say nothing"


def test_explain(monkeypatch: pytest.MonkeyPatch, ends: tuple[DemoProxy, DemoProxy]) -> None:
    fake(monkeypatch, "import sys; print(' '.join(sys.argv[1:3] + sys.argv[5:]))")
    assert mesh.explain(ends[0], "redis", ["--to", "10.0.0.1"]) == "explain redis --to 10.0.0.1\n"
    fake(monkeypatch, "import sys; sys.exit('no proxy\\nanswers')")
    with pytest.raises(DemoError, match="hostlane explain redis on host-a failed: no proxy answers"):
        mesh.explain(ends[0], "redis", [])


def test_make_interfaces(monkeypatch: pytest.MonkeyPatch, ends: tuple[DemoProxy, DemoProxy]) -> None:
    fake(monkeypatch, "import sys; print(*sys.argv[1:])")
    assert mesh.make_interfaces(ends[0]) == "net apply --config host-a.yaml\n"
    fake(monkeypatch, "import sys; sys.exit('hostlane: cable0 is not here')")
    with pytest.raises(DemoError, match="hostlane net apply on host-a failed: hostlane: cable0 is not here"):
        mesh.make_interfaces(ends[0])


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch, ends: tuple[DemoProxy, DemoProxy]) -> None:
    fake(monkeypatch, "import signal; signal.pause()")
    monkeypatch.setattr(mesh, "PATIENCE_S", 0.1)
    with pytest.raises(DemoError, match=r"hostlane net apply on host-a did not end within 0.1 s"):
        mesh.make_interfaces(ends[0])


@pytest.mark.parametrize("script", ["import sys; sys.exit('no proxy\\nanswers')", "print('[]')", "print('{')"])
def test_status_that_says_nothing_useful(
    monkeypatch: pytest.MonkeyPatch, ends: tuple[DemoProxy, DemoProxy], script: str
) -> None:
    fake(monkeypatch, script)
    with pytest.raises(DemoError, match="hostlane status of host-a") as caught:
        mesh.status(ends[0])
    assert "\n" not in str(caught.value)
