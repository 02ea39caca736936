"""Callers whom nobody has accepted."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proxy.outbound import queues
from proxy.outbound.queues import ListenQueues


@pytest.mark.parametrize("kind", ["unix", "tcp", "tcp6"])
def test_they_are_counted(kind: str, tmp_path: Path) -> None:
    family = {"unix": socket.AF_UNIX, "tcp": socket.AF_INET, "tcp6": socket.AF_INET6}[kind]
    with socket.socket(family) as listener:
        listener.bind(str(tmp_path / "s") if kind == "unix" else ("::1" if kind == "tcp6" else "127.0.0.1", 0))
        listener.listen(8)
        found = ListenQueues()
        callers = []
        for count in range(4):
            assert found.length(listener) == count
            callers.append(socket.socket(family))
            callers[-1].connect(listener.getsockname())
        listener.accept()[0].close()
        assert found.length(listener) == 3
        for caller in callers:
            caller.close()
        found.close()
        found.close()
    assert found.length(listener) is None


def test_where_the_kernel_does_not_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(queues, "SOCK_DIAG", 4000)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(8)
        found = ListenQueues()
        assert [found.length(listener) for _ in range(2)] == [None, None]
        found.close()
