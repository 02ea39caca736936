"""The image as a user gets it: what is in it, what it costs, as whom it runs, how soon it is there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engines import EngineHost
from tests.docker.images import BASE, IMAGE, build, builder, built, import_base
from tests.docker.programs import engine
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

MOST = 60_000_000
"""Bytes above the base."""
TOOLS = "pip pip3 wheel gcc cc c++ make as ld cython cythonize"
MODULES = "pip setuptools pkg_resources wheel ensurepip Cython"
CONFIG = {"host": "host-a", "links": {"listen": "127.0.0.1:7600", "security": "none"}}
ALONE = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
RUN_DIR = "--tmpfs=/run/hostlane:uid=7600,gid=7600,mode=0700"


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    """An engine that has the image, and what it was made of."""
    folder = Path(tempfile.mkdtemp(prefix="hl-image-"))
    made = EngineHost(None, folder / "e", programs=engine())
    try:
        made.docker("load", "--quiet", f"--input={built()}")
        import_base(made)
        (made.files / "hostlane.yaml").write_text(json.dumps(CONFIG))
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def inside(host: EngineHost, script: str) -> str:
    return host.docker("run", "--rm", *ALONE, "--entrypoint=sh", IMAGE, "-c", script)


def test_it_adds_little_to_its_base(host: EngineHost) -> None:
    sizes = [int(host.docker("image", "inspect", "--format={{.Size}}", name)) for name in (IMAGE, BASE)]
    assert sizes[0] - sizes[1] <= MOST


def test_the_core_is_compiled(host: EngineHost) -> None:
    assert "core: compiled" in host.docker("run", "--rm", *ALONE, IMAGE, "--version")


def test_it_can_build_and_install_nothing(host: EngineHost) -> None:
    assert inside(host, f"for each in {TOOLS}; do command -v $each; done; true") == ""
    for python in ("/opt/hostlane/bin/python3", "python3"):
        found = f"import importlib.util as u; print([m for m in '{MODULES}'.split() if u.find_spec(m)])"
        assert inside(host, f'{python} -c "{found}"') == "[]"


def test_it_has_one_command_of_ours_and_no_other(host: EngineHost) -> None:
    assert inside(host, "find /opt/hostlane/bin -type f") == "/opt/hostlane/bin/hostlane"
    assert inside(host, "find /opt/hostlane -name tests -o -name _tests") == ""


def test_its_user_is_a_number_and_may_write_nowhere_else(host: EngineHost) -> None:
    assert host.docker("image", "inspect", "--format={{.Config.User}}", IMAGE) == "7600:7600"
    assert inside(host, "id -u; id -g; cat /proc/self/status | grep CapEff").split() == [
        "7600", "7600", "CapEff:", "0000000000000000",
    ]  # fmt: skip
    assert inside(host, "find /opt /usr /etc -writable ! -type l | head") == ""


def test_its_labels(host: EngineHost) -> None:
    labels = json.loads(host.docker("image", "inspect", "--format={{json .Config.Labels}}", IMAGE))
    assert labels["org.opencontainers.image.base.name"] == BASE
    assert labels["org.opencontainers.image.version"] in host.docker("run", "--rm", *ALONE, IMAGE, "--version")


def test_a_proxy_runs_on_a_root_that_it_cannot_write(host: EngineHost) -> None:
    mount = f"--volume={host.files}:/etc/hostlane:ro"
    host.docker("run", "--detach", "--name=proxy", *ALONE, RUN_DIR, mount, "--health-interval=1s", IMAGE)
    try:
        eventually(lambda: host.said("proxy", "proxy ready"), "the proxy")
        state = "--format={{.State.Health.Status}}"
        eventually(lambda: host.docker("inspect", state, "proxy") == "healthy", "its health")
        host.docker("stop", "proxy")
        assert host.docker("inspect", "--format={{.State.ExitCode}}", "proxy") == "0"
    finally:
        host.docker("rm", "--force", "proxy")


def test_every_part_of_hostlane_is_in_it(host: EngineHost) -> None:
    for command in ("proxy", "door", "control", "status", "net"):
        assert "Usage: hostlane" in host.docker("run", "--rm", *ALONE, IMAGE, command, "--help")


def test_the_builder_of_the_installed_engine_builds_it() -> None:
    """Whatever is installed: Docker 20.10 of Debian 12. Without a compiler, as that takes a minute more."""
    with builder(None) as host:
        build(host, "--build-arg=HOSTLANE_COMPILE=never")
        assert "core: python" in host.docker("run", "--rm", *ALONE, IMAGE, "--version")
