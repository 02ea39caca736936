"""System calls on plain descriptors. Compiled or not, they have to pass these tests."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from select import EPOLLHUP, EPOLLIN, EPOLLOUT

import pytest

from proxy.core.syscalls import (
    Epoll,
    accept,
    close,
    connect_unix,
    now,
    peek,
    peer_of,
    piece,
    put_bytes,
    put_word,
    recv,
    send,
    word_at,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, two = socket.socketpair()
    one.setblocking(False)
    two.setblocking(False)
    with one, two:
        yield one, two


@pytest.fixture
def epoll() -> Iterator[Epoll]:
    epoll = Epoll(4)
    yield epoll
    epoll.close()
    assert epoll.fileno() == -1
    epoll.close()


def test_bytes_go_where_they_belong_and_nowhere_else(pair: Pair) -> None:
    one, two = pair
    buf = bytearray(b"." * 10)
    assert send(one.fileno(), bytearray(b"--abcdef--"), 2, 6) == 6
    assert recv(two.fileno(), buf, 3, 4) == 4
    assert buf == b"...abcd..."
    assert recv(two.fileno(), buf, 0, 10) == 2
    assert buf == b"ef.abcd..."


@pytest.mark.parametrize(("pos", "size"), [(-1, 4), (0, 11), (8, 3), (11, 0), (0, -1), (1 << 40, 1)])
def test_nothing_beyond_the_buffer_is_touched(pair: Pair, pos: int, size: int) -> None:
    one, two = pair
    buf = bytearray(10)
    two.send(b"x" * 20)
    assert recv(one.fileno(), buf, pos, size) == -errno.EFAULT
    assert send(one.fileno(), buf, pos, size) == -errno.EFAULT
    assert buf == bytes(10)


@pytest.mark.parametrize("pos", [-1, 3, 10, 1 << 40])
def test_no_word_lies_beyond_the_buffer(pos: int) -> None:
    buf = bytearray(10)
    with pytest.raises(IndexError):
        word_at(buf, pos)
    with pytest.raises(IndexError):
        put_word(buf, pos, 1)
    with pytest.raises(IndexError):
        put_bytes(buf, pos, bytes(8))
    with pytest.raises(IndexError):
        piece(buf, pos, 8)
    assert buf == bytes(10)


@pytest.mark.parametrize("word", [0, 1, 0x0102030405060708, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("pos", [0, 1, 2])
def test_words_are_big_endian_at_any_place(word: int, pos: int) -> None:
    buf = bytearray(b"." * 10)
    put_word(buf, pos, word)
    assert buf == b"." * pos + word.to_bytes(8, "big") + b"." * (2 - pos)
    assert word_at(buf, pos) == word


@pytest.mark.parametrize(("pos", "data"), [(0, b""), (10, b""), (0, b"0123456789"), (4, b"abc")])
def test_bytes_are_written_within_the_buffer(pos: int, data: bytes) -> None:
    buf = bytearray(b"." * 10)
    put_bytes(buf, pos, data)
    assert buf == b"." * pos + data + b"." * (10 - pos - len(data))
    assert piece(buf, pos, len(data)) == data


def test_errors_are_negative(pair: Pair) -> None:
    one, two = pair
    buf = bytearray(1 << 20)
    assert recv(one.fileno(), buf, 0, 10) == -errno.EAGAIN
    assert peek(one.fileno()) == -errno.EAGAIN
    while (taken := send(one.fileno(), buf, 0, len(buf))) > 0:
        pass
    assert taken == -errno.EAGAIN
    two.close()
    assert send(one.fileno(), buf, 0, 1) == -errno.EPIPE
    assert recv(one.fileno(), buf, 0, 10) == -errno.ECONNRESET
    assert recv(one.fileno(), buf, 0, 10) == 0
    assert recv(9999, buf, 0, 10) == peek(9999) == accept(9999) == -errno.EBADF


def test_a_look_takes_nothing(pair: Pair) -> None:
    one, two = pair
    two.send(b"x")
    assert peek(one.fileno()) == 1
    assert one.recv(10) == b"x"
    two.shutdown(socket.SHUT_WR)
    assert peek(one.fileno()) == 0


@pytest.mark.parametrize("abstract", [False, True])
def test_a_unix_socket_is_connected_and_accepted(tmp_path: Path, abstract: bool) -> None:
    path = f"\0{tmp_path}" if abstract else str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.setblocking(False)
        assert accept(listener.fileno()) == -errno.EAGAIN
        near, far = connect_unix(os.fsencode(path)), accept(listener.fileno())
        for fd in (near, far):
            assert not os.get_blocking(fd)
            assert not os.get_inheritable(fd)
        assert send(near, bytearray(b"hello"), 0, 5) == 5
        assert os.read(far, 10) == b"hello"
        assert peer_of(near, 0) == os.geteuid()
        assert peer_of(near, os.getpid()) == -1
        assert close(near) == close(far) == 0
        assert close(near) == -errno.EBADF


def test_a_full_backlog_and_nobody_there(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "sock")
    assert connect_unix(path) == -errno.ENOENT
    before = os.listdir("/proc/self/fd")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        assert connect_unix(path) == -errno.ECONNREFUSED
        listener.listen(0)
        first = connect_unix(path)
        assert connect_unix(path) == -errno.EAGAIN
        os.close(first)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("path", [b"", b"x" * 108, b"\0" + b"x" * 108, b"x" * 1000])
def test_what_is_no_path_is_refused(path: bytes) -> None:
    assert connect_unix(path) < 0


def test_nobody_is_at_the_other_end_of_a_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="non-socket"):
        peer_of(file.fileno(), 0)


def test_what_is_ready_is_found(epoll: Epoll, pair: Pair) -> None:
    one, two = pair
    epoll.add(one.fileno(), EPOLLIN)
    assert epoll.wait(0, 4) == 0
    two.send(b"x")
    assert epoll.wait(1000, 4) == 1
    assert (epoll.at(0), epoll.mask) == (one.fileno(), EPOLLIN)
    with pytest.raises(IndexError):
        epoll.at(1)
    epoll.modify(one.fileno(), EPOLLOUT)
    assert epoll.wait(0, 4) == 1
    assert (epoll.at(0), epoll.mask) == (one.fileno(), EPOLLOUT)
    two.close()
    assert epoll.wait(0, 4) == 1
    assert epoll.at(0) == one.fileno()
    assert epoll.mask & EPOLLHUP
    epoll.remove(one.fileno())
    assert epoll.wait(0, 4) == 0


def test_no_more_is_found_than_was_asked_for(epoll: Epoll) -> None:
    pairs = [socket.socketpair() for _ in range(6)]
    for one, _two in pairs:
        epoll.add(one.fileno(), EPOLLOUT)
    assert epoll.wait(0, 3) == 3
    assert epoll.wait(0, 100) == 4, "what there is room for"
    for one, two in pairs:
        one.close()
        two.close()


def test_what_cannot_be_watched_is_an_error(epoll: Epoll, pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        epoll.add(9999, EPOLLIN)
    with (tmp_path / "file").open("w") as file, pytest.raises(PermissionError):
        epoll.add(file.fileno(), EPOLLIN)
    with pytest.raises(FileNotFoundError):
        epoll.remove(pair[0].fileno())


def test_time_goes_on() -> None:
    before = now()
    assert before <= now()
