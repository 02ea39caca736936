"""The process that a proxy starts to take its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.agent.handover.successor import OPTION, command, start


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


def test_the_same_command_and_the_option_once(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/opt/bin/python3", "/opt/bin/hostlane", "proxy", "--config", "f.yaml"]
    monkeypatch.setattr(sys, "orig_argv", words)
    assert command() == [*words, OPTION]
    monkeypatch.setattr(sys, "orig_argv", [*words, OPTION])
    assert command() == [*words, OPTION]


async def test_one_that_ends_is_a_line(logs: list[MutableMapping[str, Any]]) -> None:
    await start([sys.executable, "-c", "raise SystemExit(2)"])
    assert [entry["event"] for entry in logs] == ["successor started", "successor ended"]
    assert (logs[1]["exit_code"], logs[1]["pid"]) == (2, logs[0]["pid"])


async def test_one_that_cannot_be_started_is_a_line(tmp_path: Path, logs: list[MutableMapping[str, Any]]) -> None:
    await start([str(tmp_path / "missing")])
    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("successor cannot be started", "No such file or directory")
    ]
