"""The attach service, in a process of its own on a host of the lab."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.config import schema as config
from proxy.config.interfaces import ContainerInterfaceConfig
from proxy.demo import netns
from proxy.demo.lab import Lab
from proxy.demo.mesh import HOSTLANE
from proxy.door.attaching import wants
from proxy.errors import NetError
from proxy.netdev.observe import observe
from proxy.netdev.observe.namespaces import run_inside
from tests.door.conftest import DIRECTORY
from tests.door.engines import FakeEngine
from tests.tools.process import Process
from tests.tools.sockets import eventually

HEAD = "host: host-a\nlinks: {listen: 127.0.0.1:7600, security: none}\n"
LABELS = {"hostlane.attach": "cable0"}


def address(name: str) -> list[str]:
    """The addresses of `lane0` in that namespace."""
    done = subprocess.run(["ip", "-n", name, "-j", "addr", "show", "dev", "lane0"], capture_output=True, check=False)
    found = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []
    return [each["local"] for item in found for each in item.get("addr_info", []) if each["family"] == "inet"]


def attaching(folder: Path) -> list[str]:
    """The command of a service that gives `c-name` an interface."""
    door = {"directory": f"{folder}/door", "engine": f"{folder}/engine.sock", "namespaces": DIRECTORY, "user": "root"}
    container = {"parent": "cable0", "name": "lane0", "addresses": ["10.9.0.5/24"]}
    sections = {"door": door, "containers": {"c-name": container}}
    file = folder / "a.yaml"
    file.write_text(HEAD + "".join(f"{name}: {json.dumps(section)}\n" for name, section in sections.items()))
    return [*HOSTLANE, "attach-service", "--config", str(file)]


@contextmanager
def left_open(name: str) -> Iterator[int]:
    """A descriptor that keeps the namespace, as each socket that was made there does."""
    descriptor = os.open(f"{DIRECTORY}/{name}", os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def interfaces(namespace: int) -> list[str]:
    return [each.name for each in run_inside(namespace, observe.snapshot).interfaces]


@pytest.mark.netns
def test_a_container_has_its_interface_at_every_start(
    tmp_path: Path, lab: Lab, namespace: Callable[[], str]
) -> None:
    one, two = namespace(), namespace()
    argv = attaching(tmp_path)
    service = Process(argv, host=lab.a)
    with FakeEngine(tmp_path / "engine.sock") as engine, service:
        service.wait_for("following the engine")
        engine.put("c", one, LABELS)
        engine.happen("start", "c")
        eventually(lambda: address(one) == ["10.9.0.5"], "the interface")
        engine.put("other", "none", LABELS)
        engine.happen("start", "other")
        why = "the configuration has no containers.other-name; allowed: that, or a control plane (control) and "
        line = service.wait_for("not as its labels ask")["error"]
        assert str(line).startswith(f"container other-name: hostlane.attach: {why}")
        # It is started again, while something is open in the namespace that it had.
        engine.put("c", two, LABELS)
        engine.happen("die", "c")
        engine.happen("start", "c")
        eventually(lambda: address(two) == ["10.9.0.5"], "the interface again")
        assert address(one) == []
        # The engine takes the namespace's file away, and nobody tells.
        with left_open(two) as left:
            netns.delete(two)
            eventually(lambda: interfaces(left) == ["lo"], "the end of the interface")
        assert service.stop() == 0


@pytest.mark.netns
def test_what_it_has_not_seen_ends_with_its_namespace(
    tmp_path: Path, lab: Lab, namespace: Callable[[], str]
) -> None:
    """The container has ended and started again while the service was away, and something is open where it was."""
    one, two = namespace(), namespace()
    argv = attaching(tmp_path)
    with FakeEngine(tmp_path / "engine.sock") as engine:
        engine.put("c", one, LABELS)
        with Process(argv, host=lab.a) as service:
            eventually(lambda: address(one) == ["10.9.0.5"], "the interface")
            assert service.stop() == 0
        assert address(one) == ["10.9.0.5"]
        engine.put("c", two, LABELS)
        with Process(argv, host=lab.a) as service:
            service.wait_for("not as its labels ask")
            assert address(two) == []
            netns.delete(one)
            eventually(lambda: address(two) == ["10.9.0.5"], "the interface again")
            assert service.stop() == 0


def test_what_a_container_gets() -> None:
    text = HEAD + "containers: {web: {parent: eth0, name: net0}}\n"
    found = config.parse(text, "f")
    assert wants(found, "web", "eth0").name == "net0"
    with pytest.raises(NetError, match=r"found eth1, and in the configuration containers\.web\.parent: eth0"):
        wants(found, "web", "eth1")
    with pytest.raises(NetError, match=r"the configuration has no containers\.db; allowed: that, or a control plane"):
        wants(found, "db", "eth0")
    meshed = "host: a\nlinks: {address: auto, segment: lan}\ncontrol: {servers: ['10.0.0.9:1']}\n"
    meshed += "interfaces: {lane0: {parent: eth0, addresses: [auto]}}\n"
    assert wants(config.parse(meshed, "f"), "db", "eth0") == ContainerInterfaceConfig(
        parent="eth0", addresses=("auto",)
    )
