from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from socket import AF_UNIX
from socket import socket as UnixSocket

import pytest

from control.cli import whom
from tests.control.cli.conftest import Proxy


def killed_listener(path: Path) -> None:
    with UnixSocket(AF_UNIX) as left:
        left.bind(str(path))
        left.listen()


def full_of_nobody(path: Path) -> None:
    """Bound, and never listened at."""
    with UnixSocket(AF_UNIX) as left:
        left.bind(str(path))


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "gone.sock")


@pytest.mark.failure("31")
@pytest.mark.parametrize("leave", [killed_listener, full_of_nobody, dangling])
def test_a_stale_socket_of_a_control_server_is_none(
    proxy: Proxy, tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    file = tmp_path / "host.yaml"
    file.write_text(f"run_dir: {tmp_path}\n")
    leave(tmp_path / "control.sock")
    assert whom.place(str(file), None) == proxy.path
    proxy.stop()
    # Where there is no proxy either, it is the control server that is missing.
    assert whom.place(str(file), None) == str(tmp_path / "control.sock")


def test_whose_socket_it_is(proxy: Proxy, tmp_path: Path) -> None:
    assert whom.is_proxys("/x/admin.sock")
    assert not whom.is_proxys("/x/control.sock")
    assert not whom.is_proxys("/x/other.sock"), "nobody answers there"
