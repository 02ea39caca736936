"""The system calls of the data plane, on plain descriptors, and the header word of a frame in a buffer.

There are two of this module, with one interface: this one, which runs uncompiled, and one in Cython. A result below
zero is an errno with its sign changed, as a socket that takes no more bytes is nothing exceptional here.

Positions and sizes must lie within the buffer: otherwise nothing is read or written, and the result is -EFAULT or an
IndexError.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from errno import EAGAIN, EFAULT
from os import sched_yield
from time import monotonic as now

__all__ = [
    "Epoll", "accept", "close", "connect_unix", "now", "peek", "peer_of", "piece", "put_bytes", "put_word", "recv",
    "sched_yield", "send", "word_at",
]

_WORD = struct.Struct(">Q")
_UCRED = struct.Struct("iII")
_FLAGS = int(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_PEEK = int(socket.MSG_PEEK)
_libc = ctypes.CDLL(None, use_errno=True)
_accept4, _recv = _libc.accept4, _libc.recv
_accept4.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_one = ctypes.create_string_buffer(1)


class Epoll:
    """An epoll, and what the last `wait` found: ``at(0)``, ``at(1)`` and so on. Its owner calls `close`.

    Args:
        most: descriptors that a `wait` finds at most.

    Attributes:
        mask: the events of the find that `at` was called for last.
    """

    def __init__(self, most: int) -> None:
        self._epoll = select.epoll()
        self._most, self.mask = most, 0
        self._found: list[tuple[int, int]] = []

    def fileno(self) -> int:
        """Its own descriptor; -1 after `close`."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def wait(self, milliseconds: int, most: int) -> int:
        """Wait until descriptors are ready, for so long at most (0: look and return). How many are, at most `most`."""
        self._found = self._epoll.poll(milliseconds / 1000, min(most, self._most))
        return len(self._found)

    def at(self, index: int) -> int:
        """The descriptor of a find; `mask` has its events from now on."""
        fd, self.mask = self._found[index]
        return fd

    def put_off(self, index: int, place: int) -> None:
        """Write a find over an earlier one, at `place`, which nobody asks for again."""
        self._found[place] = self._found[index]

    def add(self, fd: int, mask: int) -> None:
        """Raises OSError."""
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        """Raises OSError."""
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Raises OSError."""
        self._epoll.unregister(fd)

    def close(self) -> None:
        """Idempotent."""
        self._epoll.close()


def recv(fd: int, buf: bytearray, pos: int, size: int) -> int:
    """Receive up to `size` bytes to ``buf[pos:]``; 0: the end."""
    if pos < 0 or size < 0 or pos + size > len(buf):
        return -EFAULT
    try:
        return os.readv(fd, [memoryview(buf)[pos : pos + size]])
    except OSError as error:
        return -(error.errno or EAGAIN)


def send(fd: int, buf: bytearray, pos: int, size: int) -> int:
    """Send ``buf[pos : pos + size]``; how many bytes were taken."""
    if pos < 0 or size < 0 or pos + size > len(buf):
        return -EFAULT
    try:
        return os.write(fd, memoryview(buf)[pos : pos + size])
    except OSError as error:
        return -(error.errno or EAGAIN)


def peek(fd: int) -> int:
    """1: there is something to receive. 0: this is the end."""
    there: int = _recv(fd, _one, 1, _PEEK)
    return there if there >= 0 else -ctypes.get_errno()


def accept(fd: int) -> int:
    """The descriptor of the next connection of a listening socket, non-blocking and not inherited."""
    accepted: int = _accept4(fd, None, None, _FLAGS)
    return accepted if accepted >= 0 else -ctypes.get_errno()


def connect_unix(path: bytes) -> int:
    """The descriptor of a connection to a Unix socket, non-blocking and not inherited."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            code = sock.connect_ex(path)
            return -code if code else sock.detach()
    except OSError as error:  # no descriptor, or a path that is too long (which has no errno)
        return -(error.errno or EFAULT)


def close(fd: int) -> int:
    """Close a descriptor; 0: done. (With an error, too, it is closed: close(2).)"""
    try:
        os.close(fd)
    except OSError as error:
        return -(error.errno or EFAULT)
    return 0


def peer_of(fd: int, own: int) -> int:
    """User id of the process at the other end of a Unix socket (SO_PEERCRED, unix(7)); -1: that is process `own`.
    Raises OSError.
    """
    with socket.socket(fileno=os.dup(fd)) as sock:
        pid: int
        uid: int
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return -1 if pid == own else uid


def word_at(buf: bytearray, pos: int) -> int:
    """The big-endian 64-bit word at a position. Raises IndexError."""
    if pos < 0 or pos + 8 > len(buf):
        raise IndexError("beyond the buffer")
    word: int = _WORD.unpack_from(buf, pos)[0]
    return word


def put_word(buf: bytearray, pos: int, word: int) -> None:
    """Write a big-endian 64-bit word. Raises IndexError."""
    if pos < 0 or pos + 8 > len(buf):
        raise IndexError("beyond the buffer")
    _WORD.pack_into(buf, pos, word)


def piece(buf: bytearray, pos: int, size: int) -> bytes:
    """A copy of some of the buffer. Raises IndexError."""
    if pos < 0 or size < 0 or pos + size > len(buf):
        raise IndexError("beyond the buffer")
    return bytes(memoryview(buf)[pos : pos + size])


def put_bytes(buf: bytearray, pos: int, data: bytes) -> None:
    """Write bytes. Raises IndexError."""
    if pos < 0 or pos + len(data) > len(buf):
        raise IndexError("beyond the buffer")
    buf[pos : pos + len(data)] = data
