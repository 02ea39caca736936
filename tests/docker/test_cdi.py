"""Containers that wait for the door, on an engine that knows CDI (Docker 26.1)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.cdi.spec import DEVICE
from proxy.demo.lab import Lab
from proxy.demo.mesh import HOSTLANE
from tests.docker import programs
from tests.docker.engines import IMAGE, EngineHost
from tests.tools.compiled import CONNECT_FIRST, compiled
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

USE = {"hostlane.use": "redis@127.77.0.2:6379"}
STARTS = 100


class CdiHost(EngineHost):
    """A host whose engine looks for CDI files in `cdi`; the door's socket is in `reports`."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.cdi, self.reports = folder / "cdi", folder / "sockets" / "cdi"
        settings = {"features": {"cdi": True}, "cdi-spec-dirs": [str(self.cdi)]}
        super().__init__(lab.a, folder, programs=programs.engine(), settings=settings)
        for made, mode, uid in ((self.cdi, 0o755, 0), (self.sockets / "door", 0o750, 0), (self.reports, 0o700, 0)):
            made.mkdir(mode=mode)
            os.chown(made, uid, 7600)
        config = {
            "host": "host-a",
            "links": {"listen": f"{lab.a.address}:7600", "security": "none"},
            "door": {"engine": "/run/engine/docker.sock", "cdi": "/run/hostlane-cdi"},
        }
        (self.files / "host.yaml").write_text(json.dumps(config))
        compiled(CONNECT_FIRST, self.files / "connectfirst", "-static")
        subprocess.run(self.inside(["mkdir", "-p", f"{self.state}/exec/netns"]), check=True)

    def door(self) -> None:
        """Start the door, and wait until it is there."""
        self.hostlane(
            "door", "door", "--user=0:7600", "--cap-add=SYS_ADMIN", "--cap-add=NET_BIND_SERVICE",
            f"--volume={self.sockets}:/run/engine:ro", f"--volume={self.state}/exec/netns:/run/docker/netns:ro,rslave",
            f"--volume={self.reports}:/run/hostlane-cdi",
        )  # fmt: skip
        eventually(lambda: self.said("door", "following the engine"), "the door")

    def cdi_command(self, *words: str) -> str:
        """What `hostlane cdi` says."""
        argv = [*HOSTLANE, "cdi", *words, f"--directory={self.cdi}"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def first(self, name: str, *options: str, device: bool = True) -> str:
        """Start the program that connects first thing."""
        argv = ["/app/connectfirst", "127.77.0.2", "6379", "stay"]
        given = [f"--device={DEVICE}"] if device else []
        return self.run(name, argv, f"--volume={self.files}:/app:ro", *given, *options, labels=USE)

    def compose(self, *words: str) -> None:
        """As `docker compose`."""
        plugin = f"{programs.engine()}/usr/libexec/docker/cli-plugins/docker-compose"
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.sockets}/docker.sock"}
        done = subprocess.run([plugin, *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def connected(self, name: str) -> list[str]:
        """What it has said, at each of its starts."""
        return self.docker("logs", name).split()


@pytest.fixture(scope="module")
def made() -> Iterator[CdiHost]:
    folder = Path(tempfile.mkdtemp(prefix="hl-cdi-"))
    try:
        with Lab() as lab:
            host = CdiHost(lab, folder / "a")
            try:
                yield host
            finally:
                host.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def host(made: CdiHost) -> Iterator[CdiHost]:
    """With hook and door, without the containers of other tests."""
    made.cdi_command("install", f"--door={made.reports}")
    made.door()
    yield made
    if ids := made.docker("ps", "--all", "--quiet").split():
        made.docker("rm", "--force", *ids)


def test_none_of_a_hundred_starts_is_refused(
    host: CdiHost, record_testsuite_property: Callable[[str, object], None]
) -> None:
    said: dict[bool, list[str]] = {True: [], False: []}
    for number in range(STARTS):
        name = f"first{number}"
        host.first(name)
        eventually(lambda name=name: host.connected(name), "its first word")
        said[True] += host.connected(name)
        host.docker("rm", "--force", name)
    for number in range(20):  # by labels alone
        name = f"bare{number}"
        host.first(name, device=False)
        eventually(lambda name=name: host.connected(name), "its first word")
        said[False] += host.connected(name)
        host.docker("rm", "--force", name)
    refused = said[False].count("ECONNREFUSED")
    record_testsuite_property("refused without the hook", f"{refused} of 20")  # they may be, and need not
    assert said[True] == ["connected"] * STARTS


def test_restarts_and_crashes(host: CdiHost) -> None:
    host.first("first", "--restart=always")
    for number in range(1, 11):
        eventually(lambda number=number: len(host.connected("first")) == number, "its word")
        if number % 2:
            host.docker("restart", "--time=0", "first")
        else:
            pid = host.docker("inspect", "--format={{.State.Pid}}", "first")
            subprocess.run(["kill", "-9", pid], check=True)
    eventually(lambda: len(host.connected("first")) == 11, "its last word")
    assert host.connected("first") == ["connected"] * 11


def test_nothing_is_left(host: CdiHost) -> None:
    counts = []
    for lives in (3, 12):
        for number in range(lives):
            host.first(f"first{number}")
            host.docker("rm", "--force", f"first{number}")
        counts.append(len(host.docker("exec", "door", "ls", "/proc/1/fd").split()))
    assert counts[1] <= counts[0], counts


def test_the_door_is_away(host: CdiHost) -> None:
    host.docker("kill", "door")
    host.first("open")
    eventually(lambda: host.connected("open"), "its word")
    assert host.connected("open") == ["ECONNREFUSED"]
    host.cdi_command("install", "--strict", f"--door={host.reports}")
    with pytest.raises(AssertionError, match=r"the door is away \(.*hook.sock.*; it is not started, as the device"):
        host.first("strict")
    host.docker("rm", "strict")
    host.docker("start", "door")
    eventually(lambda: host.said("door", "following the engine"), "the door")
    host.first("strict")
    eventually(lambda: host.connected("strict"), "its word")
    assert host.connected("strict") == ["connected"]


def test_what_is_wrong_with_a_label_is_said_by_the_engine(host: CdiHost) -> None:
    host.cdi_command("install", "--strict", f"--door={host.reports}")
    with pytest.raises(AssertionError, match=r"hostlane\.use: found .redis.; allowed: SERVICE@127"):
        host.run("wrong", ["true"], f"--device={DEVICE}", labels={"hostlane.use": "redis"})
    with pytest.raises(AssertionError, match="its network is the host's"):
        host.first("shared", "--network=host")


def test_another_door(host: CdiHost) -> None:
    """What a container has that was handed over to the door before goes on, and ends with it."""
    host.first("first")
    host.docker("restart", "--time=1", "door")
    entered = {"event": "container entered", "container": "first"}
    eventually(lambda: [entered.items() <= each.items() for each in host.log("door")].count(True) == 2, "the container")
    host.docker("restart", "--time=0", "first")
    eventually(lambda: len(host.connected("first")) == 2, "its word")
    assert host.connected("first") == ["connected"] * 2


def test_the_device_stays_while_a_container_names_it(host: CdiHost) -> None:
    host.first("first")
    engine = f"--engine={host.sockets}/docker.sock"
    assert "stays, without hooks: named by first" in host.cdi_command("remove", engine)
    host.docker("restart", "--time=0", "first")
    host.cdi_command("remove", "--purge", engine)
    with pytest.raises(AssertionError, match="CDI"):
        host.docker("restart", "--time=0", "first")
    assert list(host.cdi.iterdir()) == []


def test_compose(host: CdiHost) -> None:
    """As docs/containers.md has it."""
    devices = [{"driver": "cdi", "device_ids": [DEVICE], "capabilities": []}]
    service = {
        "image": IMAGE,
        "network_mode": "none",
        "labels": USE,
        "command": ["/app/connectfirst", "127.77.0.2", "6379", "stay"],
        "volumes": [f"{host.files}:/app:ro"],
        "deploy": {"resources": {"reservations": {"devices": devices}}},
    }
    file = host.files / "compose.yaml"
    file.write_text(json.dumps({"name": "cdi", "services": {"first": service}}))
    host.compose("--file", str(file), "up", "--detach")
    eventually(lambda: host.connected("cdi-first-1"), "its word")
    assert host.connected("cdi-first-1") == ["connected"]
