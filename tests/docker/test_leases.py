"""compose/host.yaml as it stands, in a mesh with a control plane: addresses that it leases for containers with
`hostlane.attach`, and an upgrade that cuts no stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from proxy.demo.lab import CABLE
from tests.docker.composed import ComposeHost, compose_hosts
from tests.docker.engines import EngineHost
from tests.docker.traffic import Traffic, start_server
from tests.tools.sockets import PATIENCE, eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

SEGMENTS = "segments: {lan: {pool: 10.77.0.0/24, reserved: [10.77.0.0/25]}}\n"
UPSTREAMS = "upstreams: {redis: {listen: 'unix:/run/hostlane-services/redis.sock'}}\n"
"""Unix sockets of the proxy's, which live on in its namespace when its container has ended."""
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
        with (b.folder / f"compose/etc/{NAME}.yaml").open("a") as config:
            config.write(UPSTREAMS)
        (b.folder / "compose/etc/token").write_text(a.compose("control.yaml", "exec", "-T", "control", *token))
        b.engine.host_run("mkdir", "-p", given(b)["ENGINE_NETNS"])
        b.compose("host.yaml", "--profile", "door", "up", "--detach", **given(b))
        eventually(lambda: b.engine.said("hostlane-proxy", "joined the mesh"), f"the join{b.logs()}", 3 * PATIENCE)
        yield b


def given(host: ComposeHost) -> dict[str, str]:
    """The variables of compose/host.yaml, with where the tests' engines have what others have in /run."""
    return {
        "HOSTLANE_HOST": NAME, "PARENT": CABLE, "ENGINE_DIRECTORY": str(host.engine.sockets),
        "ENGINE_NETNS": f"{host.engine.state}/exec/netns",
    }  # fmt: skip


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


def test_another_proxy_gets_the_address(host: ComposeHost) -> None:
    """Though the door keeps sockets of the namespace of the one before."""
    engine, name = host.engine, "hostlane-proxy"
    before = engine.docker("inspect", "--format={{.Id}}", name)
    host.compose("host.yaml", "up", "--detach", "--force-recreate", "proxy", **given(host))
    assert engine.docker("inspect", "--format={{.Id}}", name) != before
    eventually(lambda: address(engine, name) == "10.77.0.67", f"the address{host.logs()}", 3 * PATIENCE)
    host.healthy(name)


def test_the_next_proxy_cuts_no_stream(host: ComposeHost) -> None:
    """docs/containers.md's two commands, and then the other way round: no connection fails, and none is cut. One that
    is open holds the old proxy, which ends with it.
    """
    first, second = "hostlane-proxy", "hostlane-next"
    start_server(host.engine)
    traffic = Traffic(host.engine)
    takes_over(host, traffic, first, second, "next", NEXT_ADDRESS="10.77.0.68")
    takes_over(host, traffic, second, first, "--force-recreate", "proxy")


def takes_over(host: ComposeHost, traffic: Traffic, old: str, new: str, *words: str, **variables: str) -> None:
    """The container `new` takes the place of `old`, under traffic."""
    since = traffic.flows()
    host.engine.docker("update", "--restart=no", old)
    host.compose("host.yaml", "up", "--detach", "--no-deps", *words, **given(host), **variables)
    eventually(lambda: host.engine.said(new, "proxy taken over"), f"the takeover{host.logs()}", 3 * PATIENCE)
    host.healthy(new)
    traffic.flows()
    assert not traffic.failed(since)
    assert host.state(old) == "running"
    host.engine.docker("rm", "--force", traffic.name)
    eventually(lambda: host.state(old) == "exited", f"the end of {old}{host.logs()}", 3 * PATIENCE)
    traffic.start()
    traffic.flows()
