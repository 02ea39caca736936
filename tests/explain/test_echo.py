from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from proxy.explain.echo import BYTES
from tests.tools.sockets import PATIENCE, connect, exchange


def test_it_sends_back_and_ends_with_its_starter(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        argv = [sys.executable, "-P", "-m", "proxy.explain.echo", str(listener.fileno())]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[listener.fileno()]) as process:
            for _ in range(2):
                with connect(path) as client:
                    exchange(client, bytes(range(BYTES)))
                    exchange(client, b"x")
            process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
