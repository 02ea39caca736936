"""Work in another network namespace, without ever taking a thread there that has other work to do."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from proxy.errors import NetError

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>; os.setns came with Python 3.12
_libc = ctypes.CDLL(None, use_errno=True)


def run_inside(namespace: int, work: Callable[[], T]) -> T:
    """Call ``work`` in a short-lived thread of its own that is in the namespace (a descriptor), and wait for it.

    Returns what it returns and raises what it raises. Raises NetError when the namespace cannot be entered.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            try:
                switch(namespace)
            except OSError as error:
                raise NetError(f"cannot enter the network namespace: {error.strerror}") from None
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter, name="hostlane-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def switch(namespace: int) -> None:
    """This thread is in that network namespace (a descriptor) from now on. Raises OSError."""
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def open_namespace(pid: int | None = None, path: str | None = None) -> int:
    """A descriptor of the network namespace of a process, of the one whose file is ``path``, or else of this thread.
    The caller closes it.

    Raises NetError.
    """
    path = path or ("/proc/thread-self/ns/net" if pid is None else f"/proc/{pid}/ns/net")
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NetError(f"there is no process {pid}") from None
    except OSError as error:
        raise NetError(f"cannot open {path}: {error.strerror} (it takes root with CAP_SYS_PTRACE)") from error
