"""Sockets whose files somebody removes: bound again, with their rights, or what is in the way."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from control.base.errors import StartError
from control.base.system.keptsocket import KeptSocket, SocketKeeper
from control.base.system.rundir import make_run_dir
from control.base.system.unixsock import bind_unix

pytestmark = pytest.mark.failure("30")

AGAIN = "somebody had removed a socket's file: it is bound again"
NOT_AGAIN = "a socket's file is gone, and cannot be bound again"


def reached(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: shutil.rmtree(path.parent)])
def test_it_is_bound_again_as_it_was(directory: Path, lose: Callable[[Path], object]) -> None:
    run_dir = directory / "run"

    def prepare() -> None:
        make_run_dir(str(run_dir), None)

    prepare()
    path = run_dir / "admin.sock"
    kept = KeptSocket(bind_unix(str(path), mode=0o600), mode=0o600, prepare=prepare)
    lose(path)
    assert not reached(path)
    kept.restore().close()
    assert reached(path)
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(run_dir.stat().st_mode)) == (0o600, 0o700)
    kept.close()
    assert list(run_dir.iterdir()) == []


def test_a_directory_that_lets_others_in_now_is_no_place_for_it(directory: Path) -> None:
    """Somebody has made it anew, as `mkdir` does."""
    run_dir = directory / "run"
    make_run_dir(str(run_dir), None)
    path = run_dir / "admin.sock"
    kept = KeptSocket(bind_unix(str(path), mode=0o600), mode=0o600, prepare=lambda: make_run_dir(str(run_dir), None))
    shutil.rmtree(run_dir)
    run_dir.mkdir(mode=0o755)
    bound = kept.bound
    with pytest.raises(StartError, match="it has mode 0755"):
        kept.restore()
    assert kept.bound is bound
    assert not path.exists()
    kept.close()


def test_what_is_in_the_way_is_said_once_and_known_until_it_is_gone(directory: Path) -> None:
    path, keeper = directory / "a.sock", SocketKeeper()
    kept = KeptSocket(bind_unix(str(path)), mode=0o666)
    path.unlink()
    path.mkdir()

    def restore() -> bool:
        kept.restore().close()
        return True

    with capture_logs() as logs:
        for _ in range(3):
            keeper.mend({kept.address: restore})
        assert list(keeper.in_the_way) == [f"unix:{path}"]
        assert "is a directory" in keeper.in_the_way[f"unix:{path}"]
        path.rmdir()
        keeper.mend({kept.address: restore})
        assert keeper.in_the_way == {}
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [(NOT_AGAIN, "error"), (AGAIN, "warning")]
    kept.close()


def test_what_came_back_by_itself_is_forgotten(directory: Path) -> None:
    keeper = SocketKeeper()

    def cannot() -> bool:
        raise StartError("it cannot")

    with capture_logs() as logs:
        keeper.mend({"unix:/a": cannot})
        keeper.mend({})
        assert keeper.in_the_way == {}
        keeper.mend({"unix:/a": lambda: False})  # another process may be about to take it
        keeper.mend({"unix:/a": cannot})
    assert len(logs) == 2


def test_the_lost_socket_leaves_the_new_ones_files_alone(directory: Path) -> None:
    path = directory / "a.sock"
    kept = KeptSocket(bind_unix(str(path)), mode=0o666)
    path.unlink()
    lost = kept.restore()
    with pytest.raises(StartError, match=f"process {os.getpid()} already listens there"):
        bind_unix(str(path))
    lost.close()
    assert reached(path)
    with pytest.raises(StartError, match=f"process {os.getpid()} already listens there"):
        bind_unix(str(path))
    kept.close()
