"""The command line in a container that has the directory of a proxy's own sockets mounted read-only, and uid 0."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo.mesh import HOSTLANE
from proxy.telemetry.admin import ONLY_TELLS
from tests.tools.mesh import Mesh
from tests.tools.namespaces import PID, USER, contained
from tests.tools.process import Process
from tests.tools.sockets import eventually

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
