from __future__ import annotations

from pathlib import Path

import pytest

from proxy.cdi import files
from proxy.cdi.spec import HookCall
from proxy.check.diagnose import diagnose
from proxy.check.readers import containers
from proxy.check.report import Report
from proxy.config.schema import load
from tests.check.ground import findings, names, seen, unseen

PROGRAM = b"#!/bin/sh\nexit 0\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine's engine would look."""
    monkeypatch.setattr(containers, "DIRECTORIES", (str(tmp_path / "cdi"), str(tmp_path / "none")))
    return tmp_path / "cdi"


def look(folder: Path, door: str) -> Report:
    file = folder / "host.yaml"
    file.write_text(f"host: host-a\nlinks: {{listen: 127.0.0.1:7600, security: none}}\n{door}\n")
    return diagnose(load(str(file)), only=("containers",))


def install(place: Path, socket: str) -> None:
    files.install(str(place), HookCall(str(place / "hostlane-hook"), socket), PROGRAM)


def test_labels_alone_are_late(tmp_path: Path, place: Path) -> None:
    found = findings(look(tmp_path, "door: {}"))["start-race"]
    assert "3 to 6 ms after a start" in found.read
    assert "there is no door" in "".join(seen(look(tmp_path, "")))


def test_a_door_that_listens_in_vain(tmp_path: Path, place: Path) -> None:
    assert names(look(tmp_path, "door: {cdi: /run/hostlane-cdi}"), "note") == {"no-hook"}
    install(place, "/run/hostlane-cdi/hook.sock")
    assert names(look(tmp_path, "door: {cdi: /run/hostlane-cdi}"), "note") == set()
    assert names(look(tmp_path, "door: {cdi: /run/elsewhere}"), "note") == {"hook-elsewhere"}


def test_a_hook_that_somebody_has_deleted(tmp_path: Path, place: Path) -> None:
    install(place, "/run/hostlane-cdi/hook.sock")
    (place / "hostlane-hook").unlink()
    assert names(look(tmp_path, "door: {cdi: /run/hostlane-cdi}")) == {"broken-hook"}
    files.remove(str(place), keep=True)
    report = look(tmp_path, "door: {cdi: /run/hostlane-cdi}")
    assert (names(report), names(report, "note")) == (set(), set())


def test_a_file_of_somebody_else(tmp_path: Path, place: Path) -> None:
    place.mkdir()
    (place / "hostlane.json").write_text('{"kind": "vendor/gpu"}')
    report = look(tmp_path, "door: {cdi: /run/hostlane-cdi}")
    assert names(report) == set()
    assert unseen(report) == f"{place}/hostlane.json: found the CDI file of vendor/gpu, not of hostlane/door"
