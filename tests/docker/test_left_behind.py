"""What is left when containers have come and gone: nothing, counted exactly."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.docker import held
from tests.docker.conftest import Hosts
from tests.docker.engines import EngineHost
from tests.docker.traffic import SERVER
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.essential, pytest.mark.timeout(1200)]

LIVES = 8 if os.environ.get("HOSTLANE_QUICK") else 200
AT_ONCE = 4

Held = dict[str, object]


def held_by(host: EngineHost) -> Held:
    """All that a container could leave behind on its host."""
    found: Held = {
        "namespaces": held.namespaces(host),
        "macvlans": held.hardware_addresses(host),
        "interfaces": sorted(host.host_run("ls", "/sys/class/net").split()),
    }
    for name in ("door", "proxy"):
        found[f"descriptors of the {name}"] = held.descriptors(host, name)
        found[f"sockets of the {name} in other namespaces"] = held.of_other_namespaces(host, name)
    return found


ENDS = (("rm", "--force"), ("kill",), ("stop", "--time=1"))


def live(hosts: Hosts, number: int) -> None:
    """One container that calls, on a macvlan of its own, and one that is called; then their ends."""
    a, b = hosts
    name, service = f"life-{number}", f"s{number % AT_ONCE}"
    b.run(name, SERVER, "--user=65534:65534", labels={"hostlane.offer": f"{service}=tcp:127.0.0.1:6379"})
    a.run(name, ["sleep", "infinity"], "--network=lan", labels={"hostlane.use": f"{service}@127.77.0.2:6379"})
    eventually(lambda: a.says(name, "redis-cli", "-h", "127.77.0.2", "ping") == "PONG", f"PONG in {name}")
    for host in hosts:
        host.docker(*ENDS[number % len(ENDS)], name)
        if "rm" not in ENDS[number % len(ENDS)]:
            host.docker("rm", name)


def test_nothing_is_left_of_containers(empty: Hosts) -> None:
    a, _ = empty
    a.docker("network", "create", "--driver=macvlan", "--opt=parent=cable0", "--subnet=10.79.0.0/24", "lan")
    try:
        for number in range(AT_ONCE):  # links and worker threads are there then
            live(empty, number)
        before = [held_by(host) for host in empty]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for first in range(0, LIVES, AT_ONCE):
                list(pool.map(lambda number: live(empty, number), range(first, first + AT_ONCE)))
        for host, then in zip(empty, before, strict=True):
            assert then["sockets of the proxy in other namespaces"] == 0
            assert then["sockets of the door in other namespaces"] == 0
            assert_again(host, then)
    finally:
        a.docker("network", "rm", "lan")


def assert_again(host: EngineHost, then: Held) -> None:
    """That the host holds what it held; the engine takes namespaces' files away in its own time."""
    try:
        eventually(lambda: held_by(host) == then, "as before")
    except AssertionError:
        assert held_by(host) == then
