from __future__ import annotations

import errno
import socket
from pathlib import Path

import httpx
import pytest

from control.base.unixhttp import unix_client


def test_the_environment_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with unix_client(path, 0.01) as client:
            probe, _ = listener.accept()
            with probe:
                assert probe.recv(1) == b"", "it connects and leaves again"
            with pytest.raises(httpx.ReadTimeout):
                client.get("http://c/")
            asking, _ = listener.accept()
            with asking:
                assert asking.recv(100).startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ECONNREFUSED])
def test_nobody_there(tmp_path: Path, error: int) -> None:
    path = str(tmp_path / "s")
    if error == errno.ECONNREFUSED:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)
    with pytest.raises(OSError) as found:
        unix_client(path, 1.0)
    assert found.value.errno == error
