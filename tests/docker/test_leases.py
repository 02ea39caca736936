"""Addresses that a control plane leases for containers with `hostlane.attach`, on compose/host.yaml as it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from proxy.demo.lab import CABLE
from tests.docker.composed import ComposeHost, compose_hosts
from tests.docker.engines import EngineHost
from tests.tools.sockets import PATIENCE, eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

SEGMENTS = "segments: {lan: {pool: 10.77.0.0/24, reserved: [10.77.0.0/25]}}\n"
LABELS = {"hostlane.attach": CABLE}
NAME = "host-c"


@pytest.fixture(scope="module")
def host() -> Iterator[ComposeHost]:
    """B, where containers are attached; the control server is on A."""
    with compose_hosts() as (a, b):
        file = a.folder / "compose/control/control.yaml"
        file.write_text(f"{file.read_text()}{SEGMENTS}")
        a.compose("control.yaml", "up", "--detach")
        a.healthy("hostlane-control-control-1")
        token = ["hostlane", "token", "create", "--host", NAME, "--config", "/etc/hostlane/control.yaml"]
        (b.folder / "compose/etc/token").write_text(a.compose("control.yaml", "exec", "-T", "control", *token))
        given = {
            "HOSTLANE_HOST": NAME, "PARENT": CABLE, "ENGINE_DIRECTORY": str(b.engine.sockets),
            "ENGINE_NETNS": f"{b.engine.state}/exec/netns",
        }  # fmt: skip
        b.engine.host_run("mkdir", "-p", given["ENGINE_NETNS"])
        b.compose("host.yaml", "--profile", "door", "up", "--detach", **given)
        eventually(lambda: b.engine.said("hostlane-proxy", "joined the mesh"), f"the join{b.logs()}", 3 * PATIENCE)
        yield b


def address(host: EngineHost, name: str) -> str:
    """Of the container's own interface; empty: it has none yet."""
    pid = host.docker("inspect", "--format={{.State.Pid}}", name)
    said = host.host_run("nsenter", f"--target={pid}", "--net", "ip", "-j", "addr")
    found = [each["local"] for item in json.loads(said) for each in item["addr_info"] if each["family"] == "inet"]
    return next((each for each in found if not each.startswith("127.")), "")


def leases(host: EngineHost) -> list[str]:
    """Files of containers' leases."""
    folder = "/var/lib/hostlane/addresses"
    said = host.docker("exec", "hostlane-proxy", "sh", "-c", f"ls {folder} 2>/dev/null || true")
    return [name.partition("@")[2].partition(":")[0] for name in said.split()]


def attached(host: ComposeHost, name: str) -> str:
    eventually(lambda: address(host.engine, name), f"its address{host.logs()}", 3 * PATIENCE)
    return address(host.engine, name)


def test_addresses_are_leased_kept_and_given_back(host: ComposeHost) -> None:
    engine = host.engine
    for name in ("web", "other"):
        engine.run(name, ["sleep", "infinity"], labels=LABELS)
    first, other = attached(host, "web"), attached(host, "other")
    assert first != other
    engine.docker("restart", "--time=1", "web")
    eventually(lambda: address(engine, "web") == first, "the same address after a restart", 3 * PATIENCE)
    engine.docker("rm", "--force", "web")
    engine.run("web", ["sleep", "infinity"], labels=LABELS)
    eventually(lambda: address(engine, "web") == first, "the same address for the next of its name", 3 * PATIENCE)
    engine.docker("rename", "web", "renamed")
    engine.docker("rm", "--force", "other")
    eventually(lambda: leases(engine) == ["web"], f"other's is given back{host.logs()}", 3 * PATIENCE)
    assert address(engine, "renamed") == first
    engine.docker("rm", "--force", "renamed")
    eventually(lambda: leases(engine) == [], "web's, too", 3 * PATIENCE)
    assert not engine.said("hostlane-attach-1", "an address is not given back yet")
