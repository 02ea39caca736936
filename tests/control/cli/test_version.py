from __future__ import annotations

import json
import platform
import ssl
from importlib.metadata import version as installed

import pytest
from click.testing import CliRunner

from control.cli import version


def test_version() -> None:
    found = json.loads(CliRunner().invoke(version.version, ["--json"]).stdout)
    assert found["version"] == installed("hostlane")
    assert found["python"] == platform.python_version()
    assert found["openssl"] == ssl.OPENSSL_VERSION
    assert {found["core"], found["turn"]} <= {"compiled", "python"}
    assert found["libraries"]["trio"] == installed("trio")
    lines = CliRunner().invoke(version.version).stdout.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["hostlane", "commit", "core", "turn"]


def test_the_commit_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(version.COMMIT_VARIABLE, "0123abc")
    assert version.commit() == "0123abc"
    monkeypatch.delenv(version.COMMIT_VARIABLE)
    monkeypatch.setattr(version, "ROOT", "/nowhere")
    assert version.commit() is None
