"""The command line in a container that has the directory of a proxy's own sockets mounted read-only, and uid 0."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.mesh import HOSTLANE
from proxy.telemetry.admin import ONLY_TELLS
from tests.tools.mesh import Mesh
from tests.tools.namespaces import PID, USER, contained
from tests.tools.process import Process, Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import eventually, free_port

pytestmark = [
    pytest.mark.failure("21"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
]

GROUP = 65533
KINDS = pytest.mark.parametrize("kinds", [(PID,), (PID, USER), (USER,)], ids=["pid", "both", "user"])


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh("tcp:127.0.0.1:1") as running:
        yield running


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@KINDS
def test_a_container_ends_no_proxy_and_sees_nothing(mesh: Mesh, kinds: tuple[tuple[str, ...], ...]) -> None:
    place = ["--config", str(mesh.a.file)]
    for words in (["drain", "--now"], ["reload"], ["status"], ["streams", "--json"]):
        done = run(contained(mesh.folder, [*HOSTLANE, *words, *place], *kinds))
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert "the proxy refused: process " in line
        assert line.endswith("or any with admin.from: any")
    assert mesh.a.running
    done = run([*HOSTLANE, "status", *place])
    assert "draining" not in done.stdout
    assert "host-a" in done.stdout


@KINDS
def test_a_container_that_monitors(kinds: tuple[tuple[str, ...], ...]) -> None:
    """It has the directory of that socket mounted, and belongs to its group: it sees everything and ends nothing."""
    with Mesh("tcp:127.0.0.1:1", more={"telemetry": {"group": GROUP}}) as mesh:
        mesh.a.stop()
        config = json.loads(mesh.a.file.read_text())
        path = mesh.folder / "a-telemetry" / "status.sock"
        config["telemetry"]["socket"] = str(path)
        mesh.a.file.write_text(json.dumps(config))
        mesh.a.restart()
        mesh.folder.chmod(0o755)
        member = ["setpriv", "--reuid", "65532", "--regid", str(GROUP), "--clear-groups", "--"]
        stranger = ["setpriv", "--reuid", "65532", "--regid", "65534", "--clear-groups", "--"]
        if USER in kinds:
            member = stranger = []  # its root is mapped, and no other user
        for words in (["status"], ["links"], ["streams", "--json"], ["hosts"], ["services"], ["health"]):
            place = ["--socket", str(path)]
            done = run(contained(path.parent, [*member, *HOSTLANE, *words, *place], *kinds))
            assert (done.returncode, done.stderr) == (0, ""), words
            assert done.stdout
        for words in (["drain", "--now"], ["reload"]):
            done = run(contained(path.parent, [*member, *HOSTLANE, *words, "--socket", str(path)], *kinds))
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"hostlane: {path}: the proxy refused: {ONLY_TELLS}\n"
        if USER not in kinds:
            done = run(contained(path.parent, [*stranger, *HOSTLANE, "status", "--socket", str(path)], *kinds))
            assert done.returncode == 1
            assert done.stderr.endswith("permission denied; only the socket's owner and group may ask\n")
        assert mesh.a.running
        assert "draining" not in run([*HOSTLANE, "status", "--socket", str(path)]).stdout


CALLS = """
import socket, sys
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        try:
            sock.connect(path)
            sock.sendall(b"hello")
            print(sock.recv(5).decode())
        except OSError as error:
            print(type(error).__name__)
