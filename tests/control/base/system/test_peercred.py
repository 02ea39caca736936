from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from control.base.system.peercred import UCRED, credentials_of

CALLER = """
import os, socket, sys
os.setgid(65533)
os.setuid(65532)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    print(os.getpid(), flush=True)
    sock.recv(1)
"""


def test_one_of_this_process() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert credentials_of(near) == (os.getpid(), os.geteuid(), os.getegid())
        assert UCRED.size == 12


async def test_one_of_trio() -> None:
    near, far = trio.socket.socketpair()
    with near, far:
        assert credentials_of(near).uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_one_of_another_user(directory: Path) -> None:
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen()
        listener.settimeout(20)
        with subprocess.Popen([sys.executable, "-c", CALLER, path], stdout=subprocess.PIPE, text=True) as caller:
            accepted, _ = listener.accept()
            with accepted:
                assert caller.stdout is not None
                assert credentials_of(accepted) == (int(caller.stdout.readline()), 65532, 65533)
