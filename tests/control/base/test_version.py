from __future__ import annotations

from importlib import metadata

from control.base.version import VERSION


def test_it_is_what_is_installed() -> None:
    assert metadata.version("hostlane") == VERSION
