from __future__ import annotations

from pathlib import Path

import pytest

from proxy.demo import netns
from proxy.demo.mesh import HOSTLANE
from tests.tools.process import Process

pytestmark = [pytest.mark.netns, pytest.mark.failure("25")]


@pytest.mark.parametrize(
    ("section", "code", "said"),
    [
        ("{hl0: {parent: eth0, addresses: [10.0.0.1/24]}}", 0, "interfaces are as configured"),
        ("{hl0: {parent: eth9, addresses: [10.0.0.1/24]}}", 0, "waiting for an interface"),
        ("{cable: {parent: eth0, addresses: [10.0.0.1/24]}}", 2, ""),  # somebody else's
    ],
)
def test_it_ends_when_it_is_told_or_cannot_begin(
    space: str, tmp_path: Path, section: str, code: int, said: str
) -> None:
    file = tmp_path / "host.yaml"
    file.write_text(
        f"host: a\nlinks: {{listen: 10.0.0.1:7600, security: none}}\nlog: {{format: json}}\ninterfaces: {section}\n"
    )
    unit = Process(netns.inside(space, [*HOSTLANE, "net", "watch", "--config", str(file)]))
    unit.start()
    if said:
        unit.wait_for(said)
        assert unit.stop() == code
    else:
        assert unit.wait() == code
        assert "hostlane: cable: exists and is not marked as this host's" in unit.text()
