"""A network of a test's own, for what changes how the kernel treats all of a network: a thread that has left the
others' namespace (unshare(2)). Needs root; mark such tests ``netns``."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def in_own_network(work: Callable[[], T], *commands: str, settings: dict[str, str] | None = None) -> T:
    """Call ``work`` in a thread whose network is new, and return or raise what it does. The network goes with the last
    socket in it.

    Args:
        commands: run there before, such as ``ip address add 10.9.0.1/32 dev lo``; lo is up.
        settings: by path below /proc/sys/net/, such as ``ipv4/ip_local_port_range``.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            for command in ("ip link set lo up", *commands):
                subprocess.run(command.split(), check=True)
            for name, value in (settings or {}).items():
                with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
                    file.write(value)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
