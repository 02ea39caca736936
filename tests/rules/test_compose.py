"""compose/ without an engine: what every file of it keeps to. (They are brought up in tests/docker/test_compose.py.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from control.server import config as control_config
from proxy.config import schema as config

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "compose").glob("*.yaml"))
CONFIGURATIONS = sorted((ROOT / "compose").glob("*/*.yaml"))
SERVICES = [
    pytest.param(service, id=f"{file.name}-{name}")
    for file in FILES
    for name, service in yaml.safe_load(file.read_text())["services"].items()
]
GIVEN = {"HOST": "host-a", "ADDRESS": "10.77.0.10", "NUMBER": "1"}


def test_there_are_some() -> None:
    assert {"host-simple", "control", "three-control-etcd", "sidecar"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_configuration_validates(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    if "schema/control.json" in path.read_text():
        assert control_config.load(path).name
    elif "schema/host.json" in path.read_text():
        assert config.load(path).host


@pytest.mark.parametrize("service", SERVICES)
def test_what_goes_on_running(service: dict[str, Any]) -> None:
    """Its log is rotated (a failure that repeats itself writes 6 GB a day), and it has time to stop."""
    if "restart" not in service:
        return
    assert "max-size" in service["logging"]["options"]
    assert "stop_grace_period" in service


@pytest.mark.parametrize("service", SERVICES)
def test_directories_are_mounted_and_not_files(service: dict[str, Any]) -> None:
    """A file that is mounted by itself stays the old one once an editor, or a socket's next owner, replaces it."""
    for volume in service.get("volumes", []):
        source = (volume if isinstance(volume, str) else volume["source"]).partition(":")[0]
        if source.startswith("./"):
            assert (ROOT / "compose" / source).is_dir(), volume
        assert not source.endswith((".sock", ".yaml")), volume
