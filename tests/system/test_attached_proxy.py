"""A proxy in a container with ``--network none`` gets its interface from the host while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo import netns
from proxy.demo.mesh import HOSTLANE
from tests.check.ground import Ground
from tests.tools.process import Proxy

pytestmark = [pytest.mark.netns, pytest.mark.failure("32")]


@pytest.fixture
def ground() -> Iterator[Ground]:
    with Ground() as made:
        yield made


def sidecar(ground: Ground, address: str, folder: Path) -> Proxy:
    """In a namespace that has nothing but lo."""
    listen = f"[{address}]:7600" if ":" in address else f"{address}:7600"
    config = {
        "host": "sidecar",
        "run_dir": str(ground.folder / "run"),
        "links": {"listen": listen, "security": "none"},
        "log": {"format": "json"},
    }
    proxy = Proxy(config, folder)
    proxy.argv = netns.inside(ground.add("sidecar"), proxy.argv)
    return proxy


@pytest.mark.parametrize("address", ["10.77.0.5/24", "fd77::5/64"])
def test_it_waits_for_its_interface(ground: Ground, tmp_path: Path, address: str) -> None:
    plain = address.partition("/")[0]
    proxy = sidecar(ground, plain, tmp_path)
    with proxy:
        proxy.wait_for("waiting for the links' address")
        words = ["--pid", str(proxy.pid), "--config", str(ground.config()), "--parent", "eth0", "--address", address]
        netns.run(netns.inside(ground.here, [*HOSTLANE, "net", "attach", *words]))
        proxy.wait_for("links go through their interface", interface="eth1", address=plain)
        proxy.wait_for("the links' address is there: listening", interface="eth1")


def test_it_can_be_told_to_stop_meanwhile(ground: Ground, tmp_path: Path) -> None:
    proxy = sidecar(ground, "10.77.0.5", tmp_path)
    with proxy:
        proxy.wait_for("waiting for the links' address")
        assert proxy.stop() == 0
