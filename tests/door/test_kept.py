from __future__ import annotations

import socket

import pytest
from structlog.testing import capture_logs

from proxy.door import kept
from proxy.door.kept import KeptSockets


def test_one_takes_the_place_of_another_of_its_name() -> None:
    held = KeptSockets()
    first, second = socket.socket(), socket.socket()
    held.keep("a", first)
    held.keep("a", second)
    assert [*held] == [("a", second)]
    assert first.fileno() == -1
    held.drop("a")
    held.drop("a")
    assert [*held] == []
    assert second.fileno() == -1


def test_one_too_many_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 1)
    held, surplus = KeptSockets(), socket.socket()
    held.keep("a", socket.socket())
    with capture_logs() as logs:
        held.keep("b", surplus)
    assert surplus.fileno() == -1
    assert [(entry["log_level"], entry["at_most"]) for entry in logs] == [("warning", 1)]
    held.close()
    assert [*held] == []
