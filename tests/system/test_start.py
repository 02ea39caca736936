"""What keeps a proxy from starting is one clear line and exit code 2; what comes later is one clear line of the log."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.lab import Lab
from tests.system.world import World, hostlane
from tests.tools.process import Proxy
from tests.tools.servers import Listener
from tests.tools.sockets import dead_socket, ending_of, eventually, exchange, names

pytestmark = pytest.mark.netns


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hl-"))
    yield path
    shutil.rmtree(path)


def config(folder: Path, **sections: Any) -> dict[str, Any]:
    return {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": "10.77.0.1:7600", "security": "none"},
        "peers": {"host-b": {"address": "10.77.0.2:7600", "services": ["echo"]}},
        "upstreams": {"echo": {"listen": f"unix:{folder}/calls/echo.sock"}},
        "log": {"format": "json"},
        **sections,
    }


def refused(lab: Lab, folder: Path, wrong: dict[str, Any]) -> str:
    """The one line that a proxy leaves on stderr instead of starting; nothing else is left behind."""
    file = folder / "hostlane.yaml"
    file.write_text(json.dumps(wrong, indent=1))
    done = hostlane("proxy", "--config", str(file), host=lab.a)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


WRONG: dict[str, tuple[Callable[[Path], dict[str, Any]], list[str]]] = {
    "wrong key": (lambda folder: {"upstream": {}}, ["hostlane.yaml:", "upstream", "did you mean", "upstreams"]),
    "bad address": (
        lambda folder: {"links": {"listen": "10.77.0.300:7600", "security": "none"}},
        ["hostlane.yaml:", "links.listen", "10.77.0.300:7600"],
    ),
    "mtls without certificates": (
        lambda folder: {"links": {"listen": "10.77.0.1:7600"}},
        ["hostlane.yaml:", "links.tls: missing", "certificate, key, ca", "security: none"],
    ),
    "run_dir below a file": (lambda folder: {"run_dir": f"{folder}/file/run"}, ["/file", "not a directory"]),
    "socket below a file": (
        lambda folder: {"upstreams": {"echo": {"listen": f"unix:{folder}/file/echo.sock"}}},
        ["/file", "not a directory"],
    ),
    "a directory in the socket's place": (
        lambda folder: {"upstreams": {"echo": {"listen": f"unix:{folder}"}}},
        ["is a directory"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_start_says_so_in_one_line(lab: Lab, folder: Path, case: str) -> None:
    (folder / "file").write_text("in the way")
    sections, said = WRONG[case]
    line = refused(lab, folder, config(folder, **sections(folder)))
    assert [words for words in said if words.lower() not in line.lower()] == [], line
    assert (folder / "file").read_text() == "in the way"


def test_ports_in_use(lab: Lab, folder: Path) -> None:
    with Listener("tcp:10.77.0.1:7600", lab.a.socket()):
        line = refused(lab, folder, config(folder))
    assert "links.listen" in line
    assert "10.77.0.1:7600" in line
    assert "in use" in line
    with Listener("tcp:127.0.0.1:7700", lab.a.socket()):
        line = refused(lab, folder, config(folder, upstreams={"echo": {"listen": "tcp:127.0.0.1:7700"}}))
    assert "upstreams.echo.listen" in line
    assert "in use" in line
    assert names(folder / "run") == []


@pytest.mark.failure(15)
def test_a_socket_that_another_proxy_serves_is_left_alone(lab: Lab, folder: Path) -> None:
    with Proxy(config(folder, limits={"open_timeout": "100ms"}), folder, host=lab.a):
        line = refused(
            lab,
            folder,
            config(folder, run_dir=f"{folder}/other", links={"listen": "10.77.0.1:7601", "security": "none"}),
        )
        assert f"{folder}/calls/echo.sock" in line
        assert "echo.sock" in names(folder / "calls")
    assert names(folder / "other") == names(folder / "run") == names(folder / "calls") == []


@pytest.mark.failure(15)
def test_missing_directories_are_made_and_stale_sockets_replaced(lab: Lab, folder: Path) -> None:
    deep = folder / "not" / "there" / "yet"
    upstreams = {"echo": {"listen": f"unix:{deep}/echo.sock"}}
    with Proxy(config(folder, upstreams=upstreams), folder, host=lab.a):
        assert "echo.sock" in names(deep)
    assert names(deep) == []
    dead_socket(deep / "echo.sock")
    with Proxy(config(folder, upstreams=upstreams), folder, host=lab.a) as proxy:
        proxy.kill()
        assert "echo.sock" in names(deep)
        proxy.restart()
    assert names(deep) == []


def test_an_unreachable_peer_is_one_line_and_no_reason_not_to_start(lab: Lab, folder: Path) -> None:
    with Proxy(config(folder, log={"format": "json", "level": "debug"}), folder, host=lab.a) as proxy:
        proxy.wait_for("cannot reach peer", level="warning", peer="host-b", address="10.77.0.2:7600")
        proxy.wait_for("cannot reach peer", level="debug")
        assert len(proxy.events("cannot reach peer", level="warning")) == 1, "the same again is no news"
        done = hostlane("status", "--socket", f"{folder}/run/admin.sock")
        assert done.returncode == 1, "a peer that an upstream needs is down"
        assert "host-b" in done.stdout


def test_a_service_that_is_not_there_is_one_line_for_each_call(lab: Lab) -> None:
    with World(lab, echo=False) as world:
        for kind, why in (("unix", "No such file or directory"), ("tcp", "Connection refused")):
            assert ending_of(partial(world.call, kind)) == (b"", kind == "tcp")
            told = world.b.wait_for("stream ended", service=kind, reason="connect_failed", level="warning")
            assert told["detail"] == why
            world.a.wait_for("stream ended", service=kind, reason="connect_failed", level="warning")
        world.wait_until_idle()


def test_a_proxy_that_is_not_there(folder: Path) -> None:
    for what in ("status", "links", "streams"):
        done = hostlane(what, "--socket", f"{folder}/admin.sock")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.failure(11)
def test_a_stranger_and_a_wrong_host_get_no_link(lab: Lab, folder: Path) -> None:
    """host-b's address is taken by a host of another name: no stream reaches it."""
    with World(lab) as world:
        world.b.kill()
        world.b.file.write_text(world.b.file.read_text().replace('"host-b"', '"host-x"'))
        world.b.restart()
        world.a.wait_for("cannot reach peer", level="warning")
        eventually(
            lambda: (
                bool(world.a.events("cannot reach peer"))
                and "host" in str(world.a.events("cannot reach peer")[-1]["error"])
            ),
            "the dialler is told",
        )
        assert world.ask("a", "status")["peers"][0]["state"] != "up"
        world.b.kill()
        world.b.file.write_text(world.b.file.read_text().replace('"host-x"', '"host-b"'))
        world.b.restart()
        with world.call("unix") as client:
            exchange(client, b"the right host")
