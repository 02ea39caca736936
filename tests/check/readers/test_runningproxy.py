from __future__ import annotations

import os
import socket
from pathlib import Path

from proxy.check.readers.runningproxy import running


def test_whoever_listens(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert running(str(path)) is None
        listener.listen()
        assert running(str(path)) == os.getpid()
    assert running(str(path)) is None


def test_nobody_runs(tmp_path: Path) -> None:
    assert running(str(tmp_path / "admin.sock")) is None
