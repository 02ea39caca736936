"""Whose calls are most: by process, by address, and among very many."""

from __future__ import annotations

import os
import socket

import pytest

from control.api.messages import BusiestSource
from proxy.telemetry import busiest as module
from proxy.telemetry.busiest import busiest


def test_nobody() -> None:
    assert busiest([]) is None


def test_a_call_whose_caller_is_gone() -> None:
    assert busiest([("web", None)]) == BusiestSource(service="web", streams=1)


@pytest.mark.failure("28")
def test_a_process_and_an_address() -> None:
    one, other = socket.socketpair()
    with one, other, socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            through_unix = BusiestSource(service="web", streams=2, uid=os.getuid(), pid=os.getpid())
            assert busiest([("web", one), ("web", one), ("web", accepted), ("db", one)]) == through_unix
            through_tcp = BusiestSource(service="db", streams=3, address="127.0.0.1")
            assert busiest([("web", one), ("web", one), *[("db", accepted)] * 3]) == through_tcp


def test_of_very_many_only_some_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ASKED", 10)
    found = busiest([("web", None)] * 35)
    assert found is not None
    assert (found.service, found.streams) == ("web", 36), "about as many: every fourth was asked for"
