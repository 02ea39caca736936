"""The listening sockets of upstreams: prepared, taken back, kept, closed."""

from __future__ import annotations

import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from control.reading.addresses import TcpAddress, UnixAddress
from proxy.config import Upstream
from proxy.errors import StartError
from proxy.outbound.sockets import Sockets, bind_tcp


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hl-") as found:
        yield Path(found)


def unix(folder: Path, name: str, mode: int = 0o666, owner: int | None = None) -> Upstream:
    return Upstream(listen=UnixAddress(f"{folder}/{name}.sock"), mode=mode, owner=owner)


def change(sockets: Sockets, **upstreams: Upstream) -> None:
    with ExitStack() as undo:
        wanted = sockets.prepare(upstreams, undo)
        undo.pop_all()
    sockets.replace(wanted)


def mode(folder: Path, name: str) -> int:
    return stat.S_IMODE((folder / f"{name}.sock").stat().st_mode)


def test_opened_kept_and_closed(folder: Path) -> None:
    sockets = Sockets()
    change(sockets, a=unix(folder, "a"), b=unix(folder, "b"))
    kept = sockets.opened[UnixAddress(f"{folder}/b.sock")]
    change(sockets, b=unix(folder, "b"), c=unix(folder, "c"))
    assert sorted(path.name for path in folder.glob("*.sock")) == ["b.sock", "c.sock"]
    assert sockets.opened[UnixAddress(f"{folder}/b.sock")] is kept
    change(sockets)
    assert list(folder.iterdir()) == []


def test_what_was_prepared_and_is_not_wanted_is_taken_back(folder: Path) -> None:
    sockets = Sockets()
    change(sockets, a=unix(folder, "a"))
    with ExitStack() as undo:
        sockets.prepare({"a": unix(folder, "a", 0o600), "b": unix(folder, "b")}, undo)
        assert (mode(folder, "a"), mode(folder, "b")) == (0o600, 0o666)
    assert mode(folder, "a") == 0o666
    assert not (folder / "b.sock").exists()
    change(sockets)


def test_a_failure_takes_back_what_went_before_it(folder: Path) -> None:
    sockets = Sockets()
    change(sockets, a=unix(folder, "a"))
    (folder / "b.sock").write_text("somebody's")
    with pytest.raises(StartError, match="regular file"), ExitStack() as undo:
        sockets.prepare({"a": unix(folder, "a", 0o600), "c": unix(folder, "c"), "b": unix(folder, "b")}, undo)
    assert mode(folder, "a") == 0o666
    assert not (folder / "c.sock").exists()
    change(sockets)


def test_a_socket_whose_file_was_replaced_cannot_get_other_rights(folder: Path) -> None:
    sockets = Sockets()
    change(sockets, a=unix(folder, "a"))
    (folder / "a.sock").unlink()
    (folder / "a.sock").write_text("somebody's")
    with pytest.raises(StartError, match=r"^cannot change unix:.*/a\.sock: another file has taken the path"):
        change(sockets, a=unix(folder, "a", 0o600))
    assert mode(folder, "a") == 0o644
    change(sockets)


def test_rights_that_cannot_be_given_leave_those_that_there_were(folder: Path) -> None:
    sockets = Sockets()
    change(sockets, a=unix(folder, "a"))
    with pytest.raises(StartError, match="there is no user 'nobody-of-that-name' here"):
        change(sockets, a=Upstream(listen=UnixAddress(f"{folder}/a.sock"), mode=0o600, owner="nobody-of-that-name"))
    assert mode(folder, "a") == 0o666
    change(sockets)


def test_another_caller_or_service_touches_no_file(folder: Path) -> None:
    sockets = Sockets()
    change(sockets, a=unix(folder, "a"))
    (folder / "a.sock").unlink()
    change(sockets, b=Upstream(listen=UnixAddress(f"{folder}/a.sock"), caller="shop"))
    change(sockets)


def test_tcp() -> None:
    with bind_tcp("web", TcpAddress("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass
        with pytest.raises(StartError, match=rf"^upstreams\.web\.listen: tcp:127\.0\.0\.1:{port}: the port is in use$"):
            bind_tcp("web", TcpAddress("127.0.0.1", port))