"""
ALONE = """set -e
mkdir "$2"/echo; mount --bind "$1"/echo "$2"/echo; mount -o remount,bind,ro "$2"/echo; mount --rbind "$2" "$1"; shift 2
exec "$@"
"""
"""Directories that serve, an empty one, command: run with nothing but the directory of echo mounted, read-only."""


def test_the_directory_of_one_upstream_mounted_alone() -> None:
    """Its container calls that service, if the socket's mode lets its user, and finds no other; also after a restart of
    the proxy, and after a reload that makes the directories.
    """
    with tempfile.TemporaryDirectory(prefix="hl-") as name, Echo("tcp:127.0.0.1:0") as echo:
        folder, services = Path(name), Path(name, "services")
        folder.chmod(0o755)
        config: dict[str, Any] = {
            "host": "host-a",
            "run_dir": f"{folder}/run",
            "socket_dir": str(services),
            "links": {"listen": f"127.0.0.1:{free_port()}", "security": "none"},
            "log": {"format": "json"},
            "services": {"echo": {"deliver": echo.address}, "web": {"deliver": echo.address}},
            "all_upstreams": {"mode": "0660", "group": GROUP},
        }
        paths = [f"{services}/{service}/{service}.sock" for service in ("echo", "web")]

        def called(group: int) -> list[str]:
            empty = tempfile.mkdtemp(dir=folder)
            os.chmod(empty, 0o755)
            user = ["setpriv", "--reuid", "65532", "--regid", str(group), "--clear-groups", "--"]
            mounted = ["unshare", "--mount", "sh", "-c", ALONE, "sh", str(services), empty]
            done = run([*mounted, *user, sys.executable, "-I", "-S", "-c", CALLS, *paths])
            assert done.stderr == ""
            return done.stdout.splitlines()

        with Proxy(config, folder) as proxy:
            assert sorted(path.name for path in services.glob("*.sock")) == ["echo.sock", "web.sock"]
            config["all_upstreams"]["layout"] = "directories"
            proxy.file.write_text(json.dumps(config))
            assert run([*HOSTLANE, "reload", "--config", str(proxy.file)]).returncode == 0
            assert list(services.glob("*.sock")) == []
            assert {stat.S_IMODE(Path(path).parent.stat().st_mode) for path in paths} == {0o755}
            assert {(stat.S_IMODE(Path(path).stat().st_mode), Path(path).stat().st_gid) for path in paths} == {
                (0o660, GROUP)
            }
            before = [Path(path).parent.stat().st_ino for path in paths]
            assert called(GROUP) == ["hello", "FileNotFoundError"]
            assert called(GROUP + 1) == ["PermissionError", "FileNotFoundError"]
            proxy.stop()
            assert [Path(path).parent.stat().st_ino for path in paths] == before, "containers have them mounted"
            proxy.restart()
            assert [Path(path).parent.stat().st_ino for path in paths] == before
            assert called(GROUP) == ["hello", "FileNotFoundError"]


@KINDS
def test_a_container_takes_no_proxys_place(mesh: Mesh, kinds: tuple[tuple[str, ...], ...]) -> None:
    words = ["proxy", "--takeover", "--config", str(mesh.a.file)]
    done = run(contained(mesh.folder, [*HOSTLANE, *words], *kinds))
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "cannot take over from the proxy behind " in line
    assert line.endswith("or any with takeover.from: any")
    assert mesh.a.running
    mesh.a.wait_for("proxy not handed over")
    assert not mesh.a.events("proxy handed over")


def test_in_its_own_container_a_proxy_takes_commands(mesh: Mesh) -> None:
    """`docker exec`: the namespaces are those of the proxy. From outside, it is another container's."""
    assert mesh.a.stop() == 0
    with Process(["unshare", "--mount", *PID, "--kill-child", "--", *mesh.a.argv]) as outside:
        outside.wait_for("proxy ready")
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        eventually(lambda: bool(children.read_text().split()), "the proxy")
        [inside] = children.read_text().split()
        ask = [*HOSTLANE, "status", "--config", str(mesh.a.file)]
        done = run(ask)
        assert (done.returncode, done.stdout) == (1, "")
        assert "the proxy refused: it comes from another pid namespace, such as a container's" in done.stderr
        within = ["nsenter", "--target", inside, "--mount", "--pid", "--"]
        done = run([*within, *ask])
        assert "host-a" in done.stdout
        done = run([*within, *HOSTLANE, "drain", "--now", "--config", str(mesh.a.file)])
        # The end of the proxy, the first process of its namespace, is that of all others there.
        assert "drained; no stream was cut" in done.stdout, done.stderr
        outside.wait()
