"""The control server's unit."""

from __future__ import annotations

from pathlib import Path

from control.cli.daemon import CONTROL
from tests.tools.units import complaints


def test_systemd_takes_it_and_finds_it_little_exposed(tmp_path: Path) -> None:
    assert complaints(CONTROL, tmp_path) == []
