from __future__ import annotations

from pathlib import Path

import pytest

from proxy.cdi.naming import containers_naming
from proxy.cdi.spec import DEVICE
from tests.door.engines import FakeEngine


def test_docker_and_podman_say_it_in_their_ways(tmp_path: Path) -> None:
    with FakeEngine(tmp_path / "e.sock") as engine:
        for id, config in (
            ("a", {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor/gpu=0", DEVICE]}]}),
            ("b", {"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": None}], "Devices": None}),
            ("c", {"DeviceRequests": None, "Devices": [{"PathOnHost": DEVICE, "PathInContainer": ""}]}),
            ("d", {}),
        ):
            engine.put(id, "f00", {})
            engine.containers[id]["HostConfig"].update(config)
        assert containers_naming(DEVICE, str(tmp_path / "e.sock")) == ["a-name", "c-name"]


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.sock: No such file or directory"):
        containers_naming(DEVICE, str(tmp_path / "none.sock"))
