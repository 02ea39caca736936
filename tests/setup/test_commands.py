"""``hostlane join``: what it refuses, in one line, before the token is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.api import tokens
from control.base.system import logs
from proxy.setup.commands import join

TOKEN = tokens.text(tokens.make("host-c", ("ab" * 32,), bytes(40), ("127.0.0.1:9",), "hostlane"))
OLD = tokens.text(tokens.make("host-c", ("ab" * 32,), bytes(40)))


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs stay as they are in this process."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)


def said(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(join, words, input=given)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["hostlane1.x"], "hostlane: TOKEN: it is cut off or damaged"),
        (["x"], "hostlane: TOKEN: it does not begin with hostlane1."),
        ([OLD], "hostlane: the token does not say where the control plane is; allowed: --server HOST:PORT"),
        ([TOKEN, "--offer", "redis"],
         'hostlane: --offer: found "redis"; allowed: SERVICE=tcp:HOST:PORT or SERVICE=unix:/PATH'),
        ([TOKEN, "--use", "a", "--use", "a"], "hostlane: --use: found a a second time; allowed: each service once"),
        ([TOKEN, "--listen", "10.0.0.1"],
         'links.listen: found "10.0.0.1", no port; allowed: IP:PORT or [IPv6]:PORT, port 1 to 65535'),
    ],
)  # fmt: skip
def test_mistakes(words: list[str], line: str) -> None:
    result = said(*words)
    assert (result.exit_code, result.output.splitlines()) == (2, [line])


def test_a_token_from_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "h.yaml"
    file.touch()
    result = said("-", "--config", str(file), given=TOKEN + "\n")
    assert (result.exit_code, "h.yaml exists: this host has a configuration" in result.output) == (2, True)


def test_a_service_needs_root_and_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = said(TOKEN, "--service", "--config", str(tmp_path / "h.yaml"))
    assert result.exit_code == 2
    assert result.output == "hostlane: --service: found user 1000; allowed: root, as units are installed (sudo)\n"
    assert not list(tmp_path.iterdir())
