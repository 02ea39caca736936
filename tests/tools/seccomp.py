"""A command for which accept(2) is denied, as by a security module or a container's seccomp profile:
``python -m tests.tools.seccomp ERRNO COMMAND…``. Nothing else is filtered; for good, in its children too.
``--pump``: only where the pump accepts local connections; whoever asks the proxy is accepted.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys

# syscall(2) numbers of accept and accept4
_ACCEPT = {"x86_64": (43, 288), "aarch64": (202, 242)}[platform.machine()]
# linux/filter.h, linux/seccomp.h, linux/prctl.h
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SET_SECCOMP, _FILTER, _NO_NEW_PRIVS = 22, 2, 38


PUMP = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
"""What the pump gives accept4(2) in one call; `socket.accept` gives SOCK_CLOEXEC alone."""
_FLAGS = 16 + 3 * 8
"""Where the lower half of the fourth argument is in struct seccomp_data, on a machine that begins with it."""


def deny_accept(code: int, pump: bool = False) -> None:
    """Let accept(2) and accept4(2) fail with this error in this process from now on. Raises OSError."""
    accept, accept4 = _ACCEPT
    if pump:
        return _filter(b"".join([
            struct.pack("HBBI", _LOAD, 0, 0, 0),
            struct.pack("HBBI", _JUMP_IF_EQUAL, 0, 3, accept4),
            struct.pack("HBBI", _LOAD, 0, 0, _FLAGS),
            struct.pack("HBBI", _JUMP_IF_EQUAL, 0, 1, PUMP),
            struct.pack("HBBI", _RETURN, 0, 0, _ERRNO | code),
            struct.pack("HBBI", _RETURN, 0, 0, _ALLOW),
        ]))  # fmt: skip
    _filter(b"".join([
        struct.pack("HBBI", _LOAD, 0, 0, 0),  # the system call's number
        struct.pack("HBBI", _JUMP_IF_EQUAL, 1, 0, accept),
        struct.pack("HBBI", _JUMP_IF_EQUAL, 0, 1, accept4),
        struct.pack("HBBI", _RETURN, 0, 0, _ERRNO | code),
        struct.pack("HBBI", _RETURN, 0, 0, _ALLOW),
    ]))  # fmt: skip


def _filter(program: bytes) -> None:
    held = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(_SET_SECCOMP, _FILTER, described, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    words = sys.argv[1:]
    pump = words[0] == "--pump"
    code, *command = words[pump:]
    deny_accept(int(code), pump)
    os.execvp(command[0], command)
