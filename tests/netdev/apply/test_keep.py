"""An interface that goes away is made again, and one of somebody else's gets its addresses again. In a process of its
own, as its threads are in the namespace then.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.demo import netns
from proxy.demo.mesh import HOSTLANE
from tests.netdev.machine import ip
from tests.tools.process import Process

pytestmark = [pytest.mark.netns, pytest.mark.failure("25")]

Watch = Callable[[str], Process]


@pytest.fixture
def watch(space: str, tmp_path: Path) -> Watch:
    """``hostlane net watch`` in the namespace, for a section ``interfaces``."""

    def make(section: str) -> Process:
        file = tmp_path / "host.yaml"
        file.write_text(
            f"host: a\nlinks: {{listen: 10.0.0.1:7600, security: none}}\nlog: {{format: json}}\ninterfaces: {section}\n"
        )
        return Process(netns.inside(space, [*HOSTLANE, "net", "watch", "--config", str(file)]))

    return make


def addresses(space: str, interface: str) -> list[str]:
    (found,) = json.loads(netns.run(["ip", "-n", space, "-j", "address", "show", interface]))
    return [item["local"] for item in found["addr_info"] if item["scope"] == "global"]


def test_a_macvlan_that_is_deleted(space: str, watch: Watch) -> None:
    with watch("{hl0: {parent: eth0, addresses: [10.0.0.1/24]}}") as unit:
        unit.wait_for("interfaces are as configured")
        ip(space, "link delete hl0")
        unit.wait_for("interface is gone", interface="hl0", addresses="10.0.0.1/24")
        unit.wait_for("interface made again", interface="hl0", addresses="10.0.0.1/24")
        assert addresses(space, "hl0") == ["10.0.0.1"]


def test_one_whose_parent_is_gone_is_made_when_that_is_back(space: str, watch: Watch) -> None:
    with watch("{hl0: {parent: eth0, addresses: [10.0.0.1/24]}}") as unit:
        unit.wait_for("interfaces are as configured")
        ip(space, "link delete eth0")
        said = unit.wait_for("cannot make an interface again", interface="hl0")
        assert "parent eth0 does not exist" in said["error"]
        ip(space, "link add eth0 type veth peer name cable", "link set cable up", "link set eth0 up")
        unit.wait_for("interface made again", interface="hl0")
        assert addresses(space, "hl0") == ["10.0.0.1"]
        assert len(unit.events("cannot make an interface again")) == 1


def test_somebody_elses_is_waited_for(space: str, watch: Watch) -> None:
    with watch("{eth0: {kind: existing, addresses: [10.0.0.1/24]}}") as unit:
        unit.wait_for("interfaces are as configured")
        ip(space, "link delete eth0")
        unit.wait_for("interface is gone", interface="eth0")
        ip(space, "link add eth0 type veth peer name cable", "link set cable up", "link set eth0 up")
        unit.wait_for("interface made again", interface="eth0")
        assert addresses(space, "eth0") == ["10.0.0.1"]
        assert not unit.events("cannot make an interface again")
