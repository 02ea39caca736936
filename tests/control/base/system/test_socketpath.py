from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.base.system.socketpath import SocketPath, SocketPathError, explained, published, split

pytestmark = pytest.mark.failure(15)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SocketPath]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield SocketPath(str(tmp_path), "s", fd)
    os.close(fd)


def bound(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(path))
    return sock


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/run/hostlane/redis.sock", ("/run/hostlane", "redis.sock")),
        ("/redis.sock", ("/", "redis.sock")),
        ("/" + "d" * 100 + "/12345", ("/" + "d" * 100, "12345")),
        ("/" + "ü" * 53, ("/", "ü" * 53)),
    ],
)
def test_split(path: str, parts: tuple[str, str]) -> None:
    assert split(path) == parts


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("@redis", "abstract"),
        ("\0redis", "abstract"),
        ("redis.sock", "not the absolute path"),
        ("", "not the absolute path"),
        ("/run/", "not the absolute path of a file"),
        ("/run/..", "not the absolute path of a file"),
        ("/run/a\0b", "not the absolute path"),
        ("/" + "d" * 100 + "/123456", "108 bytes, a Unix socket's at most 107"),
        ("/" + "ü" * 54, "109 bytes"),
    ],
)
def test_split_refuses(path: str, complaint: str) -> None:
    with pytest.raises(SocketPathError, match=complaint):
        split(path)


@pytest.mark.parametrize("length", [1, 58, 59, 60, 106, 200])
def test_the_temporary_name_always_fits_and_is_always_the_same(length: int) -> None:
    first, other = (SocketPath("/" + "d" * 90, letter * length, 1234567) for letter in "xy")
    assert len(os.fsencode(first.address(first.temporary))) <= 107
    assert first.temporary == SocketPath("/elsewhere", first.name, 3).temporary
    assert len({first.temporary, other.temporary, first.name, first.lock}) == 4


def test_people_recognize_the_names() -> None:
    place = SocketPath("/run/hostlane", "redis.sock", 3)
    assert (place.lock, place.temporary) == (".redis.sock.lock", ".redis.sock.new")
    assert place.address(place.temporary) == "/run/hostlane/.redis.sock.new"


def test_nothing_there(place: SocketPath) -> None:
    assert place.has_dead_socket("s") is False
    place.refuse_listener("s")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_dead_socket(place: SocketPath, tmp_path: Path, kind: socket.SocketKind) -> None:
    bound(tmp_path / "s", kind).close()
    assert place.has_dead_socket("s") is True
    assert (tmp_path / "s").is_socket()


def test_a_listener_is_named_by_its_pid(place: SocketPath, tmp_path: Path) -> None:
    with bound(tmp_path / "s") as owner:
        owner.listen()
        with pytest.raises(SocketPathError, match=f"process {os.getpid()} already listens there; stop it or"):
            place.has_dead_socket("s")


def test_a_listener_whose_queue_is_full_is_not_taken_for_dead(place: SocketPath, tmp_path: Path) -> None:
    with bound(tmp_path / "s") as owner, socket.socket(socket.AF_UNIX) as waiting:
        owner.listen(0)
        waiting.connect(str(tmp_path / "s"))
        with pytest.raises(SocketPathError, match="accepts no connections already listens there"):
            place.has_dead_socket("s")


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_of_another_type_is_in_use(place: SocketPath, tmp_path: Path, kind: socket.SocketKind) -> None:
    with bound(tmp_path / "s", kind) as owner:
        if kind == socket.SOCK_SEQPACKET:
            owner.listen()
        with pytest.raises(SocketPathError, match="another type of socket already listens there"):
            place.has_dead_socket("s")


def test_files_that_are_not_sockets(place: SocketPath, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    bound(tmp_path / "dead").close()
    (tmp_path / "link").symlink_to("dead")
    for name, what in [
        ("file", "a regular file"),
        ("directory", "a directory"),
        ("pipe", "a named pipe"),
        ("link", "a symbolic link"),
    ]:
        with pytest.raises(SocketPathError) as caught:
            place.has_dead_socket(name)
        assert str(caught.value) == f"{tmp_path}/{name} is {what}; remove it or choose another path"


def test_device() -> None:
    fd = os.open("/dev", os.O_PATH)
    with pytest.raises(SocketPathError, match="/dev/null is a device"):
        SocketPath("/dev", "null", fd).has_dead_socket("null")
    os.close(fd)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, f"run the proxy as a user who may (now it is uid {os.geteuid()})"),
        (errno.EPERM, f"run the proxy as a user who may (now it is uid {os.geteuid()})"),
        (errno.EROFS, "mount it writable or choose another directory"),
        (errno.ENOSPC, "make room (df, df -i) or choose another directory"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EOPNOTSUPP, "file system that holds sockets"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EIO, ""),
    ],
)
def test_errors_in_words(number: int, advice: str) -> None:
    with pytest.raises(SocketPathError) as caught, explained("creating /{weird}/x"):
        raise OSError(number, os.strerror(number))
    text = str(caught.value)
    assert text.startswith(f"creating /{{weird}}/x: {os.strerror(number)}")
    assert advice in text
    assert "\n" not in text
    assert not text.endswith(("; ", ";"))


def test_an_error_without_number_is_explained_too() -> None:
    with pytest.raises(SocketPathError, match=r"binding: AF_UNIX path too long\Z"), explained("binding"):
        raise OSError("AF_UNIX path too long")


@pytest.mark.failure("24")
def test_where_clients_find_what_was_bound_to_a_temporary_name(tmp_path: Path) -> None:
    for name in ("x.sock", "n" * 50, ".hidden"):
        place = SocketPath(str(tmp_path), name, -1)
        assert published(place.path(place.temporary)) == place.path(name)
    assert published("/run/x.sock") == "/run/x.sock"
